"""The command `skyfold products`, and `skyfold simulate-run`, whose run it reads."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from calibration.cli import main
from calibration.products.build import make_photo_calib
from calibration.run.run import FgcmRun
from tests.calibration.fgcm_cases import RUN, tables, write
from tests.calibration.products_cases import NO_ZEROPOINT, TABLE, VISIT, VISITS, files, read, stamps

WORDS = ("--set", "tract_stars=no")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with a run in it, and the atmosphere table that the run names."""
    shutil.copytree(RUN, tmp_path / "run")
    shutil.copy(TABLE, tmp_path / "run" / "fgcm_atm_lsst2_test.fits.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def skyfold(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def products(*words):
    return skyfold("products", "run", "out", *WORDS, *words)


def test_summary(folder):
    result = products()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "products in out",
        "photo_calibs: 4 written, 0 there before, 1 skipped, 0 failed",
        "atmospheres: 5 written, 0 there before, 0 skipped, 0 failed",
    ]
    assert lines[3].startswith(
        "skipped: photo_calibs 60601017: visit 60601017: none of its 8 zeropoints can be used"
    )
    assert len(lines) == 4
    assert len(files(folder / "out")) == 10


@pytest.mark.slow
def test_running_again_and_deleting_one(folder):
    products()
    before = stamps("out")
    result = products()
    assert result.exit_code == 0
    assert "photo_calibs: 0 written, 4 there before, 1 skipped, 0 failed" in result.stdout
    assert stamps("out") == before
    (folder / "out" / "atmospheres" / f"{VISIT}.fits").unlink()
    assert "atmospheres: 1 written, 4 there before" in products().stdout
    assert sum(stamps("out")[name] != before[name] for name in before) == 1


def test_some_visits(folder):
    result = products("--visit", VISIT, "--visit", NO_ZEROPOINT, "--visit", VISIT)
    assert result.exit_code == 0
    assert "photo_calibs: 1 written, 0 there before, 1 skipped" in result.stdout
    assert len(files("out")) == 4


@pytest.mark.slow
def test_progress_goes_to_stderr(folder):
    result = products("--visit", VISIT, "--progress")
    assert "visits" in result.stderr
    assert "visits" not in result.stdout
    assert products("--visit", VISIT, "--no-progress").stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "output_format: parquet\nzeropoint_output: false\n"),
        ("c.toml", 'output_format = "parquet"\nzeropoint_output = false\n'),
    ],
)
def test_configuration_files(folder, name, text):
    (folder / name).write_text(text)
    result = products("--config", name)
    assert result.exit_code == 0, result.output
    assert "photo_calibs" not in result.stdout
    assert set(files("out")) == {
        "provenance.json",
        *(f"atmospheres/{visit}.parquet" for visit in VISITS),
    }
    result = skyfold("products", "run", "two", "--config", name, *WORDS, "--set", "seed=3")
    assert b'"seed": 3' in files("two")["provenance.json"]
    result = products("--config", name, "--set", "output_format=fits")
    assert result.exit_code == 1
    assert "made otherwise (config.output_format differ)" in result.output
    again = products("--config", name, "--set", "output_format=fits", "--overwrite")
    assert again.exit_code == 0
    assert set(files("out")) == {
        "provenance.json",
        *(f"atmospheres/{visit}.fits" for visit in VISITS),
    }


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["synchronous", "cluster"])
def test_schedulers(folder, scheduler, cluster):
    products()
    expected = files("out")
    where = cluster.scheduler_address if scheduler == "cluster" else scheduler
    result = skyfold("products", "run", "other", *WORDS, "--scheduler", where)
    assert result.exit_code == 0, result.output
    assert files("other") == expected


@pytest.mark.slow
def test_failures_are_named_and_told_by_the_exit_code(folder):
    parts = tables()
    atmosphere, zeropoints = parts["atmosphere_parameters"], parts["zeropoints"]
    atmosphere["pwv"][atmosphere["visit"] == VISIT] = np.nan
    zeropoints["detector"][0] = zeropoints["detector"][1]
    names = ("atmosphere_parameters", "zeropoints")
    write(folder / "run", {name: parts[name] for name in names})
    result = products("--pictures", "pictures")
    assert result.exit_code == 3, result.output
    assert f"visits {VISITS[0]} have several rows of a detector" in result.stderr
    assert "photo_calibs: 3 written, 0 there before, 1 skipped, 1 failed" in result.stdout
    assert "atmospheres: 4 written, 0 there before, 0 skipped, 1 failed" in result.stdout
    assert f"failed: atmospheres {VISIT}: pwv is nan" in result.stdout
    assert f"failed: photo_calibs {VISITS[0]}: visit {VISITS[0]} of fgcmZeropoints" in result.stdout
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [
        "focal_plane.png",
        "transmissions.png",
    ]
    assert products().exit_code == 3
    assert products("--visit", VISITS[2]).exit_code == 0
    assert products("--visit", VISIT, "--pictures", "none").exit_code == 3
    assert list((folder / "none").iterdir()) == []


@pytest.mark.slow
def test_a_visit_with_nothing_but_nan_is_a_failure(folder):
    zeropoints = tables()["zeropoints"]
    zeropoints["fgcmZpt"][zeropoints["visit"] == VISIT] = np.nan
    write(folder / "run", {"zeropoints": zeropoints})
    result = products()
    assert result.exit_code == 3
    assert "photo_calibs: 3 written, 0 there before, 1 skipped, 1 failed" in result.stdout


@pytest.mark.slow
def test_what_to_look_out_for_is_said(folder):
    zeropoints = tables()["zeropoints"]
    zeropoints["fgcmZptVar"][9] = np.nan
    write(folder / "run", {"zeropoints": zeropoints})
    result = products()
    assert result.exit_code == 0
    text = "no calibration of detector 1 (fgcmZptVar is not finite)"
    assert f"written: photo_calibs {VISIT}: visit {VISIT}: {text}" in result.stdout


@pytest.mark.slow
def test_interrupt(folder, monkeypatch):
    def interrupted(*args):
        if args[-1] == VISITS[2]:
            raise KeyboardInterrupt
        return make_photo_calib(*args)

    monkeypatch.setattr("calibration.products.build.make_photo_calib", interrupted)
    result = products("--scheduler", "synchronous")
    assert result.exit_code == 130
    assert result.stderr.endswith("interrupted; what is complete stays in out\n")
    assert "Traceback" not in result.output
    assert not [name for name in files("out") if name.endswith(".tmp")]
    done = len(files("out"))
    assert 1 < done < 10
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    result = products()
    assert result.exit_code == 0
    assert len(files("out")) == 10
    kept = [int(line.split()[3]) for line in result.stdout.splitlines()[1:3]]
    assert sum(kept) == done - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("products nope out", 1, "FileNotFoundError: there is no directory nope"),
        ("products . out", 1, "has no zeropoints: there is no fgcmZeropoints.fits"),
        ("products run a/b", 1, "cannot make a/b: there is no a"),
        ("products run run", 1, "run is not empty, and holds no products"),
        ("products run run/camera.ecsv", 1, "camera.ecsv is a file; products need a directory"),
        ("products run out --visit 5", 1, "KeyError: there are no visits [5] among the 5 of the"),
        ("products run out --visit x", 2, "'x' is not a valid integer"),
        ("products run out --set sed=5", 1, "there is no field sed; did you mean seed?"),
        ("products run out --set seed", 1, "'seed' is not of the form field=value"),
        (
            "products run out --set output_format=csv",
            1,
            "output_format is fits or parquet, got 'csv'",
        ),
        ("products run out --config nope.yaml", 1, "nope.yaml"),
        ("products run out --config run/camera.ecsv", 1, "a configuration ends in .yaml"),
        ("products run out --config c.yaml", 1, "c.yaml: there is no field sed"),
        ("products run out --scheduler nope", 1, "scheduler is 'nope'; choose from threads"),
        ("products run out --set atmosphere_table=nope", 1, "or do without: atmosphere_output=Fa"),
        ("products run out --set reference_calibration=yes", 1, "physical_filter_map lacks SIM-G"),
        ("products run", 2, "Missing argument 'OUT'"),
        ("simulate-run a/b", 1, "there is no a"),
        ("simulate-run new --visits 0", 1, "a run needs visits"),
        ("simulate-run run", 1, "run is not empty, and holds no tables of a simulated run"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, words, code, message):
    (folder / "c.yaml").write_text("sed: 5\n")
    words = words.split()
    options = ("--set", "tract_stars=no") if words[0] == "products" and len(words) > 2 else ()
    before = files(folder)
    result = skyfold(*words[:3], *options, *words[3:])
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert code == 2 or result.output.strip().splitlines()[-1].startswith("Error: ")
    assert files(folder) == before


def test_the_jacobian_of_the_stars(folder):
    zeropoints = tables()["zeropoints"]
    write(folder / "run", {"zeropoints": zeropoints})
    for said in (True, False):
        fits.setval("run/fgcmZeropoints.fits", "WCSJACOB", value=said, ext=1)
        fits.setval("run/fgcmZeropoints.fits", "TRACT", value=9813, ext=1)
        result = products("--set", f"compose_wcs_jacobian={not said}", "--visit", VISIT)
        if said:
            assert result.exit_code == 0
            text = "warning: the stars of tract 9813 were built with the WCS Jacobian"
            assert text in result.stderr
        else:
            assert result.exit_code == 1
            assert "tract 9813 were built without the WCS Jacobian" in result.stderr


def test_help():
    result = skyfold("products", "--help")
    assert result.exit_code == 0
    for word in ("RUN", "OUT", "--config", "--set", "--visit", "--scheduler", "--overwrite"):
        assert word in result.output
    assert "skyfold products fgcm_run out\n" in result.output
    result = skyfold("--help")
    assert "products" in result.output
    assert "simulate-run" in result.output
    assert "map" in result.output
    assert "3 done but cells or visits failed" in result.output


@pytest.mark.slow
def test_a_simulated_run(folder):
    result = skyfold("simulate-run", "sim", "--visits", 4, "--seed", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout == "wrote sim: 4 visits\n"
    result = skyfold("products", "sim", "out", *WORDS, "--set", "reference_calibration=no")
    assert result.exit_code == 0, result.output
    assert "atmospheres: 4 written, 0 there before, 0 skipped, 0 failed" in result.stdout
    visit = FgcmRun.open("sim").visit_ids[0]
    assert len(read("out", "photo_calibs", visit)) == 8


def test_traceback_on_request(folder):
    result = skyfold("--traceback", "products", "nope", "out")
    assert isinstance(result.exception, FileNotFoundError)
