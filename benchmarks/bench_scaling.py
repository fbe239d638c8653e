"""Does the cost grow linearly?

Adds a constant to every cell of image, variance and mask in memory, reducer average, on threads:
of ever more cells of one size, with the image growing along, and of ever larger images in cells of
another. The ideal beside it, which only slices, maps and writes, shows what the machine itself does
to larger images. And what part of a run is the building of its graph, the grid included.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np

import mapreduce as mr

from .contestants import add_constant
from .helpers import (
    Planes,
    Verdict,
    add_repeat,
    alone,
    check_equal,
    conclude,
    count,
    environment,
    make_parser,
    make_planes,
    race,
    square,
    table,
)
from .peers import CONSTANT, ideal

__all__ = ["main"]

MINUTES = 4
SMOKE = ["--cells", "4", "16", "--sizes", "64", "128", "--repeat", "1"]

SMALL = mr.GridConfig(32, border=4)  # of which there are many
LARGE = mr.GridConfig(256, border=32)
LIMIT = 1.25  # of the dearest over the cheapest
GRAPH_LIMIT = 0.05


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    sides = {n: int(SMALL.cell_size[0]) * math.isqrt(n) for n in options.cells}
    report["cells"] = [
        {"cells": number, "size": sides[number], **times}
        for number, times in grow(SMALL, sides, options.repeat).items()
    ]
    report["sizes"] = [
        {"size": size, **times}
        for size, times in grow(LARGE, {n: n for n in options.sizes}, options.repeat).items()
    ]
    report["fixed"] = fixed(options.repeat)
    _print("cells", report["cells"], lambda row: row["cells"], 1e6, "µs a cell")
    _print("size", report["sizes"], lambda row: row["size"] ** 2, 1e9, "ns a pixel")
    report["verdicts"] = verdicts(report)
    return conclude(report, options.json)


def grow(
    config: mr.GridConfig, sides: Mapping[int, int], repeat: int | None
) -> dict[int, dict[str, list[float]]]:
    """Time runs on images of several sides, in turns.

    Returns
    -------
    dict
        For every key of ``sides`` the seconds of the runs, of their graphs, and of the ideal's.
    """
    graphs: dict[int, list[float]] = {key: [] for key in sides}
    functions: dict[str, Callable[[], Planes]] = {}
    for key, side in sides.items():
        planes = tiled(side)
        grid = config.build(mr.Box(0, 0, side, side))
        functions[f"seconds {key}"] = partial(run, planes, config, graphs[key])
        functions[f"ideal {key}"] = partial(ideal, planes, grid)
    seconds = race(functions, repeat=repeat, repeat_slow=repeat or 5, check=_check)
    return {
        key: {
            "seconds": seconds[f"seconds {key}"],
            "graph": graphs[key],
            "ideal": seconds[f"ideal {key}"],
        }
        for key in sides
    }


def fixed(repeat: int | None) -> dict[str, float]:
    """Return what a run of a single small cell takes, and its graph: medians, in seconds."""
    graphs: list[float] = []
    planes = make_planes(int(SMALL.cell_size[0]))
    seconds = race({"run": partial(run, planes, SMALL, graphs)}, repeat=repeat)
    return {"seconds": median(seconds["run"]), "graph": median(graphs)}


def run(planes: Planes, config: mr.GridConfig, graphs: list[float]) -> Planes:
    """Run ours, and note how long the graph took."""
    start = time.perf_counter()
    lazy = mr.map_reduce(mr.Exposure(*planes), add_constant, grid=config)
    graphs.append(time.perf_counter() - start)
    return Planes(**lazy.compute(scheduler="threads").planes)


def tiled(side: int) -> Planes:
    """Return planes of any size, quickly: the same pixels again and again."""
    small = make_planes(min(side, 1024))
    times = -(-side // len(small.image))
    return Planes(*(np.ascontiguousarray(np.tile(p, (times, times))[:side, :side]) for p in small))


def _check(name: str, result: Planes) -> None:
    given = tiled(len(result.image))
    check_equal(given._replace(image=given.image + CONSTANT), name, result)


def verdicts(report: Mapping[str, Any]) -> list[Verdict]:
    """Return whether the cost is constant, and the graph cheap."""
    cells, sizes = report["cells"], report["sizes"]
    ms = {name: 1e3 * seconds for name, seconds in report["fixed"].items()}
    single = f"a run of a single small cell takes {ms['seconds']:.1f} ms"
    most = max([*cells, *sizes], key=_share)
    return [
        _constant("time per cell, {} to {} cells", {r["cells"]: r for r in cells}, 1, single),
        _constant("time per pixel, {}² to {}²", {r["size"]: r for r in sizes}, 2, single),
        Verdict(
            "building grid and graph, largest part of a run",
            _share(most),
            "<=",
            GRAPH_LIMIT,
            reason=f"that run takes {1e3 * median(most['seconds']):.0f} ms; {single}, "
            f"{ms['graph']:.1f} ms of them for the grid and the graph",
        ),
    ]


def _constant(what: str, rows: Mapping[int, Mapping[str, Any]], power: int, single: str) -> Verdict:
    """Return whether the time over the power of the key is the same in all rows."""
    numbers = [key**power for key in rows]
    spread = {}
    for name in ("seconds", "ideal"):
        each = [median(row[name]) / n for row, n in zip(rows.values(), numbers, strict=True)]
        spread[name] = max(each) / min(each)
    first = 1e3 * median(next(iter(rows.values()))["seconds"])
    return Verdict(
        f"{what.format(min(rows), max(rows))}, dearest/cheapest",
        spread["seconds"],
        "<=",
        LIMIT,
        reason=f"the ideal's is {spread['ideal']:.2f}; the first run takes {first:.0f} ms; "
        f"{single}",
    )


def _share(row: Mapping[str, Any]) -> float:
    return median(row["graph"]) / median(row["seconds"])


def _print(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    units: Callable[[Mapping[str, Any]], int],
    scale: float,
    unit: str,
) -> None:
    header = (name, "runs", "median", "min", "max", unit, "the ideal", "graph")
    lines = [
        (
            row[name],
            len(row["seconds"]),
            *(f"{f(row['seconds']):.3f} s" for f in (median, min, max)),
            *(f"{scale * median(row[k]) / units(row):.3g}" for k in ("seconds", "ideal")),
            f"{_share(row):.1%}",
        )
        for row in rows
    ]
    print(f"\n{table(header, lines)}", flush=True)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_scaling", __doc__)
    parser.add_argument(
        "--cells",
        type=square,
        nargs="+",
        default=[1024, 10_000, 102_400],
        help="numbers of cells, squares of whole numbers (%(default)s)",
    )
    parser.add_argument(
        "--sizes",
        type=count,
        nargs="+",
        default=[1024, 2048, 4096, 8192, 16384],
        help="pixels along an axis (%(default)s)",
    )
    add_repeat(parser)
    options = parser.parse_args(argv)
    for name in ("cells", "sizes"):
        if len(set(getattr(options, name))) < 2:
            parser.error(f"--{name} needs two numbers or more")
        setattr(options, name, sorted(set(getattr(options, name))))
    return options


if __name__ == "__main__":
    alone(main)
