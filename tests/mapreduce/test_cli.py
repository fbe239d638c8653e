import sys

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import mapreduce as mr
from mapreduce.cli import main
from mapreduce.run.lazy import MappedExposure

MAPPERS = """
import numpy as np

def brighten(sub, expanded, full_bbox, by=1.0):
    return sub.replace(image=sub.image + by)

def fail_on_the_left(sub, expanded, full_bbox):
    if sub.bbox.x0 == 0:
        raise ArithmeticError("too far left")
    return sub

def interrupted(sub, expanded, full_bbox):
    raise KeyboardInterrupt

def template_only(sub, expanded, full_bbox, template):
    return sub.replace(image=template.cutout(sub.bbox).image)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with an exposure and the user's own mappers in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "usermappers", raising=False)
    (tmp_path / "usermappers.py").write_text(MAPPERS)
    rng = np.random.default_rng(3)
    exposure = mr.Exposure(
        rng.normal(10, 1, (60, 80)).astype("f4"),
        np.ones((60, 80), "f4"),
        np.zeros((60, 80), "i4"),
        psf=mr.GaussianPsf(2.0),
    )
    exposure.write("in.fits")
    yield tmp_path
    sys.modules.pop("usermappers", None)


def skyfold(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_version():
    result = skyfold("--version")
    assert result.exit_code == 0
    assert result.output.endswith(f", version {mr.__version__}\n")


def test_help_names_the_commands_and_the_exit_codes():
    result = skyfold("--help")
    assert result.exit_code == 0
    for word in ("map", "grid", "simulate", "Exit codes"):
        assert word in result.output


def test_map_help_names_mappers_and_reducers():
    output = skyfold("map", "--help").output
    for word in ("background", "median", "package.module:function", "weighted_average"):
        assert word in output
    assert "Subtract the sigma-clipped background" in skyfold("map", "--mappers").output


def test_map_writes_what_the_engine_makes(folder):
    words = ("--set", "by=2.5", "--cell", "30x20", "--border", 4, "--picture", "picture.png")
    result = skyfold("map", "in.fits", "out.fits", "--mapper", "usermappers:brighten", *words)
    assert result.exit_code == 0, result.output
    assert "12 cells" not in result.output
    assert "cells: 9 in" in result.output
    before, after = (mr.read_exposure(name).compute() for name in ("in.fits", "out.fits"))
    np.testing.assert_array_equal(after.image, before.image + np.float32(2.5))
    np.testing.assert_array_equal(after.variance, before.variance)
    assert after.psf.sigma(x=5, y=5) == 2.0
    assert (folder / "picture.png").stat().st_size > 1000


@pytest.mark.slow
def test_map_on_every_local_scheduler_gives_the_same_file_contents(folder):
    for scheduler in ("threads", "synchronous", "processes"):
        result = skyfold(
            *("map", "in.fits", f"{scheduler}.fits", "--mapper", "usermappers:brighten"),
            *("--cell", 32, "--scheduler", scheduler, "--no-progress"),
        )
        assert result.exit_code == 0, result.output
    images = [mr.read_exposure(f"{s}.fits").compute().image for s in ("threads", "synchronous")]
    np.testing.assert_array_equal(*images)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["threads", "cluster"])
@pytest.mark.parametrize("name", ["out.zarr", "out.fits"])
def test_map_never_holds_the_whole_result(folder, name, scheduler, cluster, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.setattr(MappedExposure, "__dask_postcompute__", None)
    where = cluster.scheduler_address if scheduler == "cluster" else scheduler
    words = ("--cell", 20, "--tile", 20, "--picture", "picture.png", "--scheduler", where)
    result = skyfold("map", "in.fits", name, "--mapper", "usermappers:brighten", *words)
    assert result.exit_code == 0, result.output
    assert f"wrote {name}\ncells: 12 in 12 tiles, 0 failed" in result.output
    before, after = (mr.read_exposure(file).compute() for file in ("in.fits", name))
    np.testing.assert_array_equal(after.image, before.image + 1)
    assert after.psf.sigma(x=5, y=5) == 2.0
    assert (folder / "picture.png").stat().st_size > 1000
    again = skyfold("map", "in.fits", name, "--mapper", "usermappers:brighten")
    assert again.exit_code == 1
    assert f"{name} exists; overwrite" in again.output


def test_map_to_a_compressed_file(folder):
    result = skyfold("map", "in.fits", "out.fits.fz", "--mapper", "usermappers:brighten")
    assert result.exit_code == 0, result.output
    with fits.open("out.fits.fz") as hdus:
        assert hdus["IMAGE"].compression_type == "GZIP_2"
    before, after = (mr.read_exposure(name).compute() for name in ("in.fits", "out.fits.fz"))
    np.testing.assert_array_equal(after.image, before.image + 1)


def test_map_aligned(folder):
    mr.Exposure(np.full((60, 80), 7, "f4")).write("template.fits")
    result = skyfold(
        *("map", "in.fits", "out.fits", "--mapper", "usermappers:template_only"),
        *("--aligned", "template=template.fits"),
    )
    assert result.exit_code == 0, result.output
    assert np.all(mr.read_exposure("out.fits").compute().image == 7)


def test_failing_cells_are_masked_named_and_told_by_the_exit_code(folder):
    words = ("--mapper", "usermappers:fail_on_the_left", "--cell", 40, "--border", 0)
    result = skyfold("map", "in.fits", "out.fits", *words)
    assert result.exit_code == 1
    assert "ArithmeticError: too far left; in cell" in result.output
    assert not (folder / "out.fits").exists()
    result = skyfold("map", "in.fits", "out.fits", *words, "--on-error", "mask")
    assert result.exit_code == 3
    assert "too far left" in result.output
    image = mr.read_exposure("out.fits").compute().image
    assert np.isnan(image[:, :40]).all()
    assert np.isfinite(image[:, 40:]).all()


def test_interrupt(folder):
    result = skyfold("map", "in.fits", "out.fits", "--mapper", "usermappers:interrupted")
    assert result.exit_code == 130
    assert "nothing was written" in result.output
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "in.fits",
        "usermappers.py",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("map nope.fits out.fits --mapper median", 1, "there is no file nope.fits"),
        ("map in.fits in.fits --mapper median", 1, "in.fits exists; overwrite"),
        ("map in.fits nofolder/out.fits --mapper median", 1, "no folder"),
        ("map in.fits out.xyz --mapper median", 1, "suffix of out.xyz"),
        ("map in.fits out.fits --mapper nope", 1, "no mapper 'nope'"),
        ("map in.fits out.fits --mapper usermappers:nope", 1, "no 'nope' in usermappers"),
        ("map in.fits out.fits --mapper median --set sizo=3", 1, "sizo"),
        ("map in.fits out.fits --mapper median --cell -3", 1, "cell_size must be"),
        ("map in.fits out.fits --mapper median --cell axb", 2, "neither a number nor"),
        ("map in.fits out.fits --mapper median --set size", 2, "is not KEY=VALUE"),
        ("map in.fits out.fits --mapper median --tile 1.5", 1, "whole pixels"),
        ("map in.fits out.fits --mapper median --reducer none", 2, "'none' is not one of"),
        ("map in.fits out.fits --mapper median --scheduler nope", 1, "scheduler is 'nope'"),
        ("map in.fits out.fits --mapper median --reducer copy --variance mean", 1, "no choice"),
        ("map in.fits out.fits --mapper median --format fits --option image=NOPE", 1, "NOPE"),
        ("map in.fits out.fits", 2, "Missing option '--mapper'"),
        ("grid usermappers.py", 1, "not a FITS file"),
        ("simulate in.fits", 1, "in.fits exists"),
        ("simulate out.fits --size 0", 1, "size must be above zero"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, words, code, message):
    result = skyfold(*words.split())
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert code == 2 or result.output.strip().splitlines()[-1].startswith("Error: ")
    assert not (folder / "out.fits").exists()


def test_traceback_on_request(folder):
    result = skyfold("--traceback", "map", "nope.fits", "out.fits", "--mapper", "median")
    assert isinstance(result.exception, FileNotFoundError)


def test_grid(folder):
    result = skyfold("grid", "in.fits", "--cell", 20, "--plot", "grid.png")
    assert result.exit_code == 0, result.output
    assert "12 cells, 20 to 20 pixels wide and 20 to 20 high" in result.output
    assert (folder / "grid.png").stat().st_size > 1000
    assert "4 cells" in skyfold("grid", "in.fits", "--cell", 10, "--fwhm").output


def test_simulate(folder):
    result = skyfold("simulate", "sky.fits", "--size", "120x80", "--seed", 4, "--truth", "t.ecsv")
    assert result.exit_code == 0, result.output
    assert mr.read_exposure("sky.fits").shape == (80, 120)
    assert (folder / "t.ecsv").exists()
    assert skyfold("simulate", "sky.fits", "--size", 50, "--overwrite").exit_code == 0


@pytest.mark.slow
def test_a_cluster_runs_mappers_that_only_the_user_has(folder, cluster):
    result = skyfold(
        *("map", "in.fits", "out.fits", "--mapper", "usermappers:brighten"),
        *("--cell", 32, "--scheduler", cluster.scheduler_address),
    )
    assert result.exit_code == 0, result.output
    before, after = (mr.read_exposure(name).compute() for name in ("in.fits", "out.fits"))
    np.testing.assert_array_equal(after.image, before.image + 1)


def test_no_scheduler_at_the_address(folder, monkeypatch):
    monkeypatch.setattr("mapreduce.cli.CONNECT_TIMEOUT", "200ms")
    words = ("--mapper", "median", "--scheduler", "tcp://127.0.0.1:9")
    result = skyfold("map", "in.fits", "out.fits", *words)
    assert result.exit_code == 1
    assert "no dask scheduler answers at tcp://127.0.0.1:9" in result.output
