"""Pictures of repeatability. Needs matplotlib."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from mapreduce.display import new_figure

from ..display import save_figure
from .scatter import SELECTIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_repeatability"]

_COLORS = {"before": "#c0392b", "after": "#1f5f8b"}
_OPEN = {"ls": "", "marker": "o", "ms": 8, "mfc": "none"}
_FEW = 20  # observations, of bins that are not drawn
_COLUMNS = 3  # panels side by side, at most


def plot_repeatability(
    bands: Table, bins: Table, path: str | os.PathLike[str] | None = None
) -> Figure:
    """Draw, for each band, the scatter against magnitude, before and after calibration.

    Filled and with a line: photometric visits; open: all. Dashed: root mean square, of photometric
    visits. The black line is the scatter that is expected of the errors. Bins with less than 20
    observations are left out.
    """
    names = list(dict.fromkeys(bands["band"]))
    n_columns = len(names) if len(names) <= _COLUMNS + 1 else _COLUMNS
    n_rows = -(-len(names) // n_columns)
    figure = new_figure((3.6 * n_columns + 0.6, 4.2 * n_rows + 0.3))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    for ax, band in zip(axes.flat, names, strict=False):
        _draw(ax, bins[bins["band"] == band])
        bright = bands[(bands["band"] == band) & (bands["visits"] == SELECTIONS[0])]
        ax.set_title(_title(band, bright), fontsize="medium")
    for ax in axes.flat[len(names) :]:
        ax.remove()
    for ax in axes[-1]:
        ax.set_xlabel("mean calibrated magnitude")
    for ax in axes[:, 0]:
        ax.set_ylabel("scatter of a star's magnitudes (mmag)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    if path is not None:
        save_figure(figure, path)
    return figure


def _draw(ax: Axes, bins: Table) -> None:
    """Draw the scatter in one band."""
    enough = bins[bins["n_observations"] >= _FEW]
    photometric, every = (enough[enough["visits"] == name] for name in SELECTIONS)
    for kind, color in _COLORS.items():
        curves: list[tuple[Table, str, dict[str, Any]]] = [
            (photometric, kind, {"marker": "o", "ms": 5, "label": kind}),
            (photometric, f"{kind}_rms", {"ls": "--", "lw": 1, "label": f"{kind}, rms"}),
            (every, kind, _OPEN | {"label": f"{kind}, all visits"}),
        ]
        for rows, name, style in curves:
            ax.plot(_middle(rows), 1e3 * rows[name], color=color, **style)
    ax.plot(_middle(photometric), 1e3 * photometric["expected"], "k", lw=1, label="expected")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.grid(alpha=0.3, which="both", lw=0.5)


def _middle(rows: Table) -> np.ndarray:
    return (np.asarray(rows["mag_min"]) + np.asarray(rows["mag_max"])) / 2


def _title(band: str, bright: Table) -> str:
    """Return what is to be said of the bright stars of a band."""
    if not len(bright) or np.isnan(bright["after"][0]):
        return str(band)
    row = bright[0]
    before, after, floor = (1e3 * row[name] for name in ("before", "after", "floor"))
    return (
        f"{band}, brighter than {row['mag_max']:.1f}:\n"
        f"{before:.1f} before, {after:.1f} after, floor {floor:.1f} mmag"
    )
