"""Does the cost of a `CellPsf` at a position depend on the number of cells?

Evaluates it at ever new random positions: with a PSF of its own for every cell and with one for
all, where the cells tile the image and where up to four overlap. The first evaluation, which builds
the index of the cells, is timed by itself.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

import mapreduce as mr

from .helpers import (
    Verdict,
    add_repeat,
    alone,
    conclude,
    count,
    environment,
    make_parser,
    race,
    ratio,
    square,
    table,
    timed,
)

__all__ = ["main"]

MINUTES = 1
SMOKE = ["--cells", "4", "16", "--positions", "5", "--repeat", "1"]

LIMIT = 2.0
CELL, BORDER = 32, 8
KINDS = [(psfs, boxes) for psfs in ("own", "one for all") for boxes in ("apart", "overlapping")]
METHODS = ("compute_image", "compute_kernel_image", "sigma")

Points = Iterator[tuple[float, float]]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    report["runs"] = [time_kind(psfs, boxes, options) for psfs, boxes in KINDS]
    base, *others = options.cells
    for run in report["runs"]:
        print(f"\nPSFs: {run['psfs']}; cells: {run['boxes']}; µs an evaluation")
        print(table(("cells", "first", *METHODS, f"most over {base}"), _rows(run)))
    report["verdicts"] = [
        Verdict(
            f"CellPsf.{method}, {number} cells over {base}, worst of {len(KINDS)} kinds",
            max(_ratio(run, method, number, base) for run in report["runs"]),
            "<=",
            LIMIT,
        )
        for number in others
        for method in METHODS
    ]
    return conclude(report, options.json)


def time_kind(psfs: str, boxes: str, options: argparse.Namespace) -> dict[str, Any]:
    """Check and time all numbers of cells side by side, one method after the other."""
    made = {n: make_psf(n, psfs, boxes) for n in options.cells}
    first = {n: timed(lambda psf=psf: psf.sigma(0.0, 0.0))[0] for n, psf in made.items()}
    for psf in made.values():
        check(psf)
    seconds = {}
    for method in METHODS:
        functions = {
            n: evaluation(getattr(psf, method), positions(n), options.positions)
            for n, psf in made.items()
        }
        times = race(functions, repeat=options.repeat)
        seconds[method] = {n: [t / options.positions for t in times[n]] for n in times}
    return {"psfs": psfs, "boxes": boxes, "first": first, "seconds": seconds}


def make_psf(number: int, psfs: str, boxes: str) -> mr.CellPsf:
    """Return a PSF of a square of cells."""
    side = CELL * math.isqrt(number)
    grid = mr.GridConfig(CELL, border=BORDER).build(mr.Box(0, 0, side, side))
    width = 0.5 / number if psfs == "own" else 0.0
    return mr.CellPsf(
        mr.PsfComponent(
            cell.index,
            cell.expanded if boxes == "overlapping" else cell.core,
            mr.GaussianPsf(1.8 + width * cell.index, size=21),
        )
        for cell in grid
    )


def check(psf: mr.CellPsf) -> None:
    """Compare with what a look at all cells finds, at a few positions."""
    for _, (x, y) in zip(range(5), positions(len(psf)), strict=False):
        covering = [c.psf for c in psf.components if c.box.covers(x=x, y=y)]
        images = [p.compute_kernel_image(x, y) for p in covering]
        if not np.allclose(psf.compute_kernel_image(x, y), np.mean(images, axis=0)):
            raise RuntimeError(f"{psf} at ({x:g}, {y:g}) is not the mean over its cells there")


def positions(number: int) -> Points:
    """Give out random positions, ever new ones."""
    rng = np.random.default_rng(1)
    side = CELL * math.isqrt(number)
    while True:
        yield from rng.uniform(0, side - 1, (1000, 2)).tolist()


def evaluation(method: Callable[..., Any], points: Points, number: int) -> Callable[[], None]:
    """Return a function that evaluates a method at that many new positions."""

    def evaluate() -> None:
        for _ in range(number):
            method(*next(points))

    return evaluate


def _ratio(run: Mapping[str, Any], method: str, number: int, base: int) -> float:
    return ratio(run["seconds"][method], number, base)


def _rows(run: Mapping[str, Any]) -> list[tuple]:
    base = next(iter(run["first"]))
    return [
        (
            number,
            f"{1e3 * first:.3g} ms",
            *(f"{1e6 * median(run['seconds'][method][number]):.1f}" for method in METHODS),
            f"{max(_ratio(run, method, number, base) for method in METHODS):.2f}",
        )
        for number, first in run["first"].items()
    ]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_psf", __doc__)
    parser.add_argument(
        "--cells",
        type=square,
        nargs="+",
        default=[100, 10_000, 102_400],
        help="numbers of cells, squares of whole numbers (%(default)s)",
    )
    parser.add_argument(
        "--positions", type=count, default=100, help="positions in a run (%(default)s)"
    )
    add_repeat(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    alone(main)
