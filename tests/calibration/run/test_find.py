"""The names and layouts of a run's catalogs."""

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from calibration import FgcmRun
from calibration.run.find import find_catalogs
from calibration.run.observations import StarObservations
from calibration.tables.files import write_table
from tests.calibration.fgcm_cases import FILES, RUN, tables
from tests.calibration.products_cases import small_run

FITTED = ("zeropoints", "atmosphere_parameters", "standard_stars")


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("name", "cycle"),
    [
        ("fgcmZeropoints.fits", None),
        ("fgcmZeropoints.FITS", None),
        ("fgcmzeropoints.Parquet", None),
        ("fgcmZeropoints.pq", None),
        ("fgcmZeropoints.fits.fz", None),
        ("fgcmZeropoints7.fits", 7),
        ("fgcmZeropoints-07.fits", 7),
        ("fgcmZeropoints_cycle07.fits.gz", 7),
        ("fgcm_Cycle7_Zeropoints_LSSTCam_u_someone_20240101.parq", 7),
        ("fgcmZeropoints_LSSTCam_20240101.fits", None),
        ("DES_cycle07_zpt.fits", 7),
        ("DES_cycle07_zpt.PQ", 7),
        ("fgcmZeropoints.parquet/part-0.parquet", None),
        ("fgcmZeropoints/visit=3/part-0.PARQUET", None),
        ("fgcm_Cycle7_Zeropoints/part-0.fits", 7),
    ],
)
def test_names(name, cycle, tmp_path):
    touch(tmp_path, name, "fgcmZeropoints_notes.txt", "fgcmZeropoints_empty/readme.md")
    expected = {"zeropoints": tmp_path / Path(name).parts[0]}
    assert find_catalogs(tmp_path, ["zeropoints"]) == expected
    if cycle is not None:
        assert find_catalogs(tmp_path, ["zeropoints"], cycle) == expected
        assert find_catalogs(tmp_path, ["zeropoints"], cycle + 1) == {}


@pytest.mark.parametrize("plain", ["fgcmZeropoints.fits", "fgcmStandardStars.parquet"])
@pytest.mark.parametrize("numbered", ["fgcm_Cycle4_Zeropoints.fits", "base_cycle04_zpt.fits"])
def test_plain_files_and_those_of_a_cycle_are_not_mixed(plain, numbered, tmp_path):
    touch(tmp_path, plain, numbered)
    message = (
        rf"has {plain}, which say no fit cycle, .* cycle 4, such as {numbered}; .* cycle=4, or"
    )
    with pytest.raises(ValueError, match=message):
        find_catalogs(tmp_path, FITTED)
    assert find_catalogs(tmp_path, FITTED, 4) == {"zeropoints": tmp_path / numbered}
    assert find_catalogs(tmp_path, ["visits"]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".fits", ".parquet"])
def test_a_run_of_parts_is_that_of_whole_files(suffix, tmp_path):
    """Cut where it falls, also through the rows of a visit."""
    parts = tables()
    for name in ("visits", *FITTED):
        folder = tmp_path / f"{FILES[name]}{suffix}"
        folder.mkdir()
        step = len(parts[name]) * 3 // 8
        for number, first in enumerate(range(0, len(parts[name]), step)):
            write_table(folder / f"part.{number}{suffix}", parts[name][first : first + step])
    given = {"camera": RUN / "camera.ecsv", "lookup_table": RUN / "fgcmLookUpTable.fits.gz"}
    run, whole = FgcmRun.open(tmp_path, **given), small_run()
    assert run.bands == whole.bands
    assert len(run.standard_stars) == len(whole.standard_stars)
    for visits in ([60600004], whole.visit_ids[::-1].tolist()):
        for rows in ("zeropoint_rows", "atmosphere_rows", "visit_rows"):
            found, expected = (getattr(r, rows)(visits) for r in (run, whole))
            for column, values in expected.items():
                np.testing.assert_array_equal(found[column], values)
    assert run.fingerprints()["zeropoints"].startswith("sha256:")
    listed = sorted((tmp_path / f"{FILES['zeropoints']}{suffix}").iterdir())
    again = FgcmRun.open(tmp_path, zeropoints=listed, **given)
    assert len(again.zeropoints) == len(whole.zeropoints)


def test_observations_of_parts(tmp_path):
    for star in (1, 2):
        place = tmp_path / "fgcmStarObservations" / f"visit={star + 6}"
        place.mkdir(parents=True)
        columns = dict.fromkeys(
            ("detector", "x", "y", "fgcm_id", "instFlux", "instFluxErr"), [star]
        )
        write_table(place / "part-0.parquet", Table(columns))
    for place in (tmp_path, tmp_path / "fgcmStarObservations"):
        (first, second) = StarObservations.open(place).blocks()
        assert (first.visit.tolist(), second.visit.tolist()) == ([7], [8])
