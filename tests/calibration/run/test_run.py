"""FgcmRun: every way to store a run gives the same rows; what is wrong is said, all at once."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Column, Table, vstack
from dask.base import tokenize

from calibration.camera.camera import Camera
from calibration.config.config import ProductsConfig
from calibration.photocalib.zeropoints import NoZeropointError
from calibration.products.build import build_products
from calibration.run.problems import RunWarning
from calibration.run.run import FgcmRun
from calibration.run.visit_index import VisitIndex
from calibration.tables.fits_reader import FitsTable
from calibration.tables.parquet_reader import ParquetTable
from tests.calibration.fgcm_cases import (
    FILES,
    RUN,
    hdu_of,
    tables,
    upper,
    write,
    write_alone,
    write_parquet,
)
from tests.calibration.products_cases import TABLE

VISIT = 60600004


@pytest.fixture
def run():
    return FgcmRun.open(RUN)


def in_memory(change=lambda table: table):
    return FgcmRun(camera=RUN / "camera.ecsv", **{n: change(t) for n, t in tables().items()})


def as_mapping(table):
    return {name: np.asarray(table[name]) for name in table.colnames} | {"meta": dict(table.meta)}


def assert_same_rows(run, expected):
    np.testing.assert_array_equal(run.visit_ids, expected.visit_ids)
    assert run.bands == expected.bands
    assert run.physical_filters == expected.physical_filters
    np.testing.assert_array_equal(run.detector_ids, expected.detector_ids)
    for catalog, other in ((run.zeropoints, "zeropoint_rows"), (run.visits, "visit_rows")):
        found, wanted = (getattr(r, other)(expected.visit_ids) for r in (run, expected))
        assert set(catalog.columns) <= set(found) <= set(wanted)
        for name, values in found.items():
            assert values.dtype.isnative
            assert values.dtype.kind == wanted[name].dtype.kind
            np.testing.assert_array_equal(values, wanted[name], err_msg=name)
    np.testing.assert_equal(
        run.atmosphere_rows(expected.visit_ids[::-1]),
        expected.atmosphere_rows(expected.visit_ids[::-1]),
    )
    stars, other = run.standard_stars.read(), expected.standard_stars.read()
    for name, values in stars.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-14, err_msg=name)
    assert run.lookup["stdPhysicalFilters"] == expected.lookup["stdPhysicalFilters"]
    np.testing.assert_array_equal(run.lookup["atmLambda"], expected.lookup["atmLambda"])


def test_rows_are_those_of_the_files(run):
    table = Table(fits.getdata(RUN / "fgcmZeropoints.fits"))
    table = table[table["visit"] == VISIT]
    rows = run.zeropoint_rows(VISIT)
    assert len(rows["visit"]) == 8
    assert rows["fgcmZpt"].dtype == np.float64
    for name, values in rows.items():
        expected = table[name].astype(str) if values.dtype.kind == "U" else table[name]
        np.testing.assert_array_equal(values, expected)
    row = run.visit_row(VISIT)
    assert (row["visit"], row["physicalFilter"], row["exptime"]) == (VISIT, "SIM-Z", 60.0)
    assert row["scaling"].shape == (8,)
    assert run.bands == ("g", "r", "i", "z")
    assert run.lookup["tablename"] == "fgcm_atm_lsst2_test"
    assert run.lookup["elevation"] == 2663
    assert run.lookup["physicalFilters"] == ("SIM-G", "SIM-R", "SIM-I", "SIM-I2", "SIM-Z")
    assert run.reference_catalog.units == {"ra": "deg", "dec": "deg"} | {
        f"{band}_{kind}": "nJy" for band in "griz" for kind in ("flux", "fluxErr")
    }
    assert run.warnings == ()
    assert run.check() == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fits", "fits.gz", "parquet", "parquet-flat"])
def test_formats(run, tmp_path, kind):
    assert_same_rows(FgcmRun.open(write(tmp_path, tables(), kind)), run)


@pytest.mark.slow
@pytest.mark.parametrize("form", [Table, as_mapping, lambda t: t.as_array(), upper])
def test_tables_in_memory(run, form):
    parts = {name: form(table) for name, table in tables().items()}
    parts["standard_stars"] = as_mapping(tables()["standard_stars"])
    found = FgcmRun(camera=Camera.open(RUN / "camera.ecsv"), **parts)
    assert_same_rows(found, run)
    assert_same_rows(pickle.loads(pickle.dumps(found)), run)


def test_names_of_a_stand_alone_fit(run, tmp_path):
    with pytest.warns(RunWarning, match=r"exposures.fits: there is no column scaling: it is taken"):
        found = FgcmRun.open(write_alone(tmp_path, tables()))
    assert found.visit_row(VISIT)["scaling"].tolist() == [1.0] * 8
    assert "tablename" not in found.lookup
    assert "scaling" not in found.visit_rows([VISIT], ["mjd"])
    assert_same_rows(found, FgcmRun.open(RUN, visits=no_scaling()))


def no_scaling():
    table = tables()["visits"]
    table["scaling"] = 1.0 + 0 * table["scaling"]
    return table


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fits", "parquet"])
def test_unsorted_rows(run, tmp_path, kind):
    rng = np.random.default_rng(3)
    parts = {name: table[rng.permutation(len(table))] for name, table in tables().items()}
    parts["standard_stars"], parts["lookup_table"] = (
        tables()[name] for name in ("standard_stars", "lookup_table")
    )
    found = FgcmRun.open(write(tmp_path, parts, kind))
    assert found.warnings == ()
    for visit in run.visit_ids:
        rows, expected = found.zeropoint_rows(visit), run.zeropoint_rows(visit)
        order = np.argsort(rows["detector"])
        for name, values in rows.items():
            np.testing.assert_array_equal(values[order], expected[name])
        np.testing.assert_equal(found.visit_row(visit), run.visit_row(visit))
    np.testing.assert_equal(
        found.atmosphere_rows(run.visit_ids), run.atmosphere_rows(run.visit_ids)
    )


def test_batches_are_visits_one_after_the_other(run):
    visits = run.visit_ids[[3, 0, 1]]
    batch = run.zeropoint_rows(visits)
    single = [run.zeropoint_rows(visit) for visit in visits]
    for name, values in batch.items():
        np.testing.assert_array_equal(values, np.concatenate([rows[name] for rows in single]))
    few = run.zeropoint_rows(visits, ["detector", "fgcmZpt"])
    assert list(few) == ["detector", "fgcmZpt"]
    with pytest.raises(KeyError, match=r"fgcmZeropoints.fits has no column zpt; it has visit"):
        run.zeropoint_rows(visits, ["zpt"])
    assert len(run.zeropoint_rows([])["visit"]) == 0


@pytest.mark.slow
def test_a_run_travels_and_is_shared_between_threads(run):
    other = pickle.loads(pickle.dumps(run))
    assert tokenize(other) == tokenize(run) == tokenize(FgcmRun.open(RUN))
    assert tokenize(run) != tokenize(FgcmRun.open(RUN, tract=3))
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(other.zeropoint_rows, [*run.visit_ids] * 20))
    for visit, found in zip([*run.visit_ids] * 20, rows, strict=True):
        np.testing.assert_equal(found, run.zeropoint_rows(visit))


# Lazy


def large_zeropoints(visits, detectors):
    count = visits * detectors
    columns = {
        "visit": np.repeat(np.arange(visits) + 1000, detectors),
        "detector": np.tile(np.arange(detectors), visits),
        "filtername": np.full(count, "SIM-R"),
        "fgcmFlag": np.ones(count, np.int32),
        "fgcmZpt": np.full(count, 31.0),
        "fgcmZptVar": np.full(count, 1e-6),
        "fgcmfZptChebXyMax": np.full((count, 2), 99.0),
        "fgcmfZptCheb": np.random.default_rng(0).normal(size=(count, 9)),
        "fgcmfZptSstarCheb": np.ones((count, 36)),
        "fgcmDeltaChrom": np.zeros(count),
    }
    row = {"visit": np.arange(visits) + 1000, "physicalFilter": np.full(visits, "SIM-R")}
    row["scaling"] = np.ones((visits, detectors))
    return row, columns


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fits", "parquet"])
def test_opening_reads_key_columns_only(tmp_path, kind, monkeypatch):
    visits, zeropoints = large_zeropoints(3000, 20)
    path = tmp_path / f"z.{kind}"
    if kind == "fits":
        Table(zeropoints).write(path)
    else:
        write_parquet(path, zeropoints, rows_per_group=5000)
    size = sum(values.nbytes for values in zeropoints.values())
    asked = set()
    source = FitsTable if kind == "fits" else ParquetTable
    for method in ("read", "blocks"):
        original = getattr(source, method)

        def spy(self, names, *args, original=original):
            asked.update(names)
            return original(self, names, *args)

        monkeypatch.setattr(source, method, spy)
    tracemalloc.start()
    run = FgcmRun(visits=visits, zeropoints=path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert asked == {"visit", "detector"}
    assert peak < min(size / 3, 12e6)  # blocks of 4 MiB, and not the table
    index = VisitIndex.of(run.zeropoints, "detector")
    assert index.order is None
    assert len(pickle.dumps(run.zeropoints)) < 10_000
    assert len(pickle.dumps(index)) < 30 * len(index)
    rows = run.zeropoint_rows(3999)
    np.testing.assert_array_equal(rows["fgcmfZptCheb"], zeropoints["fgcmfZptCheb"][-20:])


def test_damage_in_other_columns_is_not_seen_before_they_are_read(tmp_path):
    visits, zeropoints = large_zeropoints(50, 4)
    path = tmp_path / "z.parquet"
    write_parquet(path, zeropoints)
    data = bytearray(path.read_bytes())
    import pyarrow.parquet as pq

    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    for column in columns:
        if column.path_in_schema not in ("visit", "detector"):
            start = column.dictionary_page_offset or column.data_page_offset
            data[start : start + column.total_compressed_size] = b"x" * column.total_compressed_size
    path.write_bytes(data)
    run = FgcmRun(visits=visits, zeropoints=path)
    assert len(run.zeropoint_rows(1000, ["detector"])["detector"]) == 4
    with pytest.raises(OSError, match="."):
        run.zeropoint_rows(1000)


@pytest.mark.slow
def test_the_large_column_of_the_look_up_table_is_not_read(tmp_path):
    table = tables()["lookup_table"]
    table["lut"] = np.zeros((len(table), 1_000_000), "f4")
    hdu_of(table).writeto(tmp_path / "lut.fits")
    tracemalloc.start()
    run = FgcmRun(visits=tables()["visits"], lookup_table=tmp_path / "lut.fits")
    assert run.lookup["atmLambda"].shape == (101,)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < table["lut"][0].nbytes / 4


# What is wrong: errors of the run


def without(catalog, column):
    return lambda parts: parts[catalog].remove_column(column)


def replaced(catalog, column, values, unit=None):
    def change(parts):
        table = parts[catalog]
        table[column] = values(table[column]) if callable(values) else values
        table[column].unit = unit

    return change


def plain(catalog, column, factor, unit):
    return replaced(catalog, column, lambda values: np.asarray(values) * factor, unit)


BROKEN = {
    "column missing": (
        without("zeropoints", "fgcmZpt"),
        r"fgcmZeropoints.fits: there is no column fgcmZpt \(numbers in mag\); did you mean fgcmZpt",
    ),
    "key missing": (without("atmosphere_parameters", "visit"), "there is no column visit"),
    "no scaling": (
        without("visits", "scaling"),
        r"fgcmVisitCatalog.fits: there is no column scaling \(numbers, one value per detector",
    ),
    "name misspelt": (
        lambda parts: parts["zeropoints"].rename_column("fgcmZptVar", "fgcmZptVariance"),
        "there is no column fgcmZptVar ",
    ),
    "not square": (
        replaced("zeropoints", "fgcmfZptCheb", np.ones((40, 5))),
        r"column fgcmfZptCheb holds 5 values in each row; it should hold numbers, n x n values",
    ),
    "no array": (
        replaced("zeropoints", "fgcmfZptChebXyMax", np.ones(40)),
        "fgcmfZptChebXyMax holds one value in each row; it should hold numbers in pix, 2 values",
    ),
    "array": (
        replaced("atmosphere_parameters", "pwv", np.ones((5, 2))),
        "column pwv holds 2 values in each row; it should hold numbers in mm",
    ),
    "scaling of another camera": (
        replaced("visits", "scaling", np.ones((5, 9))),
        "scaling has 9 values in each row; the camera has 8 detectors",
    ),
    "bands": (
        lambda parts: parts["standard_stars"].meta.update(BANDS="g,r,i"),
        "column ngood has 4 values in each row; there are 3 bands: g, r, i",
    ),
    "no bands": (
        lambda parts: parts["standard_stars"].meta.pop("BANDS"),
        "the header does not say the BANDS",
    ),
    "text": (
        replaced("zeropoints", "fgcmZpt", ["x"] * 40),
        "column fgcmZpt holds text; it should hold numbers in mag",
    ),
    "float": (
        replaced("zeropoints", "detector", np.zeros(40)),
        "column detector holds float64; it should hold whole numbers",
    ),
    "unit": (
        plain("atmosphere_parameters", "lamStd", 1.0, "mbar"),
        "column lamStd is in mbar; it should hold numbers in Angstrom",
    ),
    "degrees called radians": (
        plain("standard_stars", "coord_dec", 180 / np.pi, "rad"),
        r"coord_dec reaches \d+\.\d+ rad, which is beyond 1.6; is it in another unit",
    ),
    "two columns": (
        replaced("visits", "VISIT_", np.arange(5)),
        None,
    ),
    "no rows": (
        lambda parts: parts["visits"].remove_rows(slice(None)),
        "fgcmVisitCatalog.fits has no rows",
    ),
    "other visits": (
        replaced("zeropoints", "visit", lambda visits: visits + 10**9),
        "fgcmZeropoints.fits: not one visit of fgcmVisitCatalog.fits has rows that can be used, or",
    ),
    "all filters unknown": (
        replaced("visits", "physicalFilter", ["U"] * 5),
        "fgcmZeropoints.fits: not one visit .* can be used: physical filter 'U' is not known",
    ),
    "all doubled": (
        lambda parts: parts.update(visits=vstack([parts["visits"]] * 2)),
        "not one visit of fgcmVisitCatalog.fits has rows that can be used",
    ),
}
del BROKEN["two columns"]


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_broken_runs(tmp_path, case):
    change, message = BROKEN[case]
    parts = tables()
    change(parts)
    with pytest.raises(ValueError, match=message):
        FgcmRun.open(write(tmp_path, parts))


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    parts = tables()
    for case in ("column missing", "array", "scaling of another camera", "degrees called radians"):
        BROKEN[case][0](parts)
    write(tmp_path, parts)
    (tmp_path / "camera.ecsv").unlink()
    (tmp_path / "fgcmLookUpTable.fits").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        FgcmRun.open(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"5 things are wrong with the FGCM run in {tmp_path}:"
    for line, words in zip(
        lines[1:],
        ("fgcmZpt", "pwv", "has no lookup_table", "has no camera", "coord_dec"),
        strict=True,
    ):
        assert words in line


def test_columns_that_could_be_the_same():
    visits = tables()["visits"]
    visits.rename_column("visit", "Visit")
    visits["VISIT"] = visits["Visit"]
    with pytest.raises(ValueError, match="columns Visit, VISIT could each be visit; keep one"):
        FgcmRun(visits=visits)


def test_mixed_orders(tmp_path):
    zeropoints = tables()["zeropoints"]
    orders = np.empty(len(zeropoints), object)
    orders[:] = [np.ones(4 if i % 3 else 9) for i in range(len(zeropoints))]
    columns = as_mapping(zeropoints) | {"fgcmfZptCheb": orders}
    message = "column fgcmfZptCheb holds a different number of values in each row"
    with pytest.raises(ValueError, match=message):
        FgcmRun.open(RUN, zeropoints=columns)
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "z.parquet", {n: zeropoints[n] for n in zeropoints.colnames})
    table = pq.read_table(tmp_path / "z.parquet")
    at = table.schema.get_field_index("fgcmfZptCheb")
    table = table.set_column(at, "fgcmfZptCheb", pa.array([list(o) for o in orders]))
    pq.write_table(table, tmp_path / "z.parquet")
    with pytest.raises(ValueError, match=message):
        FgcmRun.open(RUN, zeropoints=tmp_path / "z.parquet")
    # As many values as if each row had 4.
    orders[:] = [np.ones(4) for _ in orders]
    orders[0], orders[1] = np.ones(3), np.ones(5)
    table = table.set_column(at, "fgcmfZptCheb", pa.array([list(o) for o in orders]))
    pq.write_table(table, tmp_path / "z.parquet")
    run = FgcmRun.open(RUN, zeropoints=tmp_path / "z.parquet")
    with pytest.raises(
        ValueError, match="z.parquet: column fgcmfZptCheb: not all rows have 4 values"
    ):
        run.zeropoint_rows(60600001)


def test_damaged_and_missing_files(tmp_path):
    write(tmp_path, tables())
    path = tmp_path / "fgcmZeropoints.fits"
    whole = path.read_bytes()
    path.write_bytes(whole[:20_000])
    with pytest.raises(OSError, match=r"fgcmZeropoints.fits, HDU 1: the file is truncated"):
        FgcmRun.open(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(OSError, match="fgcmZeropoints.fits is not a FITS file"):
        FgcmRun.open(tmp_path)
    path.unlink()
    message = r"has no zeropoints: there is no fgcmZeropoints.fits, .fits.gz or .parquet, or \*_cyc"
    with pytest.raises(FileNotFoundError, match=message):
        FgcmRun.open(tmp_path)
    assert FgcmRun.open(tmp_path, zeropoints=None).zeropoints is None
    (tmp_path / "fgcmZeropoints.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(OSError, match="fgcmZeropoints.parquet is not a Parquet file, or damaged"):
        FgcmRun.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        FgcmRun.open(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="the visit catalog is a path, an astropy Table, a"):
        FgcmRun(visits=5)


@pytest.mark.slow
def test_files_that_change_are_not_read_on(tmp_path, run):
    write(tmp_path, tables())
    found = FgcmRun.open(tmp_path)
    with gzip.open(tmp_path / "fgcmZeropoints.fits.gz", "wb") as file:
        file.write((tmp_path / "fgcmZeropoints.fits").read_bytes())
    with pytest.raises(ValueError, match=r"fgcmZeropoints.fits, fgcmZeropoints.fits.gz could each"):
        FgcmRun.open(tmp_path)
    tables()["zeropoints"][:16].write(tmp_path / "fgcmZeropoints.fits", overwrite=True)
    with pytest.raises(OSError, match="has changed since it was opened"):
        found.zeropoint_rows(VISIT)
    with pytest.raises(OSError, match="has changed since it was opened"):
        found.fingerprints()


# What is wrong: warnings, and errors of single visits


def doubled(catalog, rows):
    def change(parts):
        parts[catalog] = vstack([parts[catalog], parts[catalog][rows]])

    return change


def row_value(catalog, column, row, value):
    def change(parts):
        parts[catalog][column][row] = value

    return change


def dropped(catalog, visit):
    def change(parts):
        parts[catalog] = parts[catalog][parts[catalog]["visit"] != visit]

    return change


# What is done, the warning, whose rows fail and how.
DOUBTFUL = {
    "visit twice": (
        doubled("visits", slice(1, 2)),
        f"fgcmVisitCatalog.fits: visits {VISIT} have several rows",
        ("visit_row", "zeropoint_rows", "atmosphere_rows"),
        (ValueError, "can't be used: several rows"),
    ),
    "detector twice": (
        doubled("zeropoints", slice(8, 9)),
        f"fgcmZeropoints.fits: visits {VISIT} have several rows of a detector",
        ("zeropoint_rows",),
        (ValueError, f"visit {VISIT} of fgcmZeropoints.fits can't be used: several rows"),
    ),
    "atmosphere twice": (
        doubled("atmosphere_parameters", slice(1, 2)),
        f"fgcmAtmosphereParameters.fits: visits {VISIT} have several rows",
        ("atmosphere_rows",),
        (ValueError, "can't be used: several rows"),
    ),
    "no zeropoints": (
        dropped("zeropoints", VISIT),
        f"visits {VISIT} are not in fgcmZeropoints.fits; they get no photoCalib",
        ("zeropoint_rows",),
        (NoZeropointError, f"fgcmZeropoints.fits has no rows of visit {VISIT}"),
    ),
    "no atmosphere": (
        dropped("atmosphere_parameters", VISIT),
        f"visits {VISIT} are not in fgcmAtmosphereParameters.fits; they get no transmission curve",
        ("atmosphere_rows",),
        (ValueError, f"fgcmAtmosphereParameters.fits has no rows of visit {VISIT}"),
    ),
    "not in the visit catalog": (
        dropped("visits", VISIT),
        f"fgcmZeropoints.fits: visits {VISIT} are not in fgcmVisitCatalog.fits; they are not used",
        ("visit_row", "zeropoint_rows", "atmosphere_rows"),
        (KeyError, f"fgcmVisitCatalog.fits has no visit {VISIT}"),
    ),
    "unknown filter": (
        row_value("visits", "physicalFilter", 1, "SIM-Y"),
        f"physical filters SIM-Y of visits {VISIT} are not in fgcmLookUpTable.fits; it has SIM-G",
        ("zeropoint_rows",),
        (ValueError, "physical filter 'SIM-Y' is not known"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fits", "parquet"])
@pytest.mark.parametrize("case", DOUBTFUL)
def test_one_bad_visit_does_not_cost_the_others(tmp_path, run, case, kind):
    change, warning, methods, (error, message) = DOUBTFUL[case]
    parts = tables()
    change(parts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = FgcmRun.open(write(tmp_path, parts, kind))
    texts = [str(w.message).replace(f".{kind}", ".fits") for w in caught]
    assert any(warning in text for text in texts), texts
    assert caught[0].category is RunWarning
    assert caught[0].filename == __file__
    assert list(found.warnings) == [str(w.message) for w in caught]
    others = run.visit_ids[run.visit_ids != VISIT]
    for method in ("visit_row", "zeropoint_rows", "atmosphere_rows"):
        read = getattr(found, method)
        if method in methods:
            with pytest.raises(error, match=message.replace(".fits", rf".{kind}")):
                read(VISIT)
        for visit in others:
            np.testing.assert_equal(read(visit), getattr(run, method)(visit))
    assert found.problems(VISIT)
    assert not found.problems(others[0])
    name = {"zeropoint_rows": "zeropoints", "atmosphere_rows": "atmosphere_parameters"}
    assert (VISIT in found.usable(name.get(methods[-1], "visits"))) is False
    assert set(others) <= set(found.usable())


def test_columns_that_products_can_do_without(tmp_path):
    parts = tables()
    parts["zeropoints"].remove_column("fgcmDeltaChrom")
    with pytest.warns(RunWarning, match="no column fgcmDeltaChrom: .*apply_mean_chromatic_corr"):
        run = FgcmRun.open(write(tmp_path, parts))
    assert "fgcmDeltaChrom" not in run.zeropoint_rows(VISIT)


def test_units_are_converted(run):
    parts = tables()
    parts["atmosphere_parameters"]["pmb"] *= 100
    parts["atmosphere_parameters"]["pmb"].unit = "Pa"
    parts["atmosphere_parameters"]["lamStd"] /= 10
    parts["atmosphere_parameters"]["lamStd"].unit = "nm"
    stars = parts["standard_stars"]
    for name in ("coord_ra", "coord_dec"):
        stars[name] = stars[name].quantity.to(u.deg)
    found = FgcmRun.open(RUN, **{n: parts[n] for n in ("atmosphere_parameters", "standard_stars")})
    for name, values in found.atmosphere_rows(run.visit_ids).items():
        np.testing.assert_allclose(values, run.atmosphere_rows(run.visit_ids)[name], rtol=1e-14)
    for name in ("coord_ra", "coord_dec"):
        expected = run.standard_stars.read([name])[name]
        np.testing.assert_allclose(found.standard_stars.read([name])[name], expected, rtol=1e-14)
    parts["atmosphere_parameters"]["pwv"].unit = u.def_unit("tonnes_of_sky")
    with pytest.warns(RunWarning, match="pwv is in tonnes_of_sky, which is not known; mm?"):
        FgcmRun.open(RUN, atmosphere_parameters=parts["atmosphere_parameters"])


def test_unusual_layouts(run):
    """Coefficients as n x n arrays, a single band, bands in a repeated card."""
    parts = tables()
    zeropoints = parts["zeropoints"]
    zeropoints["fgcmfZptCheb"] = np.reshape(zeropoints["fgcmfZptCheb"], (-1, 2, 2))
    zeropoints["fgcmfZptSstarCheb"] = zeropoints["fgcmfZptSstarCheb"][:, 0]
    stars = parts["standard_stars"]
    for name in ("ngood", "ntotal", "npsfcand", "mag_std_noabs", "magErr_std", "delta_aper"):
        stars[name] = stars[name][:, :1]
    stars.meta["BANDS"] = ["g"]
    found = FgcmRun.open(RUN, zeropoints=zeropoints, standard_stars=stars)
    rows = found.zeropoint_rows(VISIT)
    np.testing.assert_array_equal(rows["fgcmfZptCheb"], run.zeropoint_rows(VISIT)["fgcmfZptCheb"])
    assert rows["fgcmfZptSstarCheb"].shape == (8, 1)
    assert found.bands == ("g",)
    assert found.standard_stars.read(["ngood"])["ngood"].shape == (len(stars), 1)


def test_repeated_cards_and_unsigned_columns(tmp_path):
    stars = tables()["standard_stars"]
    stars["ngood"] = stars["ngood"].astype("u4")
    stars.meta = {}
    hdu = fits.BinTableHDU(stars)
    for band in "griz":
        hdu.header.append(("BANDS", band))
    hdu.writeto(tmp_path / "stars.fits")
    run = FgcmRun.open(RUN, standard_stars=tmp_path / "stars.fits")
    assert run.bands == ("g", "r", "i", "z")
    found = run.standard_stars.read(["ngood"])["ngood"]
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, stars["ngood"])


@pytest.mark.slow
def test_science_detectors_alone(run):
    """``scaling`` may leave out detectors of other types."""
    geometry = Table.read(RUN / "camera.ecsv", format="ascii.ecsv")
    geometry["type"] = ["GUIDER"] + ["SCIENCE"] * 7
    visits, zeropoints = tables()["visits"], tables()["zeropoints"]
    visits["scaling"] = visits["scaling"][:, 1:]
    camera = Camera.from_table(geometry)
    kept = zeropoints[zeropoints["detector"] > 0]
    found = FgcmRun.open(RUN, visits=visits, camera=camera, zeropoints=kept)
    assert found.detector_ids.tolist() == list(range(1, 8))
    with pytest.warns(RunWarning, match="detectors 0 are not among the 7 of the camera"):
        found = FgcmRun.open(RUN, visits=visits, camera=camera)
    assert len(found.zeropoint_rows(VISIT)["detector"]) == 8


def test_a_dead_detector_is_no_matter(run):
    """Neither camera nor scaling need know it; or scaling knows it, and the camera does not."""
    geometry = Table.read(RUN / "camera.ecsv", format="ascii.ecsv")
    parts = tables()
    for dead, scaling in ((7, parts["visits"]["scaling"][:, :7]), (3, parts["visits"]["scaling"])):
        visits, zeropoints = parts["visits"].copy(), parts["zeropoints"].copy()
        visits["scaling"] = scaling
        zeropoints["fgcmFlag"][zeropoints["detector"] == dead] = 16
        camera = Camera.from_table(geometry[geometry["id"] != dead])
        found = FgcmRun(visits=visits, zeropoints=zeropoints, camera=camera)
        assert found.usable().tolist() == run.usable().tolist()
        ids = found.detector_ids.tolist()
        for visit in (VISIT, run.visit_ids[-1]):
            expected = run.visit_row(visit)["scaling"][ids]
            np.testing.assert_array_equal(found.visit_row(visit)["scaling"], expected)


# What is needed


NEEDED = {
    "atmosphere_output": ("visits", "atmosphere_parameters", "lookup_table"),
    "zeropoint_output": ("visits", "zeropoints", "camera"),
    "tract_stars": ("visits", "standard_stars"),
}


@pytest.mark.parametrize("asked", NEEDED)
@pytest.mark.parametrize("state", ["absent", "damaged", "without columns"])
def test_what_is_not_asked_for_is_not_needed(asked, state, tmp_path, run):
    config = ProductsConfig(**{name: name == asked for name in NEEDED})
    folder = write(tmp_path, tables())
    camera = (RUN / "camera.ecsv").read_text()
    nothing = Table({"nothing": [1.0]})
    for name in {*FILES, "camera"} - {*NEEDED[asked]}:
        path = folder / ("camera.ecsv" if name == "camera" else f"{FILES[name]}.fits")
        whole = path.read_bytes()
        path.unlink()
        if state == "damaged":
            path.write_bytes(whole[: len(whole) // 2])
        elif state == "without columns" and name == "camera":
            path.write_text(camera.replace("refpos_x", "nothing"))
        elif state == "without columns":
            nothing.write(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = FgcmRun.open(folder, needed=config)
        products = build_products(found, config.replace(atmosphere_table=str(TABLE)))
    texts = [str(warning.message) for warning in caught]
    for name in ("camera", "zeropoints", "atmosphere_parameters"):
        if name not in NEEDED[asked] and state != "absent":
            stem = FILES.get(name, name)
            assert any(stem in text for text in texts), (name, texts)
        assert (getattr(found, name) is None) == (name not in NEEDED[asked])
    expected = build_products(run, config.replace(atmosphere_table=str(TABLE)))
    for name in ("photo_calibs", "atmospheres"):
        lazy = getattr(products, name)
        assert list(lazy) == list(getattr(expected, name))
        if lazy:
            assert lazy[VISIT].compute() == getattr(expected, name)[VISIT].compute()
    assert list(products.tract_stars) == list(expected.tract_stars)
    needs = "needs camera|lacks|wrong with|has no"
    other = next(name for name in NEEDED if name != asked)
    with pytest.raises((OSError, ValueError), match=needs):
        build_products(found, config.replace(**{other: True}))


def test_a_fault_in_an_optional_column_is_a_warning(run):
    for name, column, values in (
        ("zeropoints", "fgcmGry", "text"),
        ("zeropoints", "filtername", 1.5),
        ("visits", "telra", "text"),
        ("visits", "physicalFilter", 3),
        ("standard_stars", "delta_aper", 1.0),
        ("lookup_table", "atmLambda", "text"),
    ):
        table = tables()[name]
        table.replace_column(column, Column(np.full(len(table), values)))
        config = ProductsConfig(compose_wcs_jacobian=False)
        with pytest.warns(RunWarning, match=f"column {column} (holds|has)"):
            found = FgcmRun.open(RUN, needed=config, **{name: table})
        assert column not in getattr(found, name).columns
    zeropoints = tables()["zeropoints"]
    zeropoints.replace_column("fgcmDeltaChrom", Column(np.full(len(zeropoints), "text")))
    with pytest.raises(ValueError, match="column fgcmDeltaChrom holds text; it should hold number"):
        FgcmRun.open(RUN, needed=ProductsConfig(), zeropoints=zeropoints)
    config = ProductsConfig(apply_mean_chromatic_correction=False)
    with pytest.warns(RunWarning, match="column fgcmDeltaChrom holds text"):
        found = FgcmRun.open(RUN, needed=config, zeropoints=zeropoints)
    with pytest.raises(ValueError, match="needs column fgcmDeltaChrom of zeropoints"):
        build_products(found, ProductsConfig(atmosphere_output=False))


# The full scan


SCANNED = {
    "fgcmZpt is NaN": row_value("zeropoints", "fgcmZpt", 9, np.nan),
    "fgcmfZptSstarCheb is NaN": row_value("zeropoints", "fgcmfZptSstarCheb", (9, 3), np.inf),
    "fgcmDeltaChrom is NaN": row_value("zeropoints", "fgcmDeltaChrom", 9, -9999),
    "filtername is not that": row_value("zeropoints", "filtername", 9, "SIM-R"),
    "tau is NaN": row_value("atmosphere_parameters", "tau", 1, np.nan),
    "scaling is not above zero": row_value("visits", "scaling", (1, 2), 0.0),
    "physicalFilter is empty": row_value("visits", "physicalFilter", 1, ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("text", SCANNED)
@pytest.mark.filterwarnings("ignore:.*physical filters")
def test_values_that_the_scan_finds(text):
    parts = tables()
    SCANNED[text](parts)
    lines = FgcmRun.open(RUN, **parts).check()
    assert any(text in line and str(VISIT) in line for line in lines), lines


def test_the_scan_looks_at_rows_that_are_used_only():
    parts = tables()
    parts["zeropoints"]["fgcmFlag"][9] = 16
    parts["zeropoints"]["fgcmZpt"][9] = np.nan
    assert FgcmRun.open(RUN, **parts).check() == ()


def test_the_scan_of_stars_boxes_and_wavelengths():
    parts = tables()
    parts["standard_stars"]["id"][1] = parts["standard_stars"]["id"][0]
    parts["standard_stars"]["coord_dec"][2] = np.nan
    parts["lookup_table"]["atmLambda"][0, 3] = 0
    lines = "\n".join(FgcmRun.open(RUN, **parts).check())
    assert "1 stars have a id that another has, too" in lines
    assert "1 stars have a coord_dec that is NaN or infinite" in lines
    assert "atmLambda does not increase" in lines


def test_boxes_that_are_not_the_cameras():
    parts = tables()
    parts["zeropoints"]["fgcmfZptChebXyMax"][9, 0] = 2048
    with pytest.warns(RunWarning, match=r"detector 1 is neither .* \(2048, 4095\), and not \(2047"):
        run = FgcmRun.open(RUN, **parts)
    lines = "\n".join(run.check())
    assert "last pixel of detectors 1: (2048, 4095) and not (2047, 4095)" in lines


# Provenance, cycles, tracts


@pytest.mark.slow
def test_fingerprints(run):
    prints = run.fingerprints()
    assert set(prints) == {*FILES, "reference_catalog", "camera"}
    digest = hashlib.sha256((RUN / "fgcmZeropoints.fits").read_bytes()).hexdigest()
    assert prints["zeropoints"] == f"sha256:{digest}"
    memory = in_memory().fingerprints()
    assert memory["zeropoints"] == in_memory().fingerprints()["zeropoints"]
    changed = FgcmRun.open(RUN, visits=no_scaling()).fingerprints()["visits"]
    assert changed != memory["visits"]


def test_fit_cycles(tmp_path, run):
    for stem in ("VisitCatalog", "LookUpTable"):
        path = next(RUN.glob(f"fgcm{stem}.fits*"))
        name = path.name.replace(stem, f"{stem}_LSSTCam_u_someone")
        shutil.copy(path, tmp_path / name)
    shutil.copy(RUN / "camera.ecsv", tmp_path)
    for cycle in (4, 10):
        for name in ("zeropoints", "atmosphere_parameters", "standard_stars"):
            stem = FILES[name].removeprefix("fgcm")
            shutil.copy(
                RUN / f"{FILES[name]}.fits",
                tmp_path / f"fgcm_Cycle{cycle}_{stem}_LSSTCam_u_someone.fits",
            )
    assert_same_rows(FgcmRun.open(tmp_path), run)
    assert "Cycle10" in FgcmRun.open(tmp_path).zeropoints.path
    assert "Cycle4" in FgcmRun.open(tmp_path, cycle=4).standard_stars.path
    with pytest.raises(FileNotFoundError, match="has no zeropoints"):
        FgcmRun.open(tmp_path, cycle=5)
    old = tmp_path / "old"
    old.mkdir()
    names = {n: f"{stem}7" if n in FILES and n[0] in "zas" else stem for n, stem in FILES.items()}
    assert "fgcmZeropoints7" in FgcmRun.open(write(old, tables(), names=names)).zeropoints.path


@pytest.mark.slow
def test_one_tract(run):
    assert (run.tract, run.jacobian_applied) == (None, None)
    built_without = FgcmRun.open(RUN, tract=9813, jacobian_applied=False)
    assert "of tract 9813" in repr(built_without)
    stars = tables()["standard_stars"]
    stars.meta |= {"WCSJACOB": True, "TRACT": 5}
    built_with = FgcmRun.open(RUN, standard_stars=stars)
    assert (built_with.tract, built_with.jacobian_applied) == (5, True)
    stars.meta |= {"WCSJACOB": "maybe", "TRACT": "north"}
    with pytest.raises(ValueError, match=r"card TRACT .*'north'\n.*WCSJACOB .*'maybe' is not true"):
        FgcmRun.open(RUN, standard_stars=stars)


def test_a_run_without_some_catalogs():
    run = FgcmRun(visits=tables()["visits"])
    assert (run.bands, run.physical_filters, run.detector_ids) == ((), (), None)
    with pytest.raises(ValueError, match="has no zeropoints; open it with zeropoints="):
        run.zeropoint_rows(VISIT)
    with pytest.raises(ValueError, match="has no lookup_table"):
        _ = run.lookup
    with pytest.raises(ValueError, match="a run needs a visit catalog: visits="):
        FgcmRun.open(RUN, visits=None)


def test_parquet_says_what_to_install(monkeypatch, tmp_path):
    write_parquet(tmp_path / "z.parquet", {"visit": np.arange(3)})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'skyfold\[parquet\]'"):
        FgcmRun.open(RUN, zeropoints=tmp_path / "z.parquet")


def test_the_whole_real_run(shared):
    run = FgcmRun.open(shared / "data" / "fgcm_run")
    assert run.warnings == ()
    assert run.check() == ()
    assert len(run.visit_ids) == 179
    rows = run.zeropoint_rows(run.visit_ids)
    assert len(rows["visit"]) == 1432
    golden = fits.getdata(shared / "data" / "fgcm_run" / "fgcmZeropoints.fits")
    np.testing.assert_array_equal(rows["fgcmfZptCheb"], golden["fgcmfZptCheb"])
    assert len(pickle.dumps(run)) < 100_000


@pytest.mark.parametrize("row", [0, 9, -1])
@pytest.mark.parametrize("value", [-9999.0, np.nan, np.inf, 1e20])
def test_a_star_without_a_position_is_one_star(row, value):
    stars = tables()["standard_stars"]
    for name in ("coord_ra", "coord_dec"):
        stars[name][row] = value
    found = FgcmRun.open(RUN, standard_stars=stars)
    products = build_products(found, ProductsConfig(atmosphere_table=str(TABLE)))
    with pytest.warns(
        RunWarning, match=rf"1 of {len(stars)} stars, in rows {row % len(stars)}, ha"
    ):
        counts = products.tract_stars.counts
    assert sum(counts.values()) == len(stars) - 1


def test_scaling_that_was_not_needed_is_missing_when_it_is():
    visits = tables()["visits"]
    visits.remove_column("scaling")
    found = FgcmRun.open(RUN, visits=visits, needed=ProductsConfig(zeropoint_output=False))
    with pytest.raises(ValueError, match="zeropoint_output needs column scaling of visits"):
        build_products(found, ProductsConfig(atmosphere_output=False))
