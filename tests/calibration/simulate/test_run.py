"""The simulated FGCM run: what its catalogs say, and that its products give back the truth."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.modeling.physical_models import BlackBody
from astropy.table import Table
from scipy.integrate import simpson

from calibration import AtmosphereTable, Boresight, FgcmRun, TransmissionCurve
from calibration.photocalib.zeropoints import NoZeropointError, visit_photo_calib
from calibration.simulate.run import simulate_run

BAND = {"SIM-G": "g", "SIM-R": "r", "SIM-I": "i", "SIM-Z": "z"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "run"
    simulate_run(path)
    return path


@pytest.fixture(scope="module")
def run(folder):
    return FgcmRun.open(folder)


@pytest.fixture(scope="module")
def table(folder):
    """Return a function that reads a table of the run."""
    return lambda name: Table.read(folder / f"{name}.fits")


@pytest.fixture(scope="module")
def visits(run, table):
    """Return, for each visit with a zeropoint, what was seen and what it is calibrated with."""
    stars, seen = table("truth_stars"), table("fgcmStarObservations").group_by("visit")
    offsets = dict(zip(*table("truth_offsets").itercols(), strict=True))
    known = []
    for key, sources in zip(seen.groups.keys["visit"], seen.groups, strict=True):
        row = run.visit_row(key)
        band = BAND[row["physicalFilter"]]
        mag = stars["mag"][sources["fgcm_id"], run.bands.index(band)]
        known.append((key, sources, np.array(mag), row["scaling"], offsets[band]))
    return known


def chi2_per_dof(run, visits, change=lambda rows, scaling, area, offset: None):
    """Calibrate all observations, with a changed calibration, and compare them with the truth."""
    total, count = 0.0, 0
    for visit, sources, mag, scaling, offset in visits:
        boxes = np.array([detector.box for detector in run.camera.values()])
        parts = {
            "rows": run.zeropoint_rows(visit),
            "scaling": scaling.copy(),
            "area": run.camera.area_coefficients().copy(),
            "offset": np.array(offset),
        }
        change(**parts)
        photo_calib = visit_photo_calib(
            visit,
            parts["rows"],
            (run.detector_ids, parts["scaling"]),
            offset=float(parts["offset"]),
            area=(run.camera.ids, boxes, parts["area"]),
        )
        detector, x, y = (np.array(sources[name]) for name in ("detector", "x", "y"))
        flux, err = (np.array(sources[name]) for name in ("instFlux", "instFluxErr"))
        ours, error = photo_calib.to_magnitude(flux, err, detector=detector, x=x, y=y)
        total, count = total + np.sum(((ours - mag) / error) ** 2), count + len(mag)
    return total / count


# Closing the loop


@pytest.mark.slow
def test_products_give_back_true_magnitudes(run, visits):
    assert 0.98 < chi2_per_dof(run, visits) < 1.02
    assert len(visits) == 23
    assert sum(len(sources) for _, sources, *_ in visits) > 20_000


def on_rows(name, change):
    """Return a deliberate error of one column of the zeropoints."""

    def spoil(rows, **_):
        known = rows["fgcmFlag"] != 16
        rows[name][known] = change(rows[name][known])

    return spoil


def transposed(column):
    n = int(column.shape[1] ** 0.5)
    return column.reshape(-1, n, n).transpose(0, 2, 1).reshape(column.shape).copy()


def constant(column):
    return column * (np.arange(column.shape[1]) == 0)


def on(part, change):
    """Return a deliberate error of the scaling, the area or the offset."""

    def spoil(**parts):
        parts[part][...] = change(parts[part])

    return spoil


def next_one(stack):
    return np.roll(stack, 1, axis=0)


ERRORS = {
    "superstar constant": on_rows("fgcmfZptSstarCheb", constant),
    "superstar transposed": on_rows("fgcmfZptSstarCheb", transposed),
    "superstar of another detector": on_rows("fgcmfZptSstarCheb", next_one),
    "superstar upside down": on_rows("fgcmfZptSstarCheb", lambda c: c * np.repeat([1, -1, 1], 3)),
    "zeropoint constant": on_rows("fgcmfZptCheb", constant),
    "zeropoint transposed": on_rows("fgcmfZptCheb", transposed),
    "chromatic term left out": on_rows("fgcmDeltaChrom", np.zeros_like),
    "chromatic term of the other sign": on_rows("fgcmDeltaChrom", np.negative),
    "chromatic term of another detector": on_rows("fgcmDeltaChrom", next_one),
    "scaling left out": on("scaling", np.ones_like),
    "scaling inverted": on("scaling", np.reciprocal),
    "scaling of another detector": on("scaling", next_one),
    "area left out": on("area", lambda c: np.eye(3)[:1].T * np.eye(3)[:1] + 0 * c),
    "area constant": on("area", lambda c: c * (np.arange(9).reshape(3, 3) == 0)),
    "area transposed": on("area", lambda c: c.transpose(0, 2, 1).copy()),
    "area of another detector": on("area", next_one),
    "offset left out": on("offset", np.zeros_like),
    "offset of the other sign": on("offset", np.negative),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", ERRORS.values(), ids=ERRORS)
def test_deliberate_error_shows(run, visits, change):
    assert chi2_per_dof(run, visits, change) > 1.1


# What the catalogs say


def test_visits_without_and_with_poor_zeropoints(run, table):
    zeropoints, seen = table("fgcmZeropoints"), table("fgcmStarObservations")
    none = zeropoints["fgcmFlag"] == 16
    assert set(zeropoints["fgcmFlag"]) == {1, 4, 16}
    for name in ("fgcmZpt", "fgcmZptVar", "fgcmDeltaChrom"):
        np.testing.assert_array_equal(zeropoints[name] == -9999, none)
    for name in ("fgcmfZptCheb", "fgcmfZptSstarCheb"):
        np.testing.assert_array_equal((np.array(zeropoints[name]) == -9999).all(axis=1), none)
    missing, used = (
        {*zip(t["visit"].tolist(), t["detector"].tolist(), strict=True)}
        for t in (zeropoints[none], seen)
    )
    assert len(missing) == 8 + 2  # a visit, and a detector each of two
    assert missing.isdisjoint(used)
    lost = run.visit_ids[9]
    with pytest.raises(NoZeropointError, match=str(lost)):
        visit_photo_calib(lost, run.zeropoint_rows(lost), (run.detector_ids, np.ones(8)))


def test_scaling_is_that_of_the_last_night(run):
    rows = run.visit_rows()
    changed = (rows["scaling"] != 1).all(axis=1)
    last = rows["mjd"].astype(int) == rows["mjd"].astype(int).max()
    np.testing.assert_array_equal(changed, last)
    assert 0 < changed.sum() < len(changed)
    assert 0.005 < rows["scaling"][changed].std() < 0.05


def test_standard_stars_scatter_about_the_truth(table):
    stars, truth, offsets = table("fgcmStandardStars"), table("truth_stars"), table("truth_offsets")
    mag, err = (np.array(stars[name], float) for name in ("mag_std_noabs", "magErr_std"))
    some = mag < 90
    np.testing.assert_array_equal(some, np.array(stars["ngood"]) > 0)
    assert ((mag == 99) & (err == 99))[~some].all()
    assert 0 < np.sum(~some) < np.sum(some)
    pull = (mag + np.array(offsets["offset"]) - truth["mag"][stars["id"]]) / err
    assert 0.9 < np.mean(pull[some] ** 2) < 1.1
    np.testing.assert_allclose(np.degrees(stars["coord_ra"]), truth["ra"][stars["id"]], rtol=1e-12)


def test_counts_are_those_of_the_observations(run, table):
    stars, seen = table("fgcmStandardStars"), table("fgcmStarObservations")
    filters = dict(zip(*run.visit_rows(columns=["visit", "physicalFilter"]).values(), strict=True))
    band = np.array([run.bands.index(BAND[filters[visit]]) for visit in seen["visit"]])
    total = np.zeros((seen["fgcm_id"].max() + 1, 4), int)
    np.add.at(total, (seen["fgcm_id"], band), 1)
    np.testing.assert_array_equal(stars["ntotal"], total[stars["id"]])
    assert (np.array(stars["ngood"]) <= np.array(stars["ntotal"])).all()


def test_reference_stars_are_the_stars(table):
    reference, truth = table("refcat"), table("truth_stars")
    apart = np.hypot(
        *(np.subtract.outer(reference[name], truth[name]) * 3600 for name in ("ra", "dec"))
    )
    nearest = apart.argmin(axis=1)
    assert np.quantile(apart.min(axis=1), 0.99) < 0.25
    flux, err = np.array(reference["g_flux"]), np.array(reference["g_fluxErr"])
    pull = (flux - 10 ** (-0.4 * (truth["mag"][nearest, 0] - 31.4))) / err
    assert 0.9 < np.mean(np.clip(pull, -5, 5) ** 2) < 1.1


def test_observed_positions_are_those_of_the_camera(run, table):
    seen = table("fgcmStarObservations")
    seen = seen[seen["visit"] == run.visit_ids[3]]
    row = run.visit_row(run.visit_ids[3])
    boresight = Boresight(row["telra"], row["teldec"], row["telrot"])
    places = (np.array(seen[name]) for name in ("detector", "x", "y"))
    ra, dec = run.camera.to_sky(*places, boresight)
    np.testing.assert_allclose(ra, seen["ra"], atol=1e-9)
    np.testing.assert_allclose(dec, seen["dec"], atol=1e-9)


# What the zeropoints are made of


@pytest.fixture(scope="module")
def atmosphere(folder, run):
    return AtmosphereTable.open(run.lookup["tablename"], folder)


def test_integrals_are_those_of_atmosphere_and_passband(run, table, atmosphere):
    passbands = table("fgcmStandardPassbands")
    for visit in run.visit_ids[[0, 6]]:
        curve = atmosphere.curve(run.atmosphere_rows(visit))
        name = run.visit_row(visit)["physicalFilter"]
        reference = table("fgcmLookUpTable")["lambdaStd"][0, run.physical_filters.index(name)]
        rows = table("fgcmZeropoints")
        rows = rows[rows["visit"] == visit]
        throughput = np.float64(passbands[f"{name}_DET"]).T
        for i0, i10, one in zip(rows["fgcmI0"], rows["fgcmI10"], throughput, strict=True):
            passband = TransmissionCurve(passbands["wavelength"], one)
            integrals = curve.band_integrals(passband, reference=reference)
            assert integrals.i0 == pytest.approx(i0, rel=1e-6)
            assert integrals.i10 == pytest.approx(i10, abs=1e-4)


def test_zeropoints_are_those_of_the_photons(run, table):
    truth, zeropoints = table("truth_zeropoints"), table("fgcmZeropoints")
    rows = run.visit_rows()
    exposure = np.repeat(rows["exptime"], 8)
    expected = 2.5 * np.log10(truth["i0"] * exposure) + truth["illumination"] - truth["gray"]
    # 10 m2, 1.5 electrons per adu, and 3.63e-20 erg / (s cm2 Hz) of photons of 6.63e-27 erg s.
    constant = 2.5 * np.log10(1e5 * 3.6307805e-20 / 6.62607015e-27 / 1.5)
    np.testing.assert_allclose(truth["zpt"] - expected, constant, atol=1e-6)
    known = np.array(zeropoints["fgcmZpt"]) > -9999
    filters = [BAND[name.strip()] for name in zeropoints["filtername"]]
    offsets = dict(zip(*table("truth_offsets").itercols(), strict=True))
    relative = truth["zpt"] - np.array([offsets[band] for band in filters])
    np.testing.assert_allclose(zeropoints["fgcmZpt"][known], relative[known], rtol=1e-12)


def test_chromatic_term_is_what_color_does_to_the_mean_star(run, table, atmosphere):
    passbands, rows = table("fgcmStandardPassbands"), table("fgcmZeropoints")
    wavelengths = np.array(passbands["wavelength"])
    star = black_body(np.sqrt(3800 * 8000), wavelengths)

    def relative(passband):
        density = passband / wavelengths
        return simpson(star * density, x=wavelengths) / simpson(density, x=wavelengths)

    checked = 0
    for visit in run.visit_ids[[0, 4, 1, 2]]:
        name = run.visit_row(visit)["physicalFilter"]
        air = atmosphere.interpolate(run.atmosphere_rows(visit))[0]
        standard = relative(np.float64(passbands[name]))
        for row in rows[(rows["visit"] == visit) & (rows["fgcmFlag"] < 16)]:
            own = relative(air * np.float64(passbands[f"{name}_DET"][:, row["detector"]]))
            expected = 2.5 * np.log10(own / standard)
            assert row["fgcmDeltaChrom"] == pytest.approx(expected, abs=4e-4, rel=0.1)
            checked += abs(expected) > 1e-3
    assert checked > 10


def black_body(temperature, wavelengths):
    """Return f_nu of a black body, by astropy."""
    return BlackBody(temperature * u.K)(wavelengths * u.AA).value


def test_stars_are_black_bodies(table):
    passbands, stars = table("fgcmStandardPassbands"), table("truth_stars")
    wavelengths = np.array(passbands["wavelength"])
    density = np.array([passbands[name] for name in BAND], float) / wavelengths
    for star in stars[:5]:
        flux = simpson(density * black_body(star["teff"], wavelengths), x=wavelengths)
        mag = -2.5 * np.log10(flux / simpson(density, x=wavelengths))
        np.testing.assert_allclose(star["mag"] - star["mag"][2], mag - mag[2], atol=2e-4)
