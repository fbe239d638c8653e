"""The scaling figure: what bench_scaling finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["plot_scaling"]

_BAND = 1.25  # what counts as constant
_OURS, _IDEAL = "#1f77b4", "#888888"


def plot_scaling(report: Mapping[str, Any], path: Path) -> None:
    """Draw how the time grows with the number of cells and with the size of the image.

    Parameters
    ----------
    report : mapping
        Of bench_scaling: ``report["cells"]`` is a list of ``{"cells": number, "seconds": [...]}``,
        and ``report["sizes"]`` one of ``{"size": pixels along a side, "seconds": [...]}``; each
        may have the seconds of the ideal too, under ``"ideal"``.
    path : Path
        Where to write it; the suffix says the format.
    """
    from matplotlib.figure import Figure  # optional

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind, color in (("ideal", _IDEAL), ("seconds", _OURS)):
        label = "ideal" if kind == "ideal" else "skyfold"
        cells = [(r["cells"], r["cells"], r[kind]) for r in report["cells"] if kind in r]
        sizes = [(r["size"], r["size"] ** 2, r[kind]) for r in report["sizes"] if kind in r]
        _draw(left, cells, 1e6, color=color, label=label)
        _draw(right, sizes, 1e9, color=color, label=label)
    left.set(xlabel="number of cells", ylabel="time per cell [µs]")
    right.set(xlabel="side of the image [pixels]", ylabel="time per pixel [ns]")
    left.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _draw(
    axes: Any, rows: Sequence[tuple[int, int, Sequence[float]]], scale: float, **style: Any
) -> None:
    """Draw the time per unit against a size, over the band within which it counts as constant."""
    if not rows:
        return
    x = [size for size, _, _ in rows]
    y = [scale * median(seconds) / units for _, units, seconds in rows]
    axes.axhspan(min(y), min(y) * _BAND, color=style["color"], alpha=0.15, lw=0)
    axes.loglog(x, y, "o-", markersize=5, lw=1, **style)
    axes.update_datalim([(x[0], min(y) / 4), (x[0], max(y) * 4)])  # so that noise looks like it
    axes.autoscale_view()
    axes.grid(which="both", alpha=0.2)
