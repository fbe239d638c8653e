"""How much memory does a run need, where the exposure does not fit into it?

Adds a constant to every cell of an exposure in three planes: streamed from a file to a file on
threads and on two worker processes, and in memory. Every case runs in a process of its own, whose
highest resident memory is the answer; on a cluster, that of the workers.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import mapreduce as mr

from .contestants import add_constant
from .helpers import (
    Verdict,
    alone,
    conclude,
    count,
    environment,
    in_process,
    make_parser,
    make_planes,
    table,
)
from .peers import CONSTANT

__all__ = ["main"]

MINUTES = 4
SMOKE = ["--size", "300", "--case", "memory", "--case", "zarr-fits-threads"]

GRID = mr.GridConfig(256, border=32)
LIMIT = 1000  # MB, of a process that streams
EXTRA = 300  # MB, of a process beyond the planes that go in and come out
BYTES = 12  # of a pixel: image float32, variance float32, mask int32
WORKERS = 2
_TILE = 1024  # of the same pixels again and again, of which the input is made


class Case(NamedTuple):
    """Where the exposure comes from, where the result goes, and what works on it."""

    source: str
    target: str
    on: str

    def __str__(self) -> str:
        return "memory" if self.source == "memory" else "-".join(self)


CASES = {
    str(case): case
    for case in [
        Case("memory", "memory", "threads"),
        *(Case(s, t, "threads") for s in ("zarr", "fits") for t in ("zarr", "fits")),
        Case("zarr", "zarr", "cluster"),
        Case("fits", "fits", "cluster"),
    ]
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    planes = BYTES * options.size**2 / 1e6
    print(f"{options.size} x {options.size} pixels in three planes: {planes:.0f} MB")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        make_inputs({CASES[name].source for name in options.case}, options.size, Path(folder))
        idle = in_process("bench_memory", "nothing", options.size, folder)
        report["runs"] = {
            name: in_process("bench_memory", name, options.size, folder) for name in options.case
        }
    rows = [("nothing: imports only", "", *_facts(idle))]
    rows += [(name, CASES[name].on, *_facts(run)) for name, run in report["runs"].items()]
    print(table(("source and target", "on", "peak", "time"), rows))
    report["idle"] = idle
    report["verdicts"] = [
        Verdict(
            f"peak memory, {name}, {options.size}²" + " a worker" * (CASES[name].on == "cluster"),
            run["peak"],
            "<=",
            2 * planes + EXTRA if name == "memory" else LIMIT,
            "MB",
        )
        for name, run in report["runs"].items()
    ]
    return conclude(report, options.json)


def _facts(run: dict[str, float]) -> tuple[str, str]:
    return f"{run['peak']:.0f} MB", f"{run['seconds']:.1f} s"


def make_inputs(kinds: set[str], size: int, folder: Path) -> None:
    """Write the files that the cases need, streaming."""
    pattern = make_planes(_TILE)
    times = -(-size // _TILE)
    planes = (da.tile(da.from_array(p, name=False), (times, times))[:size, :size] for p in pattern)
    exposure = mr.Exposure(*planes)
    for kind in kinds & {"zarr", "fits"}:
        _write(exposure, kind, folder / f"input.{kind}")


def _write(exposure: mr.Exposure, kind: str, path: Path) -> None:
    options = {"compression": None} if kind == "fits" else {}
    mr.write_exposure(exposure, path, format=kind, **options)


def measure(name: str, size: int, folder: str) -> None:
    """Run a case here; print its seconds, and the peak of memory in MB."""
    start = time.perf_counter()
    case = CASES.get(name)
    if case is None:
        peak = peak_memory()
    elif case.source == "memory":
        peak = run_in_memory(size)
    elif case.on == "threads":
        stream(case, Path(folder))
        peak = peak_memory()
    else:
        with LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None) as cluster:
            with Client(cluster) as client:
                stream(case, Path(folder))
                peak = max(client.run(peak_memory).values())
    print(json.dumps({"peak": peak, "seconds": time.perf_counter() - start}))


def run_in_memory(size: int) -> float:
    """Fill planes without temporaries, run, and check the result; return the peak in between."""
    pattern = make_planes(_TILE)
    planes = [np.empty((size, size), plane.dtype) for plane in pattern]
    for plane, part in zip(planes, pattern, strict=True):
        for y in range(0, size, _TILE):
            for x in range(0, size, _TILE):
                block = plane[y : y + _TILE, x : x + _TILE]
                block[...] = part[: block.shape[0], : block.shape[1]]
    exposure = mr.Exposure(*planes)
    result = mr.map_reduce(exposure, add_constant, grid=GRID).compute(scheduler="threads")
    peak = peak_memory()
    check(exposure, result)
    return peak


def stream(case: Case, folder: Path) -> None:
    """Run from a file to a file, and check the result."""
    source = folder / f"input.{case.source}"
    target = folder / f"{case}.{case.target}"
    exposure = mr.read_exposure(source, format=_format(case.source))
    _write(mr.map_reduce(exposure, add_constant, grid=GRID), case.target, target)
    check(exposure, mr.read_exposure(target, format=_format(case.target)))
    shutil.rmtree(target) if target.is_dir() else target.unlink()


def _format(kind: str) -> str:
    return "lsst" if kind == "fits" else kind


def check(exposure: mr.Exposure, result: mr.Exposure) -> None:
    """Compare where tiles and cells meet, in a corner and in the middle."""
    size = exposure.bbox.width
    for start in (0, size // 2, max(0, size - 300)):
        box = mr.Box(start, start, min(300, size - start), min(300, size - start))
        before, after = exposure.cutout(box).compute(), result.cutout(box).compute()
        if not (
            np.array_equal(after.image, before.image + CONSTANT)
            and np.array_equal(after.variance, before.variance)
            and np.array_equal(after.mask, before.mask)
        ):
            raise RuntimeError(f"the result differs from what it must be in {box}")


def peak_memory() -> float:
    """Return the highest resident memory of this process so far, in MB.

    Linux's ru_maxrss begins with that of the process that started this one, so it is asked in
    another way where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_memory", __doc__)
    parser.add_argument(
        "--size", type=count, default=16384, help="pixels along an axis (%(default)s)"
    )
    parser.add_argument(
        "--case", action="append", choices=CASES, help="run only this; can be repeated"
    )
    parser.add_argument(
        "--folder", type=Path, help="where it makes its files, 36 bytes a pixel, and removes them"
    )
    options = parser.parse_args(argv)
    options.case = options.case or list(CASES)
    return options


if __name__ == "__main__":
    alone(main)
