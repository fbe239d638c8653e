"""Products on disk: their provenance, and what is kept, made again, replaced or refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import dask
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from calibration import Camera, TransmissionCurve, VisitPhotoCalib
from calibration.products.store import Store
from calibration.run.run import FgcmRun
from calibration.tables.fits_writer import FitsWriter
from tests.calibration.fgcm_cases import RUN, tables, write
from tests.calibration.products_cases import (
    CONFIG,
    NO_ZEROPOINT,
    TABLE,
    VISIT,
    VISITS,
    count,
    files,
    make_products,
    make_run,
    read,
    stamps,
    states,
)
from tests.conftest import CHECKOUT

FORMATS = ("fits", "parquet")
ALL = {"photo_calibs": {"skipped": 1, "written": 4}, "atmospheres": {"written": 5}}
KEPT = {"photo_calibs": {"kept": 4, "skipped": 1}, "atmospheres": {"kept": 5}}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Complete stores of both formats, not to be changed."""
    folder = tmp_path_factory.mktemp("stores")
    for output_format in FORMATS:
        make_products(output_format=output_format).write(folder / output_format)
    return folder


@pytest.fixture(params=FORMATS)
def store(request, originals, tmp_path):
    """A complete store; its last name is the format."""
    return shutil.copytree(originals / request.param, tmp_path / request.param)


@pytest.fixture
def fits_store(originals, tmp_path):
    return shutil.copytree(originals / "fits", tmp_path / "fits")


def write_again(store, **options):
    config = options.pop("config", {})
    return make_products(output_format=store.name, **config).write(store, **options)


# What is there


def test_files(store):
    expected = {f"atmospheres/{visit}.{store.name}" for visit in VISITS}
    expected |= {f"photo_calibs/{visit}.{store.name}" for visit in VISITS if visit != NO_ZEROPOINT}
    assert set(files(store)) == {"provenance.json", *expected}


def test_fits_files_reopen_with_astropy(fits_store):
    path = fits_store / "photo_calibs" / f"{VISIT}.fits"
    with fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
        assert hdus[1].header["VISIT"] == VISIT
        assert hdus[1].columns["mean"].unit == "nJy"
        assert hdus[1].data["coefficients"].shape == (8, 6, 6)
    table = Table.read(path)
    photo_calib = make_products().photo_calibs[VISIT].compute()
    assert VisitPhotoCalib.from_table(table) == photo_calib
    zpt = -2.5 * np.log10(photo_calib.mean) + 31.4
    np.testing.assert_allclose(table["zpt"], zpt, rtol=0, atol=1e-6)
    curve = Table.read(fits_store / "atmospheres" / f"{VISIT}.fits")
    assert str(curve["wavelength"].unit) == "Angstrom"
    assert TransmissionCurve.from_table(curve) == make_products().atmospheres[VISIT].compute()


def test_parquet_files_reopen_with_pyarrow(originals):
    photo_calib = make_products().photo_calibs[VISIT].compute()
    table = pq.read_table(originals / "parquet" / "photo_calibs" / f"{VISIT}.parquet")
    assert table["detector"].to_pylist() == list(photo_calib)
    assert table["mean"].to_pylist() == photo_calib.mean.tolist()
    assert table.schema.field("mean").metadata[b"unit"] == b"nJy"
    coefficients = np.array(table["coefficients"].to_pylist()).reshape(8, 6, 6)
    np.testing.assert_array_equal(coefficients, photo_calib.coefficients)
    curve = pq.read_table(originals / "parquet" / "atmospheres" / f"{VISIT}.parquet")
    expected = make_products().atmospheres[VISIT].compute()
    np.testing.assert_array_equal(curve["throughput"], expected.throughput)


@pytest.mark.slow
def test_products_go_round(store):
    products = make_products()
    for visit in VISITS:
        curve = read(store, "atmospheres", visit, store.name)
        assert TransmissionCurve.from_table(curve) == products.atmospheres[visit].compute()
        if visit != NO_ZEROPOINT:
            table = read(store, "photo_calibs", visit, store.name)
            assert VisitPhotoCalib.from_table(table) == products.photo_calibs[visit].compute()


def provenance(store):
    return json.loads((store / "provenance.json").read_text())


def test_provenance(store):
    said = provenance(store)
    config = CONFIG.replace(output_format=store.name)
    assert said["config"] == json.loads(json.dumps(config.to_dict()))
    names = ["visits", "zeropoints", "atmosphere_parameters", "standard_stars", "lookup_table"]
    assert {*said["inputs"]} == {*names, "reference_catalog", "camera", "atmosphere_table"}
    assert all(text.startswith("sha256:") for text in said["inputs"].values())
    assert said["inputs"]["visits"] == FgcmRun.open(RUN).fingerprints()["visits"]
    assert {"python", "numpy", "astropy", "dask"} <= {*said["versions"]}
    assert said["versions"]["numpy"] == np.__version__
    assert said["schema"]["photo_calibs"]["coefficients"] == {
        "dtype": "float64",
        "shape": [6, 6],
        "unit": "nJy",
        "description": "Chebyshev series in y and x of the flux of one unit",
    }
    assert all(column["description"] for c in said["schema"].values() for column in c.values())
    assert said["schema"]["atmospheres"]["wavelength"]["unit"] == "Angstrom"
    for name, columns in said["schema"].items():
        assert read(store, name, VISIT, store.name).colnames == [*columns]
    assert said["token"].encode() in files(store)[f"atmospheres/{VISIT}.{store.name}"]


@pytest.mark.slow
def test_inputs_are_told_by_what_is_in_them(tmp_path):
    def inputs(change=None, **given):
        return make_products(make_run(change, **given)).inputs()

    def longer(parts):
        parts["visits"]["exptime"][0] += 1

    def differing(one, other):
        assert {*one} == {*other}
        return {name for name in one if one[name] != other[name]}

    of_files, in_memory = make_products().inputs(), inputs()
    assert {*of_files} - {*in_memory} == {"reference_catalog"}
    assert inputs() == in_memory
    assert differing(in_memory, inputs(longer)) == {"visits"}
    camera = Camera.open(RUN / "camera.ecsv")
    turned = camera.to_table()
    turned["yaw"] += 1
    whole = inputs(camera=camera)
    assert differing(whole, in_memory) == {"camera"}
    assert differing(whole, inputs(camera=Camera.from_table(camera.to_table()))) == set()
    assert differing(whole, inputs(camera=Camera.from_table(turned))) == {"camera"}
    shutil.copytree(RUN, tmp_path / "copy")
    assert make_products(FgcmRun.open(tmp_path / "copy")).inputs() == of_files


# Running again


def test_running_again_does_nothing(store, monkeypatch):
    made = {name: count(monkeypatch, name) for name in ("make_photo_calib", "make_atmosphere")}
    before = stamps(store)
    assert states(write_again(store)) == KEPT
    assert stamps(store) == before
    assert made == {"make_photo_calib": [NO_ZEROPOINT], "make_atmosphere": []}


@pytest.mark.slow
@pytest.mark.parametrize("product", ["photo_calibs", "atmospheres"])
def test_a_file_that_was_deleted_is_made_again_alone(product, store, originals, monkeypatch):
    made = [count(monkeypatch, name) for name in ("make_photo_calib", "make_atmosphere")]
    path = store / product / f"{VISIT}.{store.name}"
    before = stamps(store)
    path.unlink()
    report = write_again(store)
    assert report.counts[product]["written"] == 1
    assert report.counts[product]["kept"] == KEPT[product]["kept"] - 1
    assert sorted(made[0] + made[1]) == [VISIT, NO_ZEROPOINT]
    after = stamps(store)
    assert {name for name in after if after[name] != before[name]} == {str(path.relative_to(store))}
    assert files(store) == files(originals / store.name)


def truncated(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[:-1000] + bytes([data[-1000] ^ 4]) + data[-999:]


DAMAGE = {
    "truncated": truncated,
    "flipped": flipped,
    "empty": lambda data: b"",
    "longer": lambda data: data + bytes(2880),
    "text": lambda data: b"hello",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_again_alone(damage, store, originals):
    path = store / "photo_calibs" / f"{VISIT}.{store.name}"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    before = stamps(store)
    assert states(write_again(store))["photo_calibs"] == {"kept": 3, "skipped": 1, "written": 1}
    after = stamps(store)
    assert {name for name in after if after[name] != before[name]} == {str(path.relative_to(store))}
    assert files(store) == files(originals / store.name)


@pytest.mark.slow
def test_a_file_of_other_products_is_made_again(store, originals, tmp_path):
    make_products(output_format=store.name, seed=1).write(tmp_path / "other", visits=[VISIT])
    for name in ("photo_calibs", "atmospheres"):
        file = f"{name}/{VISIT}.{store.name}"
        assert files(tmp_path / "other")[file] != files(store)[file]
        shutil.copy(tmp_path / "other" / file, store / name)
    report = write_again(store)
    assert [counts["written"] for counts in report.counts.values()] == [1, 1]
    assert files(store) == files(originals / store.name)


@pytest.mark.slow
def test_a_damaged_file_of_a_visit_that_fails_is_removed(fits_store, monkeypatch):
    path = fits_store / "atmospheres" / f"{VISIT}.fits"
    path.write_bytes(b"")

    def failing(*_):
        raise ArithmeticError("no")

    monkeypatch.setattr("calibration.products.build.make_atmosphere", failing)
    report = write_again(fits_store)
    (outcome,) = report.failed
    assert (outcome.product, outcome.number, outcome.remark) == ("atmospheres", VISIT, "no")
    assert not path.exists()


def test_some_visits_first(tmp_path, originals):
    store, progress = tmp_path / "fits", []
    report = write_again(store, visits=[VISIT, VISITS[0], VISIT], progress=progress.append)
    assert states(report) == {"photo_calibs": {"written": 2}, "atmospheres": {"written": 2}}
    assert progress == [2]
    assert len(files(store)) == 5
    report = write_again(store, progress=progress.append)
    assert states(report)["atmospheres"] == {"kept": 2, "written": 3}
    assert progress == [2, 5]
    assert files(store) == files(originals / "fits")
    with pytest.raises(KeyError, match=r"there are no visits \[3, 5\] among the 5 of the run"):
        write_again(store, visits=[5, VISIT, 3])
    assert states(write_again(store, visits=[])) == {}


def test_batches_of_visits(tmp_path, originals, monkeypatch):
    monkeypatch.setattr("calibration.products.write.BATCH", 2)
    tables, progress = count(monkeypatch, "open_atmosphere"), []
    assert states(write_again(tmp_path / "fits", progress=progress.append)) == ALL
    assert progress == [2, 2, 1]
    assert len(tables) == 2  # before the start, and for the visits
    assert files(tmp_path / "fits") == files(originals / "fits")


def test_what_a_broken_off_run_did_not_say_is_said_later(store, originals):
    said = provenance(store)
    said["schema"] = {}
    (store / "provenance.json").write_text(json.dumps(said))
    write_again(store)
    assert provenance(store) == provenance(originals / store.name)


# Products of something else


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"compose_wcs_jacobian": False}, "config.compose_wcs_jacobian"),
        ({"seed": 3, "physical_filter_map": {"a": "b"}}, "config.physical_filter_map, config.seed"),
    ],
)
def test_another_configuration_is_refused(config, names, fits_store):
    before = stamps(fits_store)
    with pytest.raises(FileExistsError, match=rf"holds products made otherwise \({names} differ\)"):
        write_again(fits_store, config=config)
    assert stamps(fits_store) == before
    assert states(write_again(fits_store, config=config, overwrite=True)) == ALL
    assert set(stamps(fits_store)) == set(before)
    assert not set(stamps(fits_store).values()) & set(before.values())
    assert states(write_again(fits_store, config=config)) == KEPT


def test_overwriting_removes_what_is_stale(fits_store):
    report = make_products(output_format="parquet").write(
        fits_store, visits=[VISIT], overwrite=True
    )
    assert states(report)["atmospheres"] == {"written": 1}
    assert set(files(fits_store)) == {
        "provenance.json",
        f"photo_calibs/{VISIT}.parquet",
        f"atmospheres/{VISIT}.parquet",
    }


def test_overwriting_leaves_what_is_not_ours(fits_store):
    foreign = ("photo_calibs/notes.txt", "offsets.notes.txt", "photo_calibs.tar.gz", "mine.fits")
    for name in foreign:
        (fits_store / name).write_text("mine")
    write_again(fits_store, config={"seed": 5}, overwrite=True)
    assert all((fits_store / name).read_text() == "mine" for name in foreign)


def test_a_run_that_wrote_nothing_is_no_hindrance(tmp_path):
    inputs = make_products().inputs()
    Store.open(tmp_path / "out", CONFIG, inputs)
    Store.open(tmp_path / "out", CONFIG.replace(seed=5), inputs)
    assert provenance(tmp_path / "out")["config"]["seed"] == 5


def test_overwriting_the_same_keeps_what_is_complete(fits_store):
    before = stamps(fits_store)
    assert states(write_again(fits_store, overwrite=True)) == KEPT
    assert stamps(fits_store) == before


def test_another_run_is_refused(fits_store):
    zeropoints = tables()["zeropoints"]
    zeropoints["fgcmZpt"][0] += 0.1
    products = make_products(FgcmRun.open(RUN, zeropoints=zeropoints))
    with pytest.raises(FileExistsError, match=r"\(inputs.zeropoints differ\); choose another name"):
        products.write(fits_store)


def test_another_atmosphere_table_is_refused(fits_store, tmp_path):
    other = tmp_path / "other.fits"
    with fits.open(TABLE) as hdus:
        hdus["O3ATM"].data = hdus["O3ATM"].data * 0.99
        hdus.writeto(other)
    products = make_products(atmosphere_table=str(other))
    with pytest.raises(FileExistsError, match=r"\(inputs.atmosphere_table differ\)"):
        products.write(fits_store)
    assert states(make_products(atmosphere_output=False).write(fits_store))["photo_calibs"]["kept"]
    before = files(fits_store)[f"atmospheres/{VISIT}.fits"]
    assert states(products.write(fits_store, overwrite=True)) == ALL
    assert files(fits_store)[f"atmospheres/{VISIT}.fits"] != before


def test_the_same_table_elsewhere_is_the_same(fits_store, tmp_path):
    shutil.copy(TABLE, tmp_path / "copy.fits.gz")
    products = make_products(atmosphere_table=str(tmp_path / "copy.fits.gz"))
    assert states(products.write(fits_store)) == KEPT


def test_further_products_are_added(tmp_path, originals):
    store = tmp_path / "fits"
    nope = {"atmosphere_table": "nope"}
    with pytest.raises(FileNotFoundError, match="no atmosphere table 'nope'"):
        write_again(store, config=nope)
    report = write_again(store, config={**nope, "atmosphere_output": False})
    assert states(report) == {"photo_calibs": ALL["photo_calibs"]}
    assert "atmosphere_table" not in provenance(store)["inputs"]
    report = write_again(store, config={"zeropoint_output": False})
    assert states(report) == {"atmospheres": ALL["atmospheres"]}
    assert states(write_again(store)) == KEPT
    ours, whole = provenance(store), provenance(originals / "fits")
    assert ours["config"].pop("atmosphere_table") == "nope"
    assert whole["config"].pop("atmosphere_table")
    assert ours == whole


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"config": 3, "schema": {}}'])
def test_a_damaged_provenance(text, fits_store):
    (fits_store / "provenance.json").write_text(text)
    why = "differ" if "config" in text else "provenance.json is damaged"
    with pytest.raises(FileExistsError, match=rf"made otherwise \(.*{why}\); choose another name"):
        write_again(fits_store)
    assert states(write_again(fits_store, overwrite=True)) == ALL


# Directories


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is not empty, and holds no products"):
            make_products().write(tmp_path, overwrite=overwrite)
    assert list(files(tmp_path)) == ["notes.txt"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError, match="out is a file; products need a directory"):
        make_products().write(tmp_path / "out", overwrite=True)
    assert files(tmp_path) == {"out": b"mine"}


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot make .*a/b: there is no .*/a$"):
        make_products().write(tmp_path / "a" / "b")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["with spaces and ümlauts", "a%20b[1].fits"])
def test_names_of_directories(name, tmp_path):
    (tmp_path / name).mkdir()
    copied = write(tmp_path / name, tables())
    target = tmp_path / name / "my products"
    assert states(make_products(FgcmRun.open(copied)).write(str(target))) == ALL
    assert states(make_products(FgcmRun.open(copied)).write(target)) == KEPT
    assert VisitPhotoCalib.from_table(read(target, "photo_calibs", VISIT)).visit == VISIT


def test_a_directory_that_is_read_only(originals, tmp_path):
    store = tmp_path / "fits"
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    shutil.copytree(originals / "fits", store)
    folders = [store, *(path for path in store.iterdir() if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert states(write_again(store)) == KEPT
        (store / "atmospheres").chmod(0o755)
        (store / "atmospheres" / f"{VISIT}.fits").unlink()
        (store / "atmospheres").chmod(0o555)
        with pytest.raises(PermissionError, match=f"{VISIT}.fits"):
            write_again(store)
    finally:
        for folder in folders:
            folder.chmod(0o755)


# Broken off


def test_a_full_disk(tmp_path, originals, monkeypatch):
    original, room = FitsWriter.write, [4]

    def until_full(writer, rows):
        original(writer, rows)
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 1

    monkeypatch.setattr(FitsWriter, "write", until_full)
    store = tmp_path / "fits"
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(OSError, match=r"No space left on device: '.*\.fits'") as caught:
            write_again(store)
        assert caught.value.errno == errno.ENOSPC
        expected, found = files(originals / "fits"), files(store)
        assert len(found) == 5
        assert set(found) < set(expected)  # no temporary files
        del found["provenance.json"]
        assert found.items() < expected.items()
        monkeypatch.setattr(FitsWriter, "write", original)
        report = write_again(store)
    assert sum(counts["kept"] for counts in report.counts.values()) == 4
    assert files(store) == expected


KILLED = """
import os, signal
import dask
from calibration.tables.fits_writer import FitsWriter
from tests.calibration.products_cases import make_products

original, room = FitsWriter.write, [3]

def until_killed(writer, rows):
    original(writer, rows)
    if not room[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    room[0] -= 1

FitsWriter.write = until_killed
with dask.config.set(scheduler="synchronous"):
    make_products().write({store!r})
"""


@pytest.mark.slow
def test_a_killed_run_is_taken_up_again(tmp_path, originals):
    store = tmp_path / "fits"
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(store=str(store))], cwd=CHECKOUT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = set(files(store)) - set(files(originals / "fits"))
    assert len(files(store)) == 5
    report = write_again(store)
    assert sum(counts["kept"] for counts in report.counts.values()) == 3
    assert set(files(store)) - {left} == set(files(originals / "fits"))
    long_ago = time.time() - 7200
    os.utime(store / left, (long_ago, long_ago))
    before = stamps(store)
    assert states(write_again(store)) == KEPT
    assert files(store) == files(originals / "fits")
    del before[left]
    assert stamps(store) == before


def test_a_run_that_was_killed_before_the_first_file(tmp_path):
    (tmp_path / ".provenance.json.0123abcd.tmp").write_text("{")
    assert states(make_products().write(tmp_path)) == ALL


def test_provenance_is_written_whole(tmp_path, monkeypatch):
    store = Store.open(tmp_path, CONFIG, {"visits": "sha256:0"})
    store.write(Table({"band": ["g"], "offset": [0.1]}), "offsets")
    before = files(tmp_path)
    monkeypatch.setattr("calibration.products.store.json.dumps", None)
    with pytest.raises(TypeError):
        store.describe("offsets")
    assert files(tmp_path) == before
