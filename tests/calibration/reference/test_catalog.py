"""Reference catalogs: the same stars, however they are stored; what is wrong is said."""

from __future__ import annotations

import os

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

from calibration.reference.catalog import ReferenceCatalog
from calibration.reference.measure import reference_offsets
from calibration.sky.matching import angle, unit_vectors
from tests.calibration.fgcm_cases import write_parquet
from tests.calibration.reference_cases import (
    BANDS,
    CONFIG,
    STARS,
    TABLE,
    assert_close,
    compute,
    make_run,
    write_hats,
)


def as_magnitudes(table):
    out = {"RAJ": table["ra"], "DEJ": table["dec"]}
    for band in BANDS:
        out[f"mag_{band}"] = 31.4 - 2.5 * np.log10(table[f"{band}_flux"])
        out[f"e_mag_{band}"] = 2.5 / np.log(10) * table[f"{band}_fluxErr"] / table[f"{band}_flux"]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fits", "parquet", "hats", "memory"])
def test_every_format_gives_the_same_offsets(kind, tmp_path):
    if kind in ("parquet", "hats"):
        pytest.importorskip("pyarrow")
    path = tmp_path / f"reference.{kind}"
    if kind == "fits":
        Table(TABLE).write(path)
    elif kind == "parquet":
        write_parquet(path, TABLE, rows_per_group=700)
    elif kind == "hats":
        write_hats(path, TABLE, (4, 6))
    data = TABLE if kind == "memory" else path
    assert_close(compute(table=data), compute())


def test_the_reference_catalog_of_the_run_is_the_default(tmp_path):
    run = make_run(STARS, reference_catalog=TABLE)
    assert_close(reference_offsets(run, CONFIG).compute(), compute())


@pytest.mark.parametrize("kind", ["fits", "hats"])
def test_magnitudes_and_names_can_be_given(kind, tmp_path):
    path = tmp_path / f"mags.{kind}"
    if kind == "fits":
        Table(as_magnitudes(TABLE)).write(path)
    else:
        pytest.importorskip("pyarrow")
        write_hats(path, as_magnitudes(TABLE), (5, 7), ra="RAJ", dec="DEJ")
    options = {"flux": "mag_{band}", "error": "e_mag_{band}", "unit": "AB"}
    reference = ReferenceCatalog.open(path, ra="RAJ", dec="DEJ", **options)
    assert reference.bands == BANDS
    assert_close(compute(table=reference), compute())


def test_a_hats_catalog_says_where_its_positions_are(tmp_path):
    pytest.importorskip("pyarrow")
    names = {"ra": "RA_ICRS", "dec": "DE_ICRS"}
    table = {names.get(name, name): values for name, values in TABLE.items()}
    places = {"ra": "RA_ICRS", "dec": "DE_ICRS", "properties": "hats_nrows=3000\n"}
    folder = write_hats(tmp_path / "cat", table, (3, 5), **places)
    reference = ReferenceCatalog.open(folder)
    assert len(reference) == 3000
    assert "3000 stars, bands g, r" in repr(reference)
    assert_close(compute(table=reference), compute())


def test_of_a_hats_catalog_only_what_is_near_is_read(tmp_path):
    pytest.importorskip("pyarrow")
    far = {name: values.copy() for name, values in TABLE.items()}
    far["ra"] = (far["ra"] + 180) % 360
    both = {name: np.concatenate([TABLE[name], far[name]]) for name in TABLE}
    folder = write_hats(tmp_path / "cat", both, (4, 5))
    reference = ReferenceCatalog.open(folder)
    delayed = reference_offsets(make_run(STARS), CONFIG, reference)
    near = {
        part.path
        for part in reference.catalog.reader.near(unit_vectors([359.5], [20.0]), 3.0).parts
    }
    gone = [p for p in folder.glob("dataset/*/*/*.parquet") if str(p) not in near]
    assert gone
    for path in gone:
        path.unlink()
    assert_close(delayed.compute(), compute())
    for path in near:
        os.unlink(path)
    with pytest.raises(FileNotFoundError):
        delayed.compute()


@pytest.mark.parametrize("radius", [0.2, 1.0])
def test_stars_within_a_radius_are_read_in_the_order_of_the_catalog(radius, tmp_path):
    Table(TABLE).write(tmp_path / "reference.fits")
    centers = [359.5, 0.1], [20.0, 20.1]
    stars = ReferenceCatalog.open(tmp_path / "reference.fits").read(["r"], *centers, radius)
    positions, middles = unit_vectors(TABLE["ra"], TABLE["dec"]), unit_vectors(*centers)
    apart = angle(np.linalg.norm(positions[:, None] - middles, axis=-1)).min(axis=1)
    near = apart <= radius
    assert 50 < near.sum() < 2700
    np.testing.assert_array_equal(stars.vectors, positions[near])
    expected = 31.4 - 2.5 * np.log10(TABLE["r_flux"][near])
    np.testing.assert_allclose(stars.magnitudes["r"], expected, rtol=1e-14)
    np.testing.assert_allclose(stars.errors["r"], 0.01 * 2.5 / np.log(10), rtol=1e-12)


def test_what_is_no_magnitude_is_nan():
    fluxes = {"g_flux": [1.0, 0.0, -1.0, np.nan, 1.0, 1.0], "g_fluxErr": [0, 1, 1, 1, np.nan, -1]}
    magnitudes = {
        "g_flux": [20.0, 90.0, 99.0, np.nan, 20.0, 20.0],
        "g_fluxErr": [0, 1, 1, 1, np.nan, -1],
    }
    for table, unit, value in ((fluxes, "nJy", 31.4), (magnitudes, "AB", 20.0)):
        place = {"ra": np.zeros(6), "dec": np.zeros(6)}
        stars = ReferenceCatalog.open(place | table, unit=unit).read(["g"], 0.0, 0.0, 1.0)
        np.testing.assert_array_equal(stars.magnitudes["g"], [value, *[np.nan] * 5])
        np.testing.assert_array_equal(stars.errors["g"], [0, *[np.nan] * 5])


def test_a_pixel_of_a_hats_catalog_may_have_several_files(tmp_path):
    pytest.importorskip("pyarrow")
    folder = write_hats(tmp_path / "cat", TABLE, (4, 5), properties="hats_npix_suffix=/\n")
    for path in [*folder.glob("dataset/*/*/*.parquet")]:
        place = path.with_suffix("")
        place.mkdir()
        path.rename(place / "part0.parquet")
    assert_close(compute(table=folder), compute())


@pytest.mark.parametrize("rows", [None, slice(2, 5), np.array([3, 0, 3])])
def test_rows_of_a_hats_catalog(tmp_path, rows):
    pytest.importorskip("pyarrow")
    table = ReferenceCatalog.open(write_hats(tmp_path / "cat", TABLE, (4, 5))).catalog
    names = ["ra", "dec"]
    whole = [np.concatenate([block[name] for block in table.blocks(names)]) for name in names]
    found = table.read(names, rows)
    assert sorted(whole[0]) == sorted(TABLE["ra"])
    for name, expected in zip(names, whole, strict=True):
        np.testing.assert_array_equal(found[name], expected if rows is None else expected[rows])


def test_the_main_catalog_of_a_hats_collection_is_read(tmp_path):
    pytest.importorskip("pyarrow")
    write_hats(tmp_path / "stars", TABLE, (4, 5))
    (tmp_path / "collection.properties").write_text("hats_primary_table_url=stars\n")
    assert_close(compute(table=tmp_path), compute())


def test_positions_may_be_in_radians_where_the_table_says_so():
    table = Table(TABLE)
    for name in ("ra", "dec"):
        table[name] = np.radians(table[name])
        table[name].unit = "rad"
    assert_close(compute(table=table), compute())


def test_positions_of_an_lsst_catalog_are_in_radians_anyway():
    table = {name: values for name, values in TABLE.items() if name not in ("ra", "dec")}
    table |= {f"coord_{name}": np.radians(TABLE[name]) for name in ("ra", "dec")}
    assert_close(compute(table=table), compute())


def test_fluxes_may_be_in_what_the_table_says():
    table = Table(TABLE)
    for name in table.colnames[2:]:
        table[name] /= 1e3
        table[name].unit = "uJy"
    assert_close(compute(table=table), compute())


@pytest.mark.parametrize("kind", ["memory", "hats"])
def test_an_empty_reference_catalog_is_an_error(kind, tmp_path):
    table = {name: values[:0] for name, values in TABLE.items()}
    if kind == "hats":
        pytest.importorskip("pyarrow")
        table = write_hats(tmp_path / "cat", TABLE, (4, 5), properties="hats_nrows=0\n")
    with pytest.raises(ValueError, match="is empty: it has no star"):
        reference_offsets(make_run(STARS), CONFIG, table)


def test_a_hats_catalog_without_partitions_is_empty(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "properties").write_text("hats_col_ra=ra\n")
    with pytest.raises(ValueError, match="is an empty HATS catalog"):
        ReferenceCatalog.open(tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no table in"):
        ReferenceCatalog.open(tmp_path / "other")


def test_partitions_must_have_the_same_columns(tmp_path):
    pytest.importorskip("pyarrow")
    folder = write_hats(tmp_path / "cat", TABLE, (4, 5))
    path = max(folder.glob("dataset/Norder=5/*/*.parquet"))
    write_parquet(path, {name: np.ones(3, "f4") for name in TABLE})
    with pytest.raises(ValueError, match=r"column ra of dataset.Norder=5.* is Field\(dtype.*32"):
        compute(table=folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "K"}, "unit is one of fluxes"),
        ({"angle": "h"}, "angle is deg or rad"),
        ({"flux": "g_flux"}, "flux names columns by their {band}, got 'g_flux'"),
        ({"error": "err"}, "error names columns by their {band}"),
        ({"flux": "{band}_mag"}, "has no band with columns {band}_mag and {band}_fluxErr"),
        ({"ra": "alpha"}, "there is no column alpha"),
    ],
)
def test_a_reference_catalog_is_refused(options, message):
    with pytest.raises(ValueError, match="^" + ".*" + message.replace("{", r"\{")):
        ReferenceCatalog.open(TABLE, **options)


def test_columns_in_another_kind_of_unit_are_refused():
    table = Table(TABLE)
    table["g_flux"].unit = "mag"
    with pytest.raises(ValueError, match="column g_flux is in mag; it should hold numbers in nJy"):
        ReferenceCatalog.open(table)


def flux_of(table, **options):
    stars = ReferenceCatalog.open(table, **options).read(["g"], 10 * u.deg, 0.0, 3600 * u.arcsec)
    return 10 ** ((31.4 - stars.magnitudes["g"]) / 2.5)


def test_units_of_fluxes_and_positions_are_said_by_the_table_or_by_an_option():
    plain = {"ra": [10.0, 10.1], "dec": [0.0, 0.1], "g_flux": [3e4, 5e4], "g_fluxErr": [3e2, 4e2]}
    wanted = flux_of(plain)
    for unit, factor in (("Jy", 1e-9), ("uJy", 1e-3), ("1e-9 Jy", 1), ("nanojansky", 1)):
        scaled = plain | {
            name: np.multiply(plain[name], factor) for name in ("g_flux", "g_fluxErr")
        }
        table = Table(scaled)
        for name in ("g_flux", "g_fluxErr"):
            table[name].unit = unit
        for own, options in (
            (table, {}),
            (table, {"unit": "mJy"}),  # what a table says counts
            (scaled, {"unit": unit}),
        ):
            np.testing.assert_allclose(flux_of(own, **options), wanted, rtol=1e-12)
    magnitudes = plain | {"g_flux": [20.0, 21.0], "g_fluxErr": [0.01, 0.01]}
    for silent in (magnitudes, scaled | {"g_flux": [3e-5, 5e-5]}):
        with pytest.raises(ValueError, match="g_flux has no unit, and its values are not likely"):
            flux_of(silent)
    radians = {"coord_ra": np.radians(plain["ra"]), "coord_dec": np.radians(plain["dec"])}
    degrees = {"coord_ra": plain["ra"], "coord_dec": plain["dec"]}
    rest = {name: plain[name] for name in ("g_flux", "g_fluxErr")}
    np.testing.assert_allclose(flux_of(radians | rest), wanted)
    np.testing.assert_allclose(flux_of(degrees | rest, angle="deg"), wanted)
    with pytest.raises(
        ValueError, match='coord_ra has no unit, .* not likely in rad: .* angle="de'
    ):
        flux_of(degrees | rest)


@pytest.mark.parametrize(("column", "option"), [("g_flux", "unit"), ("dec", "angle")])
def test_a_unit_that_is_not_known_names_the_option(column, option):
    table = Table({"ra": [10.0], "dec": [0.0], "g_flux": [3e4], "g_fluxErr": [3e2]})
    table[column].unit = "counts_per_fortnight"
    with pytest.raises(ValueError, match=f"{column} is in counts_per_fortnight, .* {option}="):
        flux_of(table)
    unit = {"unit": "nJy", "angle": "deg"}[option]
    np.testing.assert_allclose(flux_of(table, **{option: unit}), 3e4)


@pytest.mark.parametrize("unit", ["mag(Jy)", "mag(ST)"])
def test_magnitudes_of_another_system_are_refused(unit):
    table = Table({"ra": [10.0], "dec": [0.0], "g_flux": [20.0], "g_fluxErr": [0.01]})
    table["g_flux"].unit = unit
    with pytest.raises(
        ValueError, match=r"g_flux is in mag.*; it should hold numbers in mag\(AB\)"
    ):
        flux_of(table, unit="AB")
    table["g_flux"].unit = u.ABmag
    np.testing.assert_allclose(flux_of(table, unit="AB"), 10 ** (11.4 / 2.5))


def test_files_are_told_apart_by_their_checksums(tmp_path):
    pytest.importorskip("pyarrow")
    Table(TABLE).write(tmp_path / "a.fits")
    folder = write_hats(tmp_path / "cat", TABLE, (4, 5))
    prints = {ReferenceCatalog.open(d).fingerprint() for d in (TABLE, tmp_path / "a.fits", folder)}
    assert len(prints) == 3
    next(folder.glob("dataset/*/*/*.parquet")).unlink()
    assert ReferenceCatalog.open(folder).fingerprint() not in prints


def test_errors_by_the_oldest_name():
    table = {"ra": [10.0], "dec": [0.0], "i_flux": [3631.0], "i_fluxSigma": [36.31]}
    found = ReferenceCatalog.open(table).read(["i"], ra=10.0, dec=0.0, radius=1.0)
    assert found.errors["i"] == pytest.approx(0.0108574, rel=1e-4)
    both = ReferenceCatalog.open(table | {"i_fluxErr": [72.62]})
    assert both.read(["i"], ra=10.0, dec=0.0, radius=1.0).errors["i"] == pytest.approx(
        0.0217147, rel=1e-4
    )


def test_other_files_of_a_hats_catalog_are_none_of_its_partitions(tmp_path):
    write_hats(tmp_path / "hats", TABLE, (4, 6))
    before = ReferenceCatalog.open(tmp_path / "hats")
    write_parquet(tmp_path / "hats" / "dataset" / "data_thumbnail.parquet", TABLE)
    after = ReferenceCatalog.open(tmp_path / "hats")
    assert (after.partitioned, len(after.catalog)) == (True, len(before.catalog))
