"""What does the engine cost, where the mapper costs next to nothing?

Adds a constant to every cell of an image with variance and mask: with our engine, with an ideal
that does nothing else, with serial loops and with the tools that people reach for, side by side.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from statistics import median
from typing import Any

from dask.highlevelgraph import HighLevelGraph

import mapreduce as mr

from .contestants import PEERS, REDUCING, absent, lazy_skyfold
from .helpers import (
    Planes,
    Verdict,
    add_repeat,
    alone,
    check_equal,
    conclude,
    count,
    environment,
    facts,
    make_parser,
    make_planes,
    race,
    ratio,
    summary,
    table,
)
from .peers import lazy_map_overlap, stop_ray

__all__ = ["main"]

MINUTES = 4
SMOKE = ["--size", "128", "--repeat", "1", "--skip", "ray", "--skip", "daisy"]

OURS = "skyfold"
REDUCERS = ("average", "copy")
#: Core and border, and what must be reached there: times slower than the ideal at most, times
#: faster than the others at least.
LIMITS = {
    (256, 32): {"ideal": 1.6, "original": 4, "lean": 1, "map_overlap": 12},
    (64, 8): {"ideal": 1.4, "original": 3, "lean": 1, "map_overlap": 200},
}
GRAPH_LIMIT = 0.05  # of the run


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    planes = make_planes(options.size)
    functions = {**REDUCING, **PEERS}
    print(f"{options.size} x {options.size}: image float32, variance float32, mask int32")
    print(facts({name: _what(name, function) for name, function in functions.items()}))
    skip = {*options.skip, *absent()}
    try:
        warm_up(skip)
        report["runs"] = [time_runs(planes, *sizes, skip, options) for sizes in LIMITS]
    finally:
        stop_ray()
    report["graphs"] = [time_graphs(planes, *sizes, skip, options) for sizes in LIMITS]
    report["verdicts"] = verdicts(report["runs"], report["graphs"])
    return conclude(report, options.json)


def _what(name: str, function: Callable) -> str:
    first_line = function.__doc__.partition("\n")[0]
    return f"{first_line} ABSENT" if name in absent() else first_line


def contestants(planes: Planes, grid: mr.Grid, skip: set[str]) -> dict[str, Callable[[], Planes]]:
    """Return what is to be timed, by name; with the reducer where there is one."""
    reducing = {
        f"{name} {reducer}": partial(function, planes, grid, reducer)
        for name, function in REDUCING.items()
        if name not in skip
        for reducer in REDUCERS
    }
    peers = {name: partial(f, planes, grid) for name, f in PEERS.items() if name not in skip}
    return {**reducing, **peers}


def warm_up(skip: set[str]) -> None:
    """Run everything on a small image: imports, thread pools and processes are there afterwards."""
    planes = make_planes(128)
    grid = mr.GridConfig(64, border=8).build(_box(planes))
    for function in contestants(planes, grid, skip).values():
        function()


def time_runs(
    planes: Planes, cell: int, border: int, skip: set[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Check that the contestants agree, time them, and print a table."""
    grid = mr.GridConfig(cell, border=border).build(_box(planes))
    functions = contestants(planes, grid, skip)
    expected = functions[f"{OURS} average"]()
    seconds = race(
        functions,
        repeat=options.repeat,
        repeat_slow=options.repeat_slow,
        check=partial(check_equal, expected),
    )
    print(f"\ncells of {cell}, border {border}, partition: {len(grid)} cells")
    print(f"All {len(functions)} agree exactly in every pixel of image, variance and mask.")
    references = ["ideal", *(f"{OURS} {reducer}" for reducer in REDUCERS)]
    columns = [f"of {reference}" for reference in references]
    header = ("contestant", "runs", "median", "min", "max", *columns)
    print(table(header, summary(seconds, *references)), flush=True)
    bare = time_bare(len(grid), options)
    print(f"skyfold on as many cells of 2 x 2 pixels: {bare:.3f} s, all of it Python")
    return {"cell": cell, "border": border, "cells": len(grid), "seconds": seconds, "bare": bare}


def time_bare(cells: int, options: argparse.Namespace) -> float:
    """Return what we take for so many cells with next to no pixels: the median, in seconds."""
    planes = make_planes(2 * math.isqrt(cells))
    grid = mr.GridConfig(2, border=0).build(_box(planes))
    run = partial(REDUCING[OURS], planes, grid, "average")
    return median(race({OURS: run}, repeat=options.repeat)[OURS])


def verdicts(runs: Sequence[Mapping], graphs: Sequence[Mapping]) -> list[Verdict]:
    """Return what the runs and the graphs are judged by, as far as they were made."""
    found = []
    for run, graph in zip(runs, graphs, strict=True):
        where, seconds = f"cells {run['cell']}/{run['border']}", run["seconds"]
        limits = LIMITS[run["cell"], run["border"]]
        for reducer, (other, limit) in product(REDUCERS, limits.items()):
            ours = f"{OURS} {reducer}"
            theirs = f"{other} {reducer}" if other in REDUCING else other
            what = f"{where}, {reducer}:"
            if other == "ideal":
                times = ratio(seconds, ours, theirs)
                reason = (
                    f"{run['bare']:.3f} s of {median(seconds[ours]):.3f} s are Python, which runs "
                    f"on one thread at a time: as many cells of 2 x 2 pixels take that long"
                )
                found.append(Verdict(f"{what} ours / {other}", times, "<=", limit, reason=reason))
            elif theirs in seconds:
                times = ratio(seconds, theirs, ours)
                best = ratio(seconds, theirs, "ideal")
                reason = f"the ideal is {best:.2f} times faster than that"
                found.append(Verdict(f"{what} {other} / ours", times, ">=", limit, reason=reason))
        share = median(graph["ready"][OURS]) / median(seconds[f"{OURS} average"])
        found.append(Verdict(f"{where}: building the graph / run", share, "<=", GRAPH_LIMIT))
    return found


def time_graphs(
    planes: Planes, cell: int, border: int, skip: set[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Time how long the graphs take to build, count their tasks, and print a table.

    A graph is *built* when the call returns, and *ready* when the scheduler could start: optimized
    and written out, which map_overlap leaves for later.
    """
    grid = mr.GridConfig(cell, border=border).build(_box(planes))
    builders = {
        OURS: lambda: [lazy_skyfold(planes, grid, "average")],
        "map_overlap": lambda: lazy_map_overlap(planes, grid),
    }
    builders = {who: build for who, build in builders.items() if who not in skip}
    repeat = {"repeat": options.repeat or 5, "repeat_slow": options.repeat_slow}
    tasks: dict[str, int] = {}
    built = race(builders, **repeat)
    ready = race(
        {who: lambda build=build: ready_graph(build()) for who, build in builders.items()},
        check=lambda who, graph: tasks.update({who: len(graph)}),
        **repeat,
    )
    blocks = {OURS: _tiles(builders[OURS]()[0]), "map_overlap": len(grid)}
    print(f"\ngraph of {len(grid)} cells {cell}/{border}")
    header = ("contestant", "built", "ready", "tasks", "tiles or chunks", "tasks each")
    print(table(header, graph_rows(built, ready, tasks, blocks)), flush=True)
    return {"cells": len(grid), "tasks": tasks, "blocks": blocks, "built": built, "ready": ready}


def graph_rows(
    built: Mapping[str, Sequence[float]],
    ready: Mapping[str, Sequence[float]],
    tasks: Mapping[str, int],
    blocks: Mapping[str, int],
) -> list[tuple]:
    """Return a row a contestant, and one of the factors between map_overlap's and ours."""
    ms = {who: [1000 * median(times[who]) for times in (built, ready)] for who in built}
    rows = [
        (
            who,
            *(f"{time:.1f} ms" for time in times),
            tasks[who],
            blocks[who],
            f"{tasks[who] / blocks[who]:.1f}",
        )
        for who, times in ms.items()
    ]
    if "map_overlap" in ms:
        counts = ((values["map_overlap"], values[OURS]) for values in (tasks, blocks))
        pairs = [*zip(ms["map_overlap"], ms[OURS], strict=True), *counts]
        rows.append(("factor", *(f"{theirs / ours:.2f}" for theirs, ours in pairs), ""))
    return rows


def ready_graph(collections: Sequence[Any]) -> dict:
    """Return the tasks that a scheduler gets for collections of one type."""
    graph = HighLevelGraph.merge(*(c.__dask_graph__() for c in collections))
    keys = [c.__dask_keys__() for c in collections]
    return dict(collections[0].__dask_optimize__(graph, keys))


def _tiles(exposure: mr.Exposure) -> int:
    return sum(map(len, exposure.__dask_keys__()))


def _box(planes: Planes) -> mr.Box:
    height, width = planes.image.shape
    return mr.Box(0, 0, width, height)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_map_reduce", __doc__)
    others = [name for name in (*REDUCING, *PEERS) if name not in (OURS, "ideal")]
    parser.add_argument("--size", type=int, default=4096, help="pixels along an axis (%(default)s)")
    add_repeat(parser)
    parser.add_argument(
        "--repeat-slow",
        type=count,
        default=1,
        help="runs of those that take more than 5 s (%(default)s)",
    )
    parser.add_argument(
        "--skip", action="append", default=[], choices=others, help="leave out; can be repeated"
    )
    options = parser.parse_args(argv)
    if options.size < 128:
        parser.error(f"--size {options.size} is too small; 128 is the least")
    return options


if __name__ == "__main__":
    alone(main)
