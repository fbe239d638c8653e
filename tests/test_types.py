"""What mypy tells users of the package: nothing where they use it rightly, the line where not."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import CHECKOUT

pytestmark = pytest.mark.slow

RIGHT = '''
"""A night of a user."""

from pathlib import Path
from typing import Any

import numpy as np

import mapreduce as mr


def brighten(
    sub: mr.Exposure, expanded: mr.Exposure, full_bbox: mr.Box, *, by: float
) -> mr.Exposure:
    return sub.replace(image=sub.image + by)


def brightest(sub: mr.Exposure, expanded: mr.Exposure, full_bbox: mr.Box) -> float:
    return float(np.max(sub.image))


def smooth(image: np.ndarray) -> np.ndarray:
    return image


class Maximum(mr.PixelReducer):
    """Keep the highest value."""

    name = "maximum"

    def begin(self, image: np.ndarray, variance: np.ndarray | None) -> np.ndarray:
        image[...] = np.nan
        return image

    def fold(self, state: np.ndarray, where: tuple[slice, slice], patch: mr.Patch) -> None:
        np.fmax(state[where], patch.image, out=state[where])

    def finish(self, state: np.ndarray) -> None:
        pass


class Mean(mr.Collector):
    """The mean of what the cells say."""

    name = "mean"

    def collect(self, results: list[mr.CellResult]) -> float:
        return float(np.mean([result.value for result in results]))


class Disk:
    """Pixels that are read by block."""

    shape = 100, 100
    dtype = np.dtype("f4")

    def __getitem__(self, slices: tuple[slice, slice]) -> np.ndarray:
        return np.zeros(self.shape, self.dtype)[slices]


exposure = mr.read_exposure(Path("night.fits"), chunks=(512, 512))
planes = mr.Exposure(Disk(), np.ones((100, 100)), origin=(10, 20), meta={"BUNIT": "adu"})
simulated, truth = mr.simulate_exposure(512, psf=mr.GaussianPsf(2.0))
width: int = exposure.bbox.width
computed: mr.Exposure = exposure.cutout(mr.Box(0, 0, 100, 100)).compute()
if computed.variance is not None:
    noise = np.sqrt(computed.variance)
half = 0.5 * computed - np.ones(computed.shape)

config = mr.GridConfig(cell_size=(256, 128), border=16.5, adjust="spacing", centroids=[(1.0, 2)])
grid: mr.Grid = config.build(exposure)
first: mr.Cell = grid[0]
cores: list[mr.Box] = [cell.core for cell in grid[1:]]
parts: dict[int, mr.Exposure] = mr.split(exposure, mr.GridConfig(100))

result = mr.map_reduce(exposure, brighten, grid=config, mapper_kwargs={"by": 3})
mr.map_reduce(exposure, brighten, grid=grid, reducer=Maximum(), aligned={"other": planes})
mr.map_reduce(exposure, mr.array_mapper(smooth), reducer="feather", tile=(512, 256), seed=1)
mr.map_reduce(exposure, lambda sub, expanded, box: sub * 2.0, on_error="mask")
mean: Any = mr.map_reduce(exposure, brightest, reducer=Mean()).compute()
report: mr.Report | None = mr.write_exposure(result, "flat.fits", overwrite=True)
result.write("flat.zarr", chunks=512)
result.psf = mr.GaussianPsf(2.0)
print(mr.__version__)
'''

WRONG = """
import numpy as np

import mapreduce as mr


def brighten(sub: mr.Exposure, expanded: mr.Exposure, full_bbox: mr.Box) -> mr.Exposure:
    return sub


def of_two(sub: mr.Exposure, expanded: mr.Exposure) -> mr.Exposure:
    return sub


exposure = mr.Exposure(np.zeros((100, 100)))

mr.GridConfig("256")  # wrong
mr.GridConfig(adjust="stretch")  # wrong
mr.GridConfig(border=(1, 2, 3))  # wrong
mr.GridConfig(256, overlap=3)  # wrong
mr.Exposure("image")  # wrong
mr.Exposure(np.zeros((2, 2)), psf=2.0)  # wrong
mr.Box(0, 0, 1.5, 2)  # wrong
mr.GaussianPsf("2")  # wrong
mr.map_reduce(exposure, "brighten")  # wrong
mr.map_reduce(exposure, brighten, reducer=3)  # wrong
mr.map_reduce(exposure, brighten, grid=256)  # wrong
mr.map_reduce(exposure, brighten, tile="512")  # wrong
mr.map_reduce(exposure, brighten, aligned={"other": np.zeros((100, 100))})  # wrong
mr.map_reduce(np.zeros((100, 100)), brighten)  # wrong
mr.map_reduce(exposure, of_two)  # wrong
mr.map_reduce(exposure, brighten, on_error="ignore")  # wrong
mr.write_exposure(mr.map_reduce(exposure, brighten, reducer="none"), "a.fits")  # wrong
mr.array_mapper(3)  # wrong
mr.write_exposure("out.fits", exposure)  # wrong
exposure.imgae  # wrong
exposure.compute().pixels  # wrong
exposure.cutout((0, 0, 10, 10))  # wrong
exposure.variance + 1  # wrong
mr.GridConfig().build(exposure)[0].box  # wrong
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Return what mypy, as strict as with us, says of two files of users: (file, line) to texts."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("users")
    for name, text in {"right.py": RIGHT, "wrong.py": WRONG}.items():
        (folder / name).write_text(text)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(CHECKOUT / "pyproject.toml"),
         "--cache-dir", str(CHECKOUT / ".mypy_cache"),
         "right.py", "wrong.py"],
        cwd=folder, env={**os.environ, "MYPYPATH": str(CHECKOUT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = {}
    for name, line, text in re.findall(r"^(\w+\.py):(\d+): error: (.*)$", run.stdout, re.M):
        found.setdefault((name, int(line)), []).append(text)
    return found


def test_right_use_has_no_errors(errors):
    assert {place: texts for place, texts in errors.items() if place[0] == "right.py"} == {}


def test_every_wrong_line_is_found(errors):
    lines = dict(enumerate(WRONG.split("\n"), 1))
    wanted = {line: text for line, text in lines.items() if text.endswith("# wrong")}
    found = {line for name, line in errors if name == "wrong.py"}
    assert {lines[line] for line in found ^ wanted.keys()} == set()
