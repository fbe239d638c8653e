"""The files of a simulated FGCM run, the directory they lie in, and the camera."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

import calibration.simulate.run as simulate
from calibration import Camera, FgcmRun, ProductsConfig
from calibration.simulate.run import FILES, simulate_camera, simulate_run
from tests.calibration.products_cases import stamps

BANDS = {"SIM-G": "g", "SIM-R": "r", "SIM-I": "i", "SIM-Z": "z"}
SMALL = {"n_visits": 6, "n_stars": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "run"
    simulate_run(path)
    return path


# The files


@pytest.mark.slow
def test_files_open_without_a_complaint(folder):
    run = FgcmRun.open(folder)
    assert sorted(os.listdir(folder)) == sorted([*FILES, "simulation.json"])
    assert run.warnings == run.check() == ()
    assert run.bands == ("g", "r", "i", "z")
    assert run.physical_filters == tuple(BANDS)
    assert run.jacobian_applied is True
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    config = ProductsConfig.open(folder / "products.yaml")
    assert config.physical_filter_map == BANDS


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in FILES if name.startswith(("fgcm", "truth", "r"))]
)
def test_columns_say_what_they_are(folder, name):
    with fits.open(folder / name) as hdus:
        hdus.verify("exception")
        columns, header = hdus[1].columns, hdus[1].header
        assert len(hdus[1].data) == header["NAXIS2"] > 0
        comments = [header[f"TCOMM{i}"] for i in range(1, len(columns) + 1)]
    assert all(comments)
    table = Table.read(folder / name)  # warns of units that are none
    assert all(np.isfinite(column).all() for column in table.itercols() if column.dtype.kind == "f")


@pytest.mark.slow
def test_same_seed_same_bytes(tmp_path, monkeypatch):
    simulate_run(tmp_path / "a", seed=3, **SMALL)
    monkeypatch.setattr(simulate, "_ROWS", 16)  # two visits at a time
    simulate_run(tmp_path / "b", seed=3, **SMALL)
    simulate_run(tmp_path / "c", seed=4, **SMALL)
    fixed = {"camera.ecsv", "products.yaml", "truth_offsets.fits"}
    fixed |= {"skyfold_approximate_atmosphere.fits"}
    for name in FILES:
        a, b, c = ((tmp_path / run / name).read_bytes() for run in "abc")
        assert a == b, name
        assert (a == c) == (name in fixed), name


def test_observations_are_optional(tmp_path):
    camera = simulate_camera(3, 1, width=100, height=90)
    run = simulate_run(tmp_path / "run", camera=camera, observations=False, **SMALL)
    assert sorted(os.listdir(tmp_path / "run")) == sorted(
        {*FILES, "simulation.json"} - {"fgcmStarObservations.fits"}
    )
    stars = run.standard_stars.read()
    assert stars["ngood"].max() > 0
    assert (stars["ntotal"] >= stars["ngood"]).all()
    assert len(run.zeropoints) == 3 * SMALL["n_visits"]


@pytest.mark.slow
def test_many_detectors_in_any_order(tmp_path):
    few = simulate_camera(21, 9, width=200, height=400, gap=0.1)
    detectors = list(few.values())[::-1]
    n_visits = 100  # more than are in memory at a time
    run = simulate_run(
        tmp_path / "run",
        n_visits=n_visits,
        n_stars=50,
        camera=Camera(detectors),
        observations=False,
    )
    assert len(run.zeropoints) == 189 * n_visits
    assert run.check() == ()
    rows = run.zeropoint_rows(run.visit_ids[-1])
    assert rows["detector"].tolist() == run.detector_ids.tolist() == list(range(188, -1, -1))


# The directory


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "run"
    path.mkdir()  # an empty one will do
    simulate_run(path, **SMALL)
    first = (path / "fgcmZeropoints.fits").read_bytes()
    with pytest.raises(FileExistsError, match=r"made otherwise \(seed differ\).* overwrite"):
        simulate_run(path, seed=1, **SMALL)
    assert (path / "fgcmZeropoints.fits").read_bytes() == first
    simulate_run(path, seed=1, overwrite=True, **SMALL)
    assert (path / "fgcmZeropoints.fits").read_bytes() != first
    (path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match=r"more than a simulated run: thesis\.txt"):
        simulate_run(path, overwrite=True, **SMALL)
    assert sorted(os.listdir(path)) == sorted([*FILES, "simulation.json", "thesis.txt"])
    assert os.listdir(tmp_path) == ["run"]


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    simulate_run(tmp_path / "old", **SMALL)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(simulate, "star_rows", full)  # when most is written
    for name, overwrite in (("new", False), ("old", True)):
        with pytest.raises(OSError, match="no space left"):
            simulate_run(tmp_path / name, seed=1, overwrite=overwrite, **SMALL)
    assert os.listdir(tmp_path) == ["old"]
    assert sorted(os.listdir(tmp_path / "old")) == sorted([*FILES, "simulation.json"])


def test_a_run_that_cannot_be_moved_leaves_the_old_one(tmp_path, monkeypatch):
    simulate_run(tmp_path / "run", **SMALL)
    rename = Path.rename

    def fails(path, target):
        if path.suffix == ".tmp":
            raise OSError("not today")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="not today"):
        simulate_run(tmp_path / "run", seed=1, overwrite=True, **SMALL)
    assert os.listdir(tmp_path) == ["run"]
    assert sorted(os.listdir(tmp_path / "run")) == sorted([*FILES, "simulation.json"])


@pytest.mark.slow
def test_what_is_complete_is_kept(tmp_path):
    path = tmp_path / "run"
    simulate_run(path, **SMALL)
    before = stamps(path)
    simulate_run(path, **SMALL)
    assert stamps(path) == before
    (path / "refcat.fits").unlink()
    simulate_run(path, **SMALL)
    assert (path / "refcat.fits").exists()


def test_wrong_places(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot make .*: there is no"):
        simulate_run(tmp_path / "no" / "run")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        simulate_run(tmp_path / "file", overwrite=True)


@pytest.mark.parametrize("wrong", [{"n_visits": 0}, {"n_stars": 0}, {"seed": -1}])
def test_wrong_numbers(tmp_path, wrong):
    with pytest.raises(ValueError, match="needs visits, stars and a seed of 0 or more"):
        simulate_run(tmp_path / "run", **wrong)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("n_visits", [1, 2, 5])
def test_few_visits_will_do(tmp_path, n_visits):
    camera = simulate_camera(1, 1, width=50, height=60)
    run = simulate_run(tmp_path / "run", n_visits=n_visits, n_stars=5, camera=camera)
    assert len(run.visit_ids) == n_visits
    assert run.check() == ()


# The camera


def test_camera_is_a_grid_with_the_upper_half_turned():
    camera = simulate_camera(4, 3, width=100, height=200, gap=0.5)
    assert [camera[i].yaw for i in (0, 4, 8)] == [0, 0, 180]
    x, y = np.transpose([detector.offset for detector in camera.values()])
    np.testing.assert_allclose(np.diff(x[:4]), 1.5)
    np.testing.assert_allclose(y[::4], [-2.5, 0, 2.5])
    assert abs(x.sum()) < 1e-12


def test_camera_is_distorted_by_what_was_asked_for():
    corner = []
    for distortion in (0.0, 0.03):
        camera = simulate_camera(2, 2, width=100, height=100, distortion=distortion)
        corner.append(np.hypot(*camera[0].corners()[0]))
    assert corner[1] / corner[0] == pytest.approx(1.03, abs=1e-6)


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"width": 0}, {"pixel_size": 0}, {"gap": -1}])
def test_camera_needs_pixels(wrong):
    with pytest.raises(ValueError, match="a camera needs detectors with pixels"):
        simulate_camera(**wrong)
