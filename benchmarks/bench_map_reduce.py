"""What does the engine cost, where the mapper costs next to nothing?

Adds a constant to every cell of an image with variance and mask: with our engine, with an ideal
that does nothing else, with two serial loops and with dask's map_overlap, side by side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from dask.highlevelgraph import HighLevelGraph

import mapreduce as mr

from .contestants import CONTESTANTS, lazy_map_overlap, lazy_skyfold
from .helpers import Planes, environment, facts, make_planes, race, summary, table

__all__ = ["main"]

MINUTES = 4
SMOKE = ["--size", "128", "--repeat", "1"]

REFERENCE = "skyfold"
CELLS = ((256, 32), (64, 8))  # core and border
REDUCERS = ("average", "copy")


def main(argv: Sequence[str] | None = None) -> None:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    planes = make_planes(options.size)
    names = [name for name in CONTESTANTS if name not in options.skip]
    print(facts(report["environment"]), end="\n\n")
    print(f"{options.size} x {options.size}: image float32, variance float32, mask int32")
    print(facts({name: CONTESTANTS[name].__doc__.partition("\n")[0] for name in names}))
    report["runs"] = [
        time_runs(planes, names, cell, border, reducer, options)
        for cell, border in CELLS
        for reducer in REDUCERS
    ]
    report["graphs"] = [time_graphs(planes, name, grid, options) for name, grid in _grids(planes)]
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")


def time_runs(
    planes: Planes,
    names: Sequence[str],
    cell: int,
    border: int,
    reducer: str,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Check that the contestants agree, time them, and print a table."""
    grid = mr.GridConfig(cell, border=border).build(_box(planes))
    expected = CONTESTANTS[REFERENCE](planes, grid, reducer)
    seconds = race(
        {name: partial(CONTESTANTS[name], planes, grid, reducer) for name in names},
        repeat=options.repeat,
        repeat_slow=options.repeat_slow,
        check=partial(check_equal, expected),
    )
    print(f"\ncells of {cell}, border {border}, partition: {len(grid)} cells, reducer {reducer}")
    print(f"All {len(names)} agree exactly in every pixel of image, variance and mask.")
    header = ("contestant", "runs", "median", "min", "max", "ratio")
    print(table(header, summary(seconds, REFERENCE)), flush=True)
    return {
        "cell": cell,
        "border": border,
        "cells": len(grid),
        "reducer": reducer,
        "seconds": seconds,
    }


def check_equal(expected: Planes, name: str, result: Planes) -> None:
    """Refuse to time what gives another answer than ours."""
    for plane, ours, theirs in zip(Planes._fields, expected, result, strict=True):
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            raise RuntimeError(
                f"{name} gives {plane} as {theirs.dtype} {theirs.shape}, "
                f"{REFERENCE} as {ours.dtype} {ours.shape}"
            )
        same = (ours == theirs) | ((ours != ours) & (theirs != theirs))  # NaN is equal to NaN
        if not same.all():
            raise RuntimeError(
                f"{name} differs from {REFERENCE} in {plane} at {np.count_nonzero(~same)} pixels"
            )


def time_graphs(
    planes: Planes, name: str, grid: mr.Grid, options: argparse.Namespace
) -> dict[str, Any]:
    """Time how long the graphs take to build, count their tasks, and print a table.

    A graph is *built* when the call returns, and *ready* when the scheduler could start: optimised
    and written out, which map_overlap leaves for later.
    """
    builders = {
        "skyfold": lambda: [lazy_skyfold(planes, grid, "average")],
        "map_overlap": lambda: lazy_map_overlap(planes, grid),
    }
    builders = {who: build for who, build in builders.items() if who not in options.skip}
    repeat = {"repeat": options.repeat, "repeat_slow": options.repeat_slow}
    tasks: dict[str, int] = {}
    built = race(builders, **repeat)
    ready = race(
        {who: lambda build=build: ready_graph(build()) for who, build in builders.items()},
        check=lambda who, graph: tasks.update({who: len(graph)}),
        **repeat,
    )
    blocks = {"skyfold": _tiles(builders["skyfold"]()[0]), "map_overlap": len(grid)}
    print(f"\ngraph of {name}: {len(grid)} cells")
    header = ("contestant", "built", "ready", "tasks", "tiles or chunks", "tasks each")
    print(table(header, graph_rows(built, ready, tasks, blocks)), flush=True)
    return {
        "grid": name,
        "cells": len(grid),
        "tasks": tasks,
        "blocks": blocks,
        "built": built,
        "ready": ready,
    }


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
        counts = ((values["map_overlap"], values[REFERENCE]) for values in (tasks, blocks))
        pairs = [*zip(ms["map_overlap"], ms[REFERENCE], strict=True), *counts]
        rows.append(("factor", *(f"{theirs / ours:.2f}" for theirs, ours in pairs), ""))
    return rows


def ready_graph(collections: Sequence[Any]) -> dict:
    """Return the tasks that a scheduler gets for collections of one type."""
    graph = HighLevelGraph.merge(*(c.__dask_graph__() for c in collections))
    keys = [c.__dask_keys__() for c in collections]
    return dict(collections[0].__dask_optimize__(graph, keys))


def _tiles(exposure: mr.Exposure) -> int:
    return sum(map(len, exposure.__dask_keys__()))


def _grids(planes: Planes) -> list[tuple[str, mr.Grid]]:
    cell, border = CELLS[-1]
    sizes = {"cellSizeX": cell, "cellSizeY": cell, "borderSizeX": border, "borderSizeY": border}
    spacing = mr.GridConfig.lsst(**sizes, scaleByFwhm=False)
    partition = mr.GridConfig(cell, border=border)
    return [
        (f"cells of {cell}, border {border}, {name}", config.build(_box(planes)))
        for name, config in (("the original's spacing", spacing), ("partition", partition))
    ]


def _box(planes: Planes) -> mr.Box:
    height, width = planes.image.shape
    return mr.Box(0, 0, width, height)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_map_reduce", description=__doc__.partition("\n")[0]
    )
    others = [name for name in CONTESTANTS if name != REFERENCE]
    parser.add_argument("--size", type=int, default=4096, help="pixels along an axis (%(default)s)")
    parser.add_argument(
        "--repeat", type=_count, help="runs of each (5; 9 for those that take less than a second)"
    )
    parser.add_argument(
        "--repeat-slow",
        type=_count,
        default=1,
        help="runs of those that take more than 5 s (%(default)s)",
    )
    parser.add_argument(
        "--skip", action="append", default=[], choices=others, help="leave out; can be repeated"
    )
    parser.add_argument("--json", type=Path, help="also write all times to this file")
    options = parser.parse_args(argv)
    if options.size < 128:
        parser.error(f"--size {options.size} is too small; 128 is the least")
    return options


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} runs tell nothing; 1 is the least")
    return count


if __name__ == "__main__":
    main()
