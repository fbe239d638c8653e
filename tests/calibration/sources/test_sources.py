"""Calibrated sources: those of a simulated run, against the PhotoCalib of each detector."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from types import SimpleNamespace

import astropy.units as u
import dask
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from click.testing import CliRunner
from dask.delayed import delayed

from calibration import (
    CalibrationWarning,
    ProductsConfig,
    VisitPhotoCalib,
    build_products,
    calibrate_sources,
    simulate_run,
)
from calibration.cli import main
from calibration.sources import apply
from calibration.sources import write as writing
from calibration.sources.calibrations import InFiles
from calibration.tables.fields import as_table
from calibration.tables.files import read_table, write_table
from calibration.tables.reader import MemoryTable
from tests.calibration.fgcm_cases import write_parquet
from tests.calibration.products_cases import assert_same_table, files, stamps

MADE = ("flux", "fluxErr", "mag", "magErr")
MISSING = 999
BOX = (0, 0, 100, 50)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Return a run's products, in memory, in files and by visit; and what was observed."""
    folder = tmp_path_factory.mktemp("survey")
    run = simulate_run(folder / "run", n_visits=4, n_stars=400)
    products = build_products(run, ProductsConfig(tract_stars=False, atmosphere_output=False))
    products.write(folder / "products")
    by_visit = {visit: lazy.compute() for visit, lazy in products.photo_calibs.items()}
    table = Table.read(folder / "run" / "fgcmStarObservations.fits")
    path = folder / "run" / "fgcmStarObservations.fits"
    return SimpleNamespace(
        products=products, folder=folder / "products", by_visit=by_visit, table=table, path=path
    )


@pytest.fixture
def sources(tmp_path, survey):
    """Return a folder with a Parquet file for each visit."""
    folder = tmp_path / "sources"
    for visit in survey.by_visit:
        rows = survey.table[survey.table["visit"] == visit]
        place = folder / f"night={visit // 100000}"
        place.mkdir(parents=True, exist_ok=True)
        write_parquet(place / f"{visit}.parquet", {n: np.asarray(rows[n]) for n in rows.colnames})
    return folder


@pytest.fixture(autouse=True)
def _on_threads():
    with dask.config.set(scheduler="threads"):
        yield


def make_visit(visit=42, detectors=(3, 7)):
    coefficients = np.random.default_rng(visit).normal(0, 0.01, (len(detectors), 3, 4))
    coefficients[:, 0, 0] = 2 + np.arange(len(detectors))
    mean = coefficients[:, 0, 0]
    return VisitPhotoCalib(
        visit, list(detectors), [BOX] * len(detectors), coefficients, mean, 0.01 * mean
    )


def make_table(n=50, visits=(42,), detectors=(3, 7)):
    rng = np.random.default_rng(n)
    return Table(
        {
            "visit": rng.choice(visits, n),
            "detector": rng.choice(detectors, n),
            "x": rng.uniform(0, 99, n),
            "y": rng.uniform(0, 49, n),
            "instFlux": rng.uniform(100, 200, n),
            "instFluxErr": rng.uniform(1, 5, n),
        }
    )


def computed(lazy):
    """Return all tables, one below the other, and no warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        tables = dask.compute(*lazy)
    columns = {n: np.concatenate([np.asarray(t[n]) for t in tables]) for n in tables[0].colnames}
    return Table(columns)


def one(table, photo_calibs, **options):
    (lazy,) = calibrate_sources(table, photo_calibs, **options)
    return lazy.compute()


def assert_calibrated(result, by_visit):
    """Check every source against the PhotoCalib of its detector."""
    checked = 0
    for visit, photo_calib in by_visit.items():
        for detector, single in photo_calib.items():
            rows = result[(result["visit"] == visit) & (result["detector"] == detector)]
            given = [np.asarray(rows[name]) for name in ("instFlux", "instFluxErr")]
            at = {"x": np.asarray(rows["x"]), "y": np.asarray(rows["y"])}
            expected = (*single.to_nanojansky(*given, **at), *single.to_magnitude(*given, **at))
            for name, values in zip(MADE, expected, strict=True):
                np.testing.assert_array_equal(rows[name], values, err_msg=name)
            checked += len(rows)
    assert checked == np.count_nonzero(np.isfinite(result["flux"]))


# Values


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["products", "folder", "by_visit"])
def test_they_are_those_of_each_detectors_photo_calib(survey, kind):
    lazy = calibrate_sources(survey.path, getattr(survey, kind))
    result = computed(lazy)
    assert len(result) == len(survey.table) > 500
    for name in survey.table.colnames:
        np.testing.assert_array_equal(result[name], survey.table[name])
    assert_calibrated(result, survey.by_visit)
    assert np.isfinite(result["flux"]).all()


def test_the_sources_may_be_in_any_order_and_cut_anywhere(survey):
    whole = one(survey.table, survey.by_visit)
    order = np.random.default_rng(0).permutation(len(survey.table))
    for rows in (1000, 77):
        lazy = calibrate_sources(survey.table[order], survey.folder, rows=rows)
        assert len(lazy) == -(-len(order) // rows)
        assert_same_bits(computed(lazy), whole[order])


def assert_same_bits(one, other):
    assert one.colnames == other.colnames
    for name in one.colnames:
        assert np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes(), name


def test_blocks_make_no_difference(monkeypatch):
    table, photo_calib = make_table(), make_visit()
    expected = one(table, photo_calib)
    monkeypatch.setattr(apply, "BLOCK", 7)
    assert_same_bits(one(table, photo_calib), expected)


def test_several_fluxes_and_other_names():
    table = make_table()
    expected = one(table, make_visit())
    table.rename_columns(
        ["visit", "detector", "x", "y", "instFlux", "instFluxErr"],
        ["expnum", "ccd", "X_IMAGE", "Y_IMAGE", "psf_instFlux", "psf_instFluxErr"],
    )
    table["ap_flux"] = np.float32(2 * table["psf_instFlux"])
    table["sigma"] = table["psf_instFluxErr"]
    result = one(
        table,
        make_visit(),
        visit="expnum",
        detector="ccd",
        x="X_IMAGE",
        y="Y_IMAGE",
        fluxes={"psf": "psf_instFlux", "ap": ("ap_flux", "sigma"), "": ("psf_instFlux", None)},
        keep=["ccd"],
    )
    made = [
        f"{prefix}{n}" for prefix in ("psf", "ap") for n in ("Flux", "FluxErr", "Mag", "MagErr")
    ]
    assert result.colnames == ["ccd", *made, "flux", "mag"]
    for ours, name in (("psfFlux", "flux"), ("psfMagErr", "magErr"), ("mag", "mag")):
        np.testing.assert_array_equal(result[ours], expected[name])
    np.testing.assert_allclose(result["apFlux"], 2 * expected["flux"], rtol=1e-7)
    assert result["apFlux"].dtype == np.float64
    assert [str(result[name].unit) for name in ("psfFluxErr", "psfMag")] == ["nJy", "mag"]
    assert result["apMag"].description == "AB magnitude of ap_flux"


def test_all_of_one_visit_and_detector():
    table = make_table(detectors=(7,))
    expected = one(table, make_visit(), keep=())
    table.remove_columns(["visit", "detector"])
    result = one(table, make_visit(), visit=42, detector=7, keep=())
    assert_same_bits(result, expected)
    assert result.colnames == list(MADE)


def test_no_rows():
    result = one(make_table()[:0], make_visit())
    assert len(result) == 0
    assert result.colnames[-4:] == list(MADE)


# Sources without a calibration


def test_missing_visits_and_detectors_are_nan_and_counted(tmp_path):
    table = make_table(200, visits=(42, 43, MISSING), detectors=(3, 7, 8))
    photo_calibs = {42: make_visit(), 43: make_visit(43, (3, 8))}
    known = {42: (3, 7), 43: (3, 8), MISSING: ()}
    pairs = list(zip(table["visit"].tolist(), table["detector"].tolist(), strict=True))
    lost = np.array([detector not in known[visit] for visit, detector in pairs])
    (lazy,) = calibrate_sources(table, photo_calibs)
    with pytest.warns(CalibrationWarning, match=f"part-00000: no calibration of visit {MISSING}"):
        result = lazy.compute()
    assert len(result) == 200
    for name in MADE:
        np.testing.assert_array_equal(np.isnan(result[name]), lost)
    assert_calibrated(result, photo_calibs)
    report = calibrate_sources(table, photo_calibs, rows=30).write(tmp_path / "out")
    tally = report.tally
    assert (tally.rows, tally.calibrated) == (200, np.count_nonzero(~lost))
    assert dict(tally.visits) == {MISSING: sum(visit == MISSING for visit, _ in pairs)}
    assert dict(tally.detectors) == {p: pairs.count(p) for p in ((42, 8), (43, 7))}
    lines = str(report).splitlines()
    assert lines[0].startswith("sources in ")
    assert lines[1:] == [
        "partitions: 7 written, 0 there before, 0 failed",
        f"200 sources, {tally.calibrated} calibrated",
        f"no calibration of visit {MISSING}: {tally.visits[MISSING]} sources",
        f"no calibration of visit 42, detector 8: {pairs.count((42, 8))} sources",
        f"no calibration of visit 43, detector 7: {pairs.count((43, 7))} sources",
    ]


def test_no_visit_is_known(tmp_path):
    (lazy,) = calibrate_sources(make_table(), {})
    with pytest.warns(CalibrationWarning, match="no calibration of visit 42: 50 sources"):
        assert np.isnan(lazy.compute()["mag"]).all()
    report = calibrate_sources(make_table(99, visits=range(30)), {}).write(tmp_path / "out")
    lazy = calibrate_sources(make_table(99, visits=range(30)), {})
    assert lazy.write(tmp_path / "fits", format="fits").tally == report.tally
    again = lazy.write(tmp_path / "fits", format="fits")
    assert (dict(again.states), again.tally) == ({"kept": 1}, report.tally)
    assert len(report.tally.visits) > 20
    assert f" and {len(report.tally.visits) - 10} more: 99 sources" in str(report)


def test_positions_off_the_detector_and_none():
    table = make_table(8)
    table["x"][:6] = [-5.4, -5.6, 104.4, 104.6, np.nan, np.inf]
    table["y"][6:] = [-5.6, np.nan]
    (lazy,) = calibrate_sources(table, make_visit())
    with pytest.warns(CalibrationWarning, match="off their detector: 3 .* a position: 3 sources"):
        result = lazy.compute()
    lost = [False, True, False, True, True, True, True, True]
    np.testing.assert_array_equal(np.isnan(result["flux"]), lost)
    np.testing.assert_array_equal(np.isnan(result["magErr"]), lost)
    assert_calibrated(result[:3:2], {42: make_visit()})
    for margin, count in ((0, 5), (5.7, 0), (np.inf, 0)):
        (lazy,) = calibrate_sources(table, make_visit(), margin=margin)
        with pytest.warns(CalibrationWarning, match="without a position: 3 sources") as caught:
            lazy.compute()
        assert (f"off their detector: {count} sources" in str(caught[0].message)) == (count > 0)


def test_a_flux_that_is_nan_stays_alone():
    table = make_table(5)
    table["instFlux"][[1, 3]] = np.nan, -20
    result = one(table, make_visit())
    np.testing.assert_array_equal(np.isnan(result["flux"]), [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(np.isnan(result["mag"]), [0, 1, 0, 1, 0])


def test_a_visit_without_a_zeropoint_is_one_without_a_calibration(survey):
    zeropoints = survey.products.run.zeropoints.read()
    run = survey.products.run
    visit = int(run.visit_ids[1])
    zeropoints["fgcmFlag"][zeropoints["visit"] == visit] = 16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed = type(run)(
            visits=run.visits.path, zeropoints=zeropoints, camera=run.camera, lookup_table=None
        )
    products = build_products(changed, ProductsConfig(tract_stars=False, atmosphere_output=False))
    (lazy,) = calibrate_sources(survey.path, products)
    with pytest.warns(CalibrationWarning, match=f"no calibration of visit {visit}: "):
        result = lazy.compute()
    np.testing.assert_array_equal(np.isnan(result["flux"]), survey.table["visit"] == visit)


# What is taken for sources


class Frame:
    """As much of a data frame as is used."""

    def __init__(self, table):
        self._table = table
        self.columns = table.colnames

    def __getitem__(self, name):
        return np.asarray(self._table[name])


class Frames(Frame):
    """As much of a dask DataFrame as is used."""

    def to_delayed(self):
        halves = self._table[:20], self._table[20:]
        return [delayed(Frame)(half) for half in halves]


def test_tables_of_many_kinds():
    table, photo_calib = make_table(), make_visit()
    expected = one(table, photo_calib)
    parts = [table[:20], {n: np.asarray(table[n][20:]) for n in table.colnames}]
    kinds = {
        "mapping": dict(table.items()),
        "records": table.as_array(),
        "frame": Frame(table),
        "frames": Frames(table),
        "delayed": delayed(table),
        "several": parts,
        "both": [delayed(parts[0]), parts[1]],
        "rows": [{n: table[n][i] for n in table.colnames} for i in range(len(table))],
        "masked": Table(table, masked=True),
        "quantities": {n: table[n] * (u.pix if n in "xy" else 1) for n in table.colnames},
    }
    for kind, sources in kinds.items():
        result = calibrate_sources(sources, photo_calib)
        assert result.names == [f"part-{i:05d}" for i in range(len(result))]
        assert_same_bits(computed(result), expected), kind


def test_files_directories_and_patterns(sources, survey):
    expected = calibrate_sources(sources, survey.folder)
    names = sorted(f"night={visit // 100000}/{visit}" for visit in survey.by_visit)
    assert expected.names == names
    (sources / "night=1").mkdir()
    (sources / "_metadata.parquet").write_bytes(b"not a source")
    (sources / "night=1" / ".hidden.parquet").write_bytes(b"not a source")
    (sources / "notes.txt").write_text("not a source")
    assert calibrate_sources(sources, survey.folder).names == names
    pattern = calibrate_sources(f"{sources}/*/*.parquet", survey.folder)
    assert pattern.names == names
    assert (
        len(calibrate_sources(f"{sources}/night=*/{min(survey.by_visit)}.parquet", survey.folder))
        == 1
    )
    paths = [sources / f"{name}.parquet" for name in names]
    single = calibrate_sources(paths[0], survey.folder)
    assert single.names == [names[0].split("/")[1]]
    assert_same_bits(computed(calibrate_sources(paths, survey.folder)), computed(expected))
    cut = calibrate_sources(sources, survey.folder, rows=100)
    assert cut.names[:2] == [f"{names[0]}-00000", f"{names[0]}-00001"]
    assert_same_bits(computed(cut), computed(expected))
    assert repr(single) == "<CalibratedSources of 1 partition: flux, fluxErr, mag, magErr>"


def test_columns_of_all_kinds_are_kept(tmp_path):
    table = make_table(5)
    table["flag"] = [True, False, True, True, False]
    table["name"] = ["a", "bc", "déf", "", "e"]
    table["bits"] = np.array([0, 2**15, 1, 2, 3], "u2")
    table["pair"] = np.arange(10, dtype="f4").reshape(5, 2)
    table["tiny"] = np.array([-1, 2, 3, 4, 5], "i1")
    table["seen"] = np.ones(5)
    table["seen"].unit = "micron3"
    table["what"] = [1j] * 5
    with pytest.warns(CalibrationWarning, match=r"columns left out: what .holds complex128."):
        expected = one(table, make_visit())
    assert expected["flag"].dtype == bool
    assert expected["bits"].dtype == np.uint16
    assert "what" not in expected.colnames
    for format_ in ("fits", "parquet"):
        report = calibrate_sources(table, make_visit()).write(tmp_path / format_, format=format_)
        assert report.left_out == {"what": "holds complex128"}
        assert str(report).endswith("columns left out: what (holds complex128)")
        path = tmp_path / format_ / f"part-00000.{format_}"
        found = read_table(path)
        found.convert_bytestring_to_unicode()
        assert found.colnames == expected.colnames
        for name in expected.colnames:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        assert str(found["flux"].unit) == "nJy"
        assert str(found["seen"].unit).replace(" ", "") in ("um3", "micron3")
        again = one(path, make_visit(), fluxes={"new": "instFlux"})
        np.testing.assert_array_equal(again["newFlux"], expected["flux"])
        np.testing.assert_array_equal(again["flag"], expected["flag"])
        assert again["name"].tolist() == expected["name"].tolist()


# Lazily


def test_a_task_for_each_partition_that_loads_its_visits_only(
    sources, survey, tmp_path, monkeypatch
):
    loaded, products = [], tmp_path / "products"
    shutil.copytree(survey.folder, products)  # of which nothing is kept from other tests
    load = InFiles.load
    monkeypatch.setattr(InFiles, "load", lambda self, v: loaded.append(v) or load(self, v))
    lazy = calibrate_sources(sources, products)
    assert not loaded
    assert [len(part.__dask_graph__()) for part in lazy] == [2] * len(lazy)
    lazy[1].compute()
    assert loaded == [int(lazy.names[1].split("/")[1])]
    dask.compute(*lazy)
    assert sorted(loaded) == sorted(survey.by_visit)  # each once, as it is kept
    again = calibrate_sources(sources, products)
    assert [part.key for part in again] == [part.key for part in lazy]
    other = calibrate_sources(sources, products, margin=1)
    assert not {part.key for part in other} & {part.key for part in lazy}
    assert lazy[1:3][0].key == lazy[1].key


def test_files_are_not_opened_but_the_first(sources, survey):
    lazy = calibrate_sources(sources, survey.folder)
    broken = sources / f"{lazy.names[2]}.parquet"
    broken.write_bytes(b"PAR1 and no more")
    lazy = calibrate_sources(sources, survey.folder)
    lazy[0].compute()
    with pytest.raises(OSError, match=broken.name):
        lazy[2].compute()


# Files


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["fits", "parquet"])
def test_files_are_plain_tables(sources, survey, tmp_path, format_):
    lazy = calibrate_sources(sources, survey.folder)
    done = []
    report = lazy.write(tmp_path / "out", format=format_, progress=done.append)
    assert (dict(report.states), sum(done)) == ({"written": len(lazy)}, len(lazy))
    assert report.tally.calibrated == len(survey.table)
    for name, part in zip(lazy.names, lazy, strict=True):
        path = tmp_path / "out" / f"{name}.{format_}"
        assert_same_table(read_table(path)[list(MADE)], part.compute()[list(MADE)])
        if format_ == "parquet":
            assert pq.read_table(path)["flux"].to_pylist()[0] > 0
        else:
            assert Table.read(path)["flux"].unit == "nJy"


def test_what_is_complete_is_not_made_again(sources, survey, tmp_path, monkeypatch):
    out = tmp_path / "out"
    lazy = calibrate_sources(sources, survey.folder)
    first = lazy.write(out)
    before = stamps(out)
    again = lazy.write(out)
    assert dict(again.states) == {"kept": 4}
    assert again.tally == first.tally
    assert stamps(out) == before
    gone, damaged, changed = (out / f"{name}.parquet" for name in lazy.names[:3])
    content = files(out)
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-50])
    os.utime(sources / f"{lazy.names[2]}.parquet")
    assert dict(lazy.write(out).states) == {"kept": 1, "written": 3}
    assert read_table(changed).meta["PROVENAN"] != ""
    assert files(out)[f"{lazy.names[0]}.parquet"] == content[f"{lazy.names[0]}.parquet"]
    assert not list(out.rglob("*.tmp"))


def test_a_calibration_that_comes_later_is_used(survey, sources, tmp_path):
    products, out = tmp_path / "products", tmp_path / "out"
    shutil.copytree(survey.folder, products)
    visit = max(survey.by_visit)
    file = products / "photo_calibs" / f"{visit}.fits"
    file.rename(tmp_path / "later")
    lazy = calibrate_sources(sources, products)
    report = lazy.write(out)
    assert list(report.tally.visits) == [visit]
    assert dict(lazy.write(out).states) == {"kept": 4}
    (tmp_path / "later").rename(file)
    report = lazy.write(out)
    assert dict(report.states) == {"kept": 3, "written": 1}
    assert report.tally.calibrated == len(survey.table)


def test_a_partition_that_fails_harms_no_other(sources, survey, tmp_path):
    lazy = calibrate_sources(sources, survey.folder)
    bad = sources / f"{lazy.names[1]}.parquet"
    good = bad.read_bytes()
    write_parquet(bad, {"visit": np.array([5])})
    report = lazy.write(tmp_path / "out")
    assert dict(report.states) == {"written": 3, "failed": 1}
    assert list(report.failed) == [lazy.names[1]]
    assert "there is no column detector (whole numbers)" in report.failed[lazy.names[1]]
    assert f"failed: {lazy.names[1]}: {bad.name}: " in str(report)
    assert not (tmp_path / "out" / f"{lazy.names[1]}.parquet").exists()
    bad.write_bytes(good)
    assert dict(lazy.write(tmp_path / "out").states) == {"kept": 3, "written": 1}


def test_a_damaged_photo_calib_is_a_failure_not_nan(sources, survey, tmp_path):
    shutil.copytree(survey.folder, tmp_path / "products")
    visit = min(survey.by_visit)
    file = tmp_path / "products" / "photo_calibs" / f"{visit}.fits"
    file.write_bytes(file.read_bytes()[:-2880])
    report = calibrate_sources(sources, tmp_path / "products").write(tmp_path / "out")
    assert dict(report.states) == {"written": 3, "failed": 1}
    (why,) = report.failed.values()
    assert f"{visit}.fits is damaged" in why


def test_what_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def full(path, table, meta):
        raise OSError(28, "No space left on device", str(path))

    lazy = calibrate_sources(make_table(), make_visit())
    monkeypatch.setattr(writing, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        lazy.write(tmp_path / "out")


def test_a_directory_is_of_one_kind_of_calibration(tmp_path):
    out, table = tmp_path / "out", make_table()
    calibrate_sources(table, make_visit(), rows=20).write(out)
    before = stamps(out)
    others = {
        "photo_calibs differ": calibrate_sources(table, {}),
        "columns differ": calibrate_sources(table, make_visit(), keep=["visit"]),
        "margin differ": calibrate_sources(table, make_visit(), margin=1),
    }
    for message, other in others.items():
        with pytest.raises(FileExistsError, match=f"made otherwise \\({message}\\)"):
            other.write(out)
    with pytest.raises(FileExistsError, match=r"\(format differ\); choose another name, or"):
        calibrate_sources(table, make_visit(), rows=20).write(out, format="fits")
    assert stamps(out) == before
    report = others["margin differ"].write(out, overwrite=True)
    assert report.states["written"] == 1
    assert sorted(files(out)) == ["part-00000.parquet", "sources.json"]
    assert json.loads((out / "sources.json").read_text())["margin"] == "1.0"
    (out / "sources.json").write_text("{")
    with pytest.raises(FileExistsError, match="made otherwise"):
        others["margin differ"].write(out)


def test_directories_that_are_not_ours(tmp_path):
    lazy = calibrate_sources(make_table(), make_visit())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = files(tmp_path)
    for name, message in {
        "full": "full is not empty, and holds no calibrated sources",
        "file": "file is a file; calibrated sources need a directory",
    }.items():
        with pytest.raises(FileExistsError, match=message):
            lazy.write(tmp_path / name, overwrite=True)
    with pytest.raises(FileNotFoundError, match="cannot make .*: there is no"):
        lazy.write(tmp_path / "a" / "b")
    with pytest.raises(ValueError, match="format is fits or parquet, got 'csv'"):
        lazy.write(tmp_path / "out", format="csv")
    assert files(tmp_path) == before


def test_sources_in_the_directory_are_refused(sources, survey):
    lazy = calibrate_sources(sources, survey.folder)
    with pytest.raises(ValueError, match="of the sources in it; write to another directory"):
        lazy.write(sources)


def test_abandoned_files_are_removed(tmp_path):
    out = tmp_path / "out"
    lazy = calibrate_sources(make_table(), make_visit())
    lazy.write(out)
    old, new = out / ".a.parquet.1234.tmp", out / ".b.parquet.1234.tmp"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    lazy.write(out)
    assert not old.exists()
    assert new.exists()


# Schedulers


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["products", "folder", "by_visit"])
@pytest.mark.parametrize("scheduler", ["synchronous", "cluster"])
def test_files_are_the_same_on_any_scheduler(sources, survey, tmp_path, scheduler, kind, request):
    lazy = calibrate_sources(sources, getattr(survey, kind))
    lazy.write(tmp_path / "threads")
    if scheduler == "cluster":
        client = request.getfixturevalue("client")
        with dask.config.set(scheduler=client.get):
            report = lazy.write(tmp_path / "other")
    else:
        with dask.config.set(scheduler=scheduler):
            report = lazy.write(tmp_path / "other")
    assert report.states["written"] == 4
    assert files(tmp_path / "other") == files(tmp_path / "threads")


# Mistakes


def without(*names):
    table = make_table(3)
    table.remove_columns(names)
    return table


def with_unit(unit):
    table = make_table(3)
    table["instFlux"].unit = unit
    return table


@pytest.mark.parametrize(
    ("sources", "options", "error", "message"),
    [
        (without("x", "visit"), {}, ValueError, r"no column visit \(whole.*no column x \(numbers"),
        (without("instFluxErr"), {}, ValueError, "there is no column instFluxErr"),
        (make_table(3), {"visit": "x"}, ValueError, "column x holds float64; it should hold whole"),
        (make_table(3), {"keep": ["z"]}, ValueError, "there is no column z to be kept"),
        (with_unit("nJy"), {}, ValueError, "instFlux is in nJy: it is calibrated already"),
        (with_unit("erg / (s cm2 Hz)"), {}, ValueError, "it is calibrated already"),
        ({**make_table(3), "flux": [1, 2, 3]}, {}, ValueError, "there is flux already; name the"),
        ({**make_table(3), "z": [1j] * 3}, {"keep": "z"}, ValueError, "z cannot be kept: it holds"),
        (make_table(3), {"x": 5}, TypeError, "x is a column, got 5"),
        (make_table(3), {"visit": 5.0}, TypeError, "visit is a column or a number, got 5.0"),
        (make_table(3), {"visit": True}, TypeError, "visit is a column or a number, got True"),
        (make_table(3), {"fluxes": ["a"]}, TypeError, "fluxes is a column, or a mapping such as"),
        (make_table(3), {"fluxes": {}}, TypeError, "fluxes is a column, or a mapping such as"),
        (make_table(3), {"fluxes": {"a": ("b",)}}, TypeError, r"fluxes\['a'\] is a column, or a p"),
        (
            make_table(3),
            {"fluxes": {"": "instFlux", "Flux": ("instFlux", None)} | {"flux": "x"}},
            ValueError,
            "there is no column xErr",
        ),
        (make_table(3), {"margin": -1}, ValueError, "margin is a number of pixels, at least 0"),
        (make_table(3), {"rows": 0}, ValueError, "rows is at least 1, got 0"),
        (5, {}, TypeError, "sources are paths, astropy Tables, .* got int"),
        ([5], {}, TypeError, "sources are paths, astropy Tables, .* got int"),
        ([], {}, ValueError, "there are no sources"),
        ("nope", {}, FileNotFoundError, "there is no .*nope"),
        ("nope/*.fits", {}, FileNotFoundError, r"there is no file .*nope/\*.fits"),
        (".", {}, FileNotFoundError, "there is no table in"),
    ],
)
def test_mistakes(sources, options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        calibrate_sources(sources, make_visit(), **options)


def test_two_results_of_one_name(tmp_path):
    write_parquet(tmp_path / "a.parquet", dict(make_table(3).items()))
    make_table(3).write(tmp_path / "a.fits")
    with pytest.raises(ValueError, match="results of several files would be called a; rename one"):
        calibrate_sources(tmp_path, make_visit())


def test_mistakes_in_photo_calibs(tmp_path, survey):
    visit = make_visit()
    without_any = ProductsConfig(tract_stars=False, zeropoint_output=False, atmosphere_output=False)
    for given, error, message in (
        (5, TypeError, "photo_calibs are FgcmProducts, a directory of products, or .* got int"),
        ({42: 5}, TypeError, r"photo_calibs\[42\] is a VisitPhotoCalib, got int"),
        ({42: delayed(visit)}, TypeError, "got a Delayed; compute it first"),
        ({43: visit}, ValueError, r"photo_calibs\[43\] is of visit 42"),
        (tmp_path, FileNotFoundError, "holds no products: there is no provenance.json"),
        (
            build_products(survey.products.run, without_any),
            ValueError,
            "the products are without photo_calibs",
        ),
    ):
        with pytest.raises(error, match=message):
            calibrate_sources(make_table(3), given)


def test_a_partition_that_is_no_table():
    (lazy,) = calibrate_sources(delayed(5), make_visit())
    with pytest.raises(TypeError, match="sources part-00000 is .* a data frame, got int"):
        lazy.compute()


# The command


def skyfold(*words):
    return CliRunner().invoke(main, ["calibrate", *map(str, words)])


def test_the_command(sources, survey, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = skyfold(sources, survey.folder, "out")
    assert result.exit_code == 0, result.output
    count = len(survey.table)
    assert result.stdout.splitlines() == [
        "sources in out",
        "partitions: 4 written, 0 there before, 0 failed",
        f"{count} sources, {count} calibrated",
    ]
    assert "partitions" in result.stderr
    result = skyfold(sources, survey.folder, "out", "--no-progress", "--scheduler", "synchronous")
    assert "partitions: 0 written, 4 there before, 0 failed" in result.stdout
    assert result.stderr == ""
    paths = sorted(sources.rglob("*.parquet"))
    words = ["--flux", "psf=instFlux", "--flux", "ap=instFlux,x", "--flux", "instFlux,"]
    words += ["--column", "detector=3", "--keep", "visit", "--margin", "0", "--rows", "100"]
    result = skyfold(*paths[:2], survey.folder, "two", *words, "--format", "fits")
    assert result.exit_code == 0, result.output
    table = read_table(next((tmp_path / "two").rglob("*-00000.fits")))
    made = [f"{p}{n}" for p in ("psf", "ap") for n in ("Flux", "FluxErr", "Mag", "MagErr")]
    assert table.colnames == ["visit", *made, "flux", "mag"]
    paths[1].write_bytes(b"PAR1")
    result = skyfold(sources, survey.folder, "three")
    assert result.exit_code == 3
    assert "partitions: 3 written, 0 there before, 1 failed" in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("nope {products} out", 1, "FileNotFoundError: there is no "),
        ("{sources} nope out", 1, "nope holds no products"),
        ("{sources} {products} a/b", 1, "cannot make "),
        ("{sources} {products} out --flux =", 2, "'=' is not NAME=COLUMN"),
        ("{sources} {products} out --flux z", 1, "there is no column z (numbers)"),
        ("{sources} {products} out --column ra=ra", 1, "names visit, detector, x or y, got 'ra'"),
        ("{sources} {products} out --format csv", 1, "format is fits or parquet, got 'csv'"),
        ("{sources} {products}", 2, "Missing argument"),
    ],
)
def test_mistakes_are_told_in_one_line(
    sources, survey, tmp_path, monkeypatch, words, code, message
):
    monkeypatch.chdir(tmp_path)
    result = skyfold(*words.format(sources=sources, products=survey.folder).split())
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_interrupt(sources, survey, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "calibrated_partition", interrupted)
    monkeypatch.chdir(tmp_path)
    result = skyfold(sources, survey.folder, "out", "--scheduler", "synchronous")
    assert result.exit_code == 130
    assert result.stderr.endswith("interrupted; what is complete stays in out\n")


# Missing values


def with_missing(name, value=None):
    """Return sources as lists, one of whose values is missing."""
    columns = {n: make_table(6)[n].tolist() for n in make_table(6).colnames}
    columns["id"], columns["flag"], columns["text"] = [*range(6)], [True] * 6, ["a"] * 6
    columns["instFlux"] = [100, 101, 102, 103, 104, 105]  # whole numbers
    columns[name][2] = value
    return columns


KINDS = {"visit": pa.int32(), "detector": pa.int16(), "id": pa.uint64(), "instFlux": pa.int64()}


@pytest.mark.parametrize("name", ["visit", "detector", "x", "instFlux", "id", "flag", "text"])
def test_what_is_missing_costs_its_row_or_nothing(tmp_path, name):
    """However it is said that it is missing, and wherever."""
    columns = with_missing(name)
    arrow = pa.table({n: pa.array(v, KINDS.get(n)) for n, v in columns.items()})
    pq.write_table(arrow, tmp_path / "a.parquet")
    reader = MemoryTable(columns, "it")
    table = as_table(reader.read(list(columns)), reader.columns)
    write_table(tmp_path / "a.fits", table)
    kinds = {n: "float64" if n in "xy" or n == "instFluxErr" else "Int64" for n in columns}
    kinds |= {"flag": "boolean", "text": "str"}
    holders = [tmp_path / "a.parquet", tmp_path / "a.fits", columns, table, arrow]
    holders += [pl.DataFrame(arrow), pd.DataFrame(columns).astype(kinds), delayed(table)]
    holders += [pd.DataFrame(columns).astype(kinds).convert_dtypes(dtype_backend="pyarrow")]
    lost = {"visit": "without a visit or detector", "x": "without a position"}
    lost["detector"] = lost["visit"]
    for holder in holders:
        (lazy,) = calibrate_sources(holder, make_visit())
        with warnings.catch_warnings(record=True, action="always") as caught:
            result = lazy.compute()
        said = [str(w.message) for w in caught if w.category is CalibrationWarning]
        assert [text.partition(": ")[2] for text in said] == (
            [f"{lost[name]}: 1 source"] if name in lost else []
        )
        row = np.isnan(result["flux"]).tolist()
        assert row == [i == 2 and name in (*lost, "instFlux") for i in range(6)]
        for kept in ("visit", "detector", "id", "flag", "text"):
            values = [v or None if kept == "text" else v for v in result[kept].tolist()]
            assert values == columns[kept]
        report = calibrate_sources(holder, make_visit()).write(tmp_path / "out", overwrite=True)
        assert (report.failed, report.left_out) == ({}, {})
        assert report.tally.calibrated == 6 - (name in lost)
        assert report.tally.unnamed == (name in ("visit", "detector"))
        shutil.rmtree(tmp_path / "out")


def test_columns_that_are_kept_cost_nothing_but_themselves(tmp_path):
    """Lists of several lengths that look like one are found out where they are read."""
    columns = with_missing("id", 7) | {"lists": [[1], [1, 2, 3], [1, 2], [1, 2], [1, 2], [1, 2]]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    report = calibrate_sources(tmp_path / "a.parquet", make_visit()).write(tmp_path / "out")
    why = "cannot be read: a.parquet: column lists: not all rows have 2 values"
    assert (report.failed, report.left_out) == ({}, {"lists": why})
    assert report.tally.calibrated == 6


def test_dask_data_frames(tmp_path):
    frame = pd.DataFrame(with_missing("detector")).astype({"detector": "Int64"})
    frames = Frames(Table())
    frames.to_delayed = lambda: [delayed(frame[:3]), delayed(frame[3:])]
    report = calibrate_sources(frames, make_visit()).write(tmp_path / "out")
    assert (report.tally.rows, report.tally.unnamed, report.failed) == (6, 1, {})


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"instFlux": "uJy"}, "instFlux is in uJy: it is calibrated already"),
        ({"instFluxErr": "nJy"}, "instFluxErr is in nJy: it is calibrated already"),
        ({"instFlux": "mag"}, "instFlux is in mag, which is none of instrumental fluxes"),
        ({"instFlux": "furlong"}, "instFlux is in furlong, which is not known; set its unit"),
        ({"instFlux": "adu", "instFluxErr": "electron"}, "are in adu and electron, two units"),
        ({"x": "mm"}, "column x is in mm; it should hold numbers in pix"),
        ({"y": "furlong"}, "column y is in furlong, which is not known; set it to pix"),
        ({"instFlux": "ADU", "instFluxErr": "adu", "x": "pixels"}, ""),
    ],
)
def test_units_of_sources(units, message):
    box = (0, 0, 100, 100)
    photo_calib = VisitPhotoCalib(42, [7], [box], [[[2.0]]], [2.0], [0.0])
    table = Table({"visit": [42], "detector": [7], "x": [5.0], "y": [6.0]})
    table["instFlux"], table["instFluxErr"] = [50.0], [5.0]
    for name, unit in units.items():
        table[name].unit = unit
    if message:
        with pytest.raises(ValueError, match=message):
            calibrate_sources(table, {42: photo_calib})
    else:
        assert one(table, {42: photo_calib})["flux"].tolist() == [100]


def test_ids_beyond_those_with_a_sign(tmp_path):
    """As a needed column and as one that is kept, from FITS and Parquet and to both."""
    table = make_table(4)
    table["id"] = np.array([2**63, 2**64 - 2, 0, 7], "u8")
    table["detector"] = table["detector"].astype("u8")
    table.write(tmp_path / "a.fits")
    pq.write_table(
        pa.table({n: np.asarray(table[n]) for n in table.colnames}), tmp_path / "b.parquet"
    )
    for path in (tmp_path / "a.fits", tmp_path / "b.parquet"):
        for format_ in ("fits", "parquet"):
            out = tmp_path / f"{path.stem}-{format_}"
            report = calibrate_sources(path, make_visit()).write(out, format=format_)
            assert report.tally.calibrated == 4
            name = f"{path.stem}.{format_}"
            for found in (read_table(out / name), Table.read(out / name)):
                np.testing.assert_array_equal(found["id"], table["id"], strict=format_ != "fits")
                np.testing.assert_array_equal(found["detector"], table["detector"])
