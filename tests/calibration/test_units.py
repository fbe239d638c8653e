"""A run's own tables, read in every way that astropy has, and in other units."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, Table

from calibration import (
    AtmosphereTable,
    FgcmRun,
    ReferenceCatalog,
    RingsSkyMap,
    simulate_camera,
    simulate_run,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("units") / "run"
    simulate_run(folder, n_visits=4, n_stars=60, camera=simulate_camera(2, 1), observations=False)
    return SimpleNamespace(
        folder=folder,
        stars=folder / "fgcmStandardStars.fits",
        air=folder / "fgcmAtmosphereParameters.fits",
    )


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")  # FITS does not know mbar
@pytest.mark.parametrize("kind", [Table, QTable])
def test_tables_as_astropy_reads_them(run, kind):
    stars, air = kind.read(run.stars), kind.read(run.air)
    plain = [np.degrees(np.asarray(stars[name])) for name in ("coord_ra", "coord_dec")]
    sky_map = RingsSkyMap(120)
    expected = sky_map.tract(*plain)
    found = sky_map.tract(stars["coord_ra"], stars["coord_dec"])
    np.testing.assert_array_equal(found, expected)
    table = AtmosphereTable.open(run.folder / "skyfold_approximate_atmosphere.fits")
    names = [name for name in air.colnames if name != "visit"]
    expected = table.interpolate({name: np.asarray(air[name]) for name in names})
    np.testing.assert_allclose(table.interpolate(air), expected, rtol=1e-14)
    air["pwv"], air["lamStd"] = (
        u.Quantity(air[name], air[name].unit).to(unit)
        for name, unit in {"pwv": u.cm, "lamStd": u.um}.items()
    )
    np.testing.assert_allclose(table.interpolate(air), expected, rtol=1e-12)
    np.testing.assert_allclose(table.curve(air[1]).throughput, expected[1], rtol=1e-12)
    air["pwv"] = np.ones(len(air)) * u.K
    with pytest.raises(u.UnitConversionError, match="pwv is in K, which is no mm"):
        table.interpolate(air)


def test_a_run_of_tables_in_other_units(run):
    stars = Table.read(run.stars)
    for name in ("coord_ra", "coord_dec"):
        stars[name] = np.degrees(stars[name]) * 60
        stars[name].unit = "arcmin"
    own = FgcmRun.open(run.folder)
    other = FgcmRun.open(run.folder, standard_stars=stars)
    read = [r.standard_stars.read(["coord_ra"])["coord_ra"] for r in (own, other)]
    np.testing.assert_allclose(*read, rtol=1e-14)
    stars["coord_dec"].unit = "furlong"
    with pytest.raises(ValueError, match="coord_dec is in furlong, .* set the column's unit"):
        FgcmRun.open(run.folder, standard_stars=stars)


def test_a_reference_catalog_in_other_units(run):
    reference = Table.read(run.folder / "refcat.fits")
    place = {"ra": reference["ra"][0], "dec": reference["dec"][0], "radius": 1.0}
    expected = ReferenceCatalog.open(reference).read(["i"], **place).magnitudes["i"]
    for name in ("i_flux", "i_fluxErr"):
        reference[name] = (np.asarray(reference[name]) * u.nJy).to("erg / (s cm2 Hz)")
    found = ReferenceCatalog.open(reference).read(["i"], **place).magnitudes["i"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
