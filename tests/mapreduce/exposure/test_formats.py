import os
import subprocess
import sys

import numpy as np
import pytest

from mapreduce import Exposure, read_exposure, write_exposure
from mapreduce.exposure.formats import FORMATS, Format
from tests.conftest import CHECKOUT


@pytest.fixture
def text(monkeypatch):
    """Add a format: lines of numbers."""

    def read(path, *, dtype="f8"):
        return Exposure(np.loadtxt(path, dtype, ndmin=2))

    def write(exposure, path, *, overwrite=False, digits=6):
        np.savetxt(path, exposure.image, f"%.{digits}g")

    def recognizes(path):
        return os.fspath(path).endswith(".txt")

    monkeypatch.setitem(FORMATS, "text", Format(read, write, recognizes, (".txt",)))


def test_a_format_of_ones_own(text, tmp_path):
    path = tmp_path / "a.txt"
    Exposure(np.full((1, 2), np.pi)).write(path, digits=3)
    assert path.read_text() == "3.14 3.14\n"
    assert read_exposure(path, format="text", dtype="f4").image.dtype == "f4"
    assert read_exposure(path).shape == (1, 2)  # though FITS stands before it, and refuses it
    with pytest.raises(TypeError, match="no option 'tile' for writing .* as 'text'; there are"):
        write_exposure(Exposure(np.ones((1, 2))), path, tile=5)
    with pytest.raises(ValueError, match="cannot write the format 'lsst'; choose among zarr, fits"):
        write_exposure(Exposure(np.ones((1, 2))), path, format="lsst")


def test_objects_of_other_packages_are_no_files(tmp_path):
    with pytest.raises(ValueError, match="cannot write the format 'ccddata'; choose among zarr"):
        Exposure(np.ones((1, 2))).write(tmp_path / "a", format="ccddata")


@pytest.mark.slow
def test_all_formats_are_known_at_once_and_their_packages_left_alone():
    code = (
        "import sys, mapreduce.exposure.exposure; from mapreduce.exposure.formats import FORMATS;"
        "print(*FORMATS, 'zarr' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [*"zarr lsst decam fits ccddata".split(), "False", "False"]
