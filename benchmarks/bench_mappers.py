"""What does the engine add, where the mapper costs something?

Compares the time of a run with the time that its mapper took in the same run, shared among the
cores. A stopwatch right around the mapper takes that; our own report of a run plays no part. The
bare loop shows how far one could get: it cuts, maps and writes, and does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster

import mapreduce as mr
from mapreduce.mappers.filters import gaussian_filter, median_filter

from .costly import Spent, Stopwatch, despike, fft_gaussian, take_spent
from .helpers import (
    Planes,
    Verdict,
    add_repeat,
    alone,
    check_equal,
    conclude,
    environment,
    make_parser,
    make_planes,
    table,
    timed,
)

__all__ = ["main"]

MINUTES = 2
SMOKE = ["--size", "256", "--repeat", "1"]

GRID = mr.GridConfig(256, border=32)
#: Mappers, and on how much of an image's side they run, so that none takes more than seconds.
MAPPERS = {
    "gaussian": (partial(gaussian_filter, sigma=3.0), 1.0),
    "FFT filter": (fft_gaussian, 1.0),
    "median 5 x 5": (partial(median_filter, size=5), 0.5),
}
LIMIT = 1.08
LOOP = mr.array_mapper(despike)  # in plain Python, which holds the GIL
LOOP_LIMIT = 1.35
WORKERS = 2

_QUICK = 2.0  # seconds


class Contestant(NamedTuple):
    """A way to run a mapper: what runs it, and what reads the stopwatches after it."""

    run: Callable[[], Planes]
    spent: Callable[[], Spent]
    cores: int


class Run(NamedTuple):
    """Seconds that a run took, and its mapper per core: as the clock goes, and of CPU."""

    wall: float
    own: float
    cpu: float


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    report["runs"], report["verdicts"] = {}, []
    for name, (mapper, part) in MAPPERS.items():
        exposure = mr.Exposure(*make_planes(int(options.size * part)))
        runs = measure(on_threads(exposure, mapper), exposure, mapper, options.repeat)
        _print(name, exposure, runs)
        report["runs"][name] = runs
        wall = {who: median(run.wall for run in own) for who, own in runs.items()}
        least = (
            f"the bare loop takes {share(runs['bare loop']):.3g}; "
            f"of the clock it takes {wall['bare loop']:.3f} s, we {wall['skyfold']:.3f} s"
        )
        report["verdicts"].append(verdict(f"{name} on threads", runs["skyfold"], LIMIT, least))
    exposure = mr.Exposure(*make_planes(options.size // 2))
    with on_processes(exposure, LOOP) as processes:
        contestants = {"skyfold": on_threads(exposure, LOOP)["skyfold"], **processes}
        runs = measure(contestants, exposure, LOOP, options.repeat)
    name = "Python loop"
    _print(f"{name} (holds the GIL)", exposure, runs)
    report["runs"][name] = runs
    what = f"{name} on {WORKERS} processes"
    report["verdicts"].append(verdict(what, runs["skyfold, processes"], LOOP_LIMIT))
    return conclude(report, options.json)


# The ways to run a mapper


def on_threads(exposure: mr.Exposure, mapper: Callable) -> dict[str, Contestant]:
    """Return ours and the bare loop, on as many threads as there are cores."""
    watched = Stopwatch(mapper)
    return {
        "skyfold": Contestant(
            partial(skyfold, exposure, watched, scheduler="threads"), take_spent, CPU_COUNT
        ),
        "bare loop": Contestant(partial(bare, exposure, watched), take_spent, CPU_COUNT),
    }


@contextmanager
def on_processes(exposure: mr.Exposure, mapper: Callable) -> Iterator[dict[str, Contestant]]:
    """Give ours on worker processes of one thread each, which read an uncompressed FITS file."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, direct_to_workers=True) as client,
    ):
        path = Path(folder) / "exposure.fits"
        mr.write_exposure(exposure, path)

        def spent() -> Spent:
            return Spent(*map(sum, zip(*client.run(take_spent).values(), strict=True)))

        def run() -> Planes:
            return skyfold(mr.read_exposure(path), Stopwatch(mapper), scheduler=client)

        yield {"skyfold, processes": Contestant(run, spent, WORKERS)}


def skyfold(exposure: mr.Exposure, mapper: Callable, scheduler: Any) -> Planes:
    """Our engine."""
    result = mr.map_reduce(exposure, mapper, grid=GRID).compute(scheduler=scheduler)
    return Planes(**result.planes)


def bare(exposure: mr.Exposure, mapper: Callable, threads: int = CPU_COUNT) -> Planes:
    """Cut, map and write on threads; no rules, no report."""
    out = Planes(*(np.empty_like(plane) for plane in exposure.planes.values()))

    def work(cell: mr.Cell) -> None:
        sub, expanded = exposure.cutout(cell.core), exposure.cutout(cell.expanded)
        result = mapper(sub, expanded, exposure.bbox)
        for plane, values in zip(out, result.planes.values(), strict=True):
            plane[cell.core.slices(exposure.bbox)] = values

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, GRID.build(exposure)))
    return out


# Timing


def measure(
    contestants: Mapping[str, Contestant],
    exposure: mr.Exposure,
    mapper: Callable,
    repeat: int | None,
) -> dict[str, list[Run]]:
    """Check that all agree with a serial loop, and time them in turns.

    As often as `race` does, and like there a timed run follows on an untimed one of the same
    contestant; not so where a run takes seconds, in which cold memory does not count.
    """
    cells = len(GRID.build(exposure))
    expected = bare(exposure, mapper, threads=1)
    quick = {}
    for name, contestant in contestants.items():
        seconds, result = timed(contestant.run)
        check_equal(expected, name, result)
        quick[name] = seconds < _QUICK
    rounds = {name: repeat or (9 if quick[name] else 5) for name in contestants}
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    while left := [name for name in contestants if len(runs[name]) < rounds[name]]:
        for name in left:
            if quick[name]:
                contestants[name].run()
            runs[name].append(timed_run(name, contestants[name], cells))
    return runs


def timed_run(name: str, contestant: Contestant, cells: int) -> Run:
    """Time a run, and read the stopwatches."""
    contestant.spent()
    wall, _ = timed(contestant.run)
    calls, own, cpu = contestant.spent()
    if calls != cells:
        raise RuntimeError(f"{name} called the mapper {calls} times for {cells} cells")
    return Run(wall, own / contestant.cores, cpu / contestant.cores)


def share(runs: Sequence[Run]) -> float:
    """Return the median of the ratios within each run."""
    return median(run.wall / run.own for run in runs)


def verdict(what: str, runs: Sequence[Run], limit: float, reason: str = "") -> Verdict:
    """Judge a contestant's runs."""
    what = f"{what}: wall / mapper's own time per core"
    return Verdict(what, share(runs), "<=", limit, reason=reason)


def rows(runs: Mapping[str, Sequence[Run]]) -> list[tuple]:
    """Return a row a contestant: medians over its runs."""
    return [
        (
            name,
            len(own),
            *(f"{median(times):.3f} s" for times in zip(*own, strict=True)),
            f"{share(own):.3f}",
            f"{median(run.wall / run.cpu for run in own):.3f}",
        )
        for name, own in runs.items()
    ]


def _print(name: str, exposure: mr.Exposure, runs: Mapping[str, Sequence[Run]]) -> None:
    height, width = exposure.shape
    cells = f"cells {GRID.cell_size[0]:g}/{GRID.border[0]:g}"
    print(f"\n{name}: {width} x {height}, {cells}\nAll agree exactly with a serial loop.")
    header = ("contestant", "runs", "wall", "own", "CPU", "wall / own", "wall / CPU")
    print(table(header, rows(runs)), flush=True)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_mappers", __doc__)
    parser.add_argument(
        "--size",
        type=int,
        default=4096,
        help="pixels along an axis; half of it for slow mappers (%(default)s)",
    )
    add_repeat(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    alone(main)
