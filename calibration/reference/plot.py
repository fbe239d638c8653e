"""Pictures of reference offsets. Needs matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from mapreduce.display import new_figure

from ..display import save_figure
from ..sky.healpix import corners
from .comparison import EDGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure

__all__ = ["plot_offsets"]

_COLORS = "RdBu_r"
_UNUSED = "#b0b0b0"
_WIDE = 60  # deg, of a map on which pixels are less than dots
_DOTS: dict[str, Any] = {"s": 14, "edgecolors": "0.4", "linewidths": 0.4}
_ALL, _KEPT = "#c0392b", "#2c3e50"


def plot_offsets(
    offsets: Mapping[str, float],
    errors: Mapping[str, float],
    pixels: Table,
    residuals: Mapping[str, np.ndarray],
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw, for each band, the pixels on the sky and a histogram of the differences.

    A pixel's color is how far its zero point is from the offset of the band; gray are pixels that
    have too few matches. The histogram counts, on a logarithmic scale, how far the differences
    (reference minus star) are from the zero point of their pixel, of all pixels together.
    """
    figure = new_figure((3.4 * len(offsets) + 0.6, 6.4))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(2, len(offsets), squeeze=False)
    sky = _Sky(pixels)
    for (band, offset), (above, below) in zip(offsets.items(), axes.T, strict=True):
        rows = pixels[pixels["band"] == band]
        drawn = sky.draw(above, rows, offset)
        above.set_title(
            f"{band}: {1e3 * offset:+.1f} ± {1e3 * errors[band]:.1f} mmag\n"
            f"{np.count_nonzero(rows['used'])} of {len(rows)} pixels",
            fontsize="medium",
        )
        bar = figure.colorbar(drawn, ax=above, shrink=0.9)
        bar.set_label("zero point − offset (mmag)", fontsize="small")
        bar.ax.tick_params(labelsize="small")
        _histogram(below, residuals[band])
    axes[0, 0].set_ylabel("Dec (deg)")
    axes[1, 0].set_ylabel("matches")
    axes[1, 0].legend(fontsize="small", frameon=False, loc="upper left")
    if path is not None:
        save_figure(figure, path)
    return figure


class _Sky:
    """Where pixels are on plain axes of right ascension and declination, east to the left."""

    def __init__(self, pixels: Table) -> None:
        self.nside = pixels.meta["NSIDE"]
        around = np.exp(1j * np.radians(np.asarray(pixels["ra"]))).mean()
        self.middle = np.degrees(np.angle(around)) % 360 if abs(around) > 0.05 else 180.0

    def outlines(self, rows: Table) -> np.ndarray:
        """Return the corners of pixels, (n, 32, 2) deg."""
        ra, dec = corners(np.asarray(rows["pixel"]), self.nside, step=8)
        center = np.asarray(rows["ra"])[:, None]
        x = (center - self.middle + 180) % 360 - 180 + self.middle
        return np.stack([x + (ra - center + 180) % 360 - 180, dec], axis=-1)

    def draw(self, ax: Axes, rows: Table, offset: float) -> Collection:
        """Draw pixels; return what a color bar is made of."""
        from matplotlib.collections import PolyCollection

        used = np.asarray(rows["used"])
        outlines = self.outlines(rows)
        away = 1e3 * (np.asarray(rows["zero_point"])[used] - offset)
        (left, low), (right, high) = outlines.min((0, 1)), outlines.max((0, 1))
        if wide := right - left > _WIDE:
            x, y = outlines.mean(axis=1).T
            ax.scatter(x[~used], y[~used], color=_UNUSED, **_DOTS)
            drawn: Collection = ax.scatter(x[used], y[used], c=away, cmap=_COLORS, **_DOTS)
        else:
            ax.add_collection(PolyCollection(outlines[~used], color=_UNUSED))
            drawn = PolyCollection(outlines[used], array=away, cmap=_COLORS, edgecolors="face")
            ax.add_collection(drawn)
        most = max(0.1, float(np.abs(away).max(initial=0)))
        drawn.set_clim(-most, most)
        margin = 0.05 * max(right - left, high - low)
        ax.set_xlim(right + margin, left - margin)
        ax.set_ylim(low - margin, high + margin)
        cosine = np.cos(np.radians((low + high) / 2))
        ax.set_aspect("auto" if wide else 1 / max(0.05, cosine))
        ax.set_xlabel("RA (deg)")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value % 360:g}")
        return drawn


def _histogram(ax: Axes, counts: np.ndarray) -> None:
    edges = 1e3 * EDGES
    for values, color, label in zip(counts, (_ALL, _KEPT), ("clipped", "kept"), strict=True):
        ax.stairs(values, edges, fill=True, color=color, label=label)
    reach = np.flatnonzero(counts[0])
    if len(reach):
        most = max(abs(edges[reach[0]]), abs(edges[reach[-1] + 1]))
        ax.set_xlim(-most, most)
    ax.set_yscale("log")
    ax.set_ylim(0.5, None)
    ax.set_xlabel("difference − zero point (mmag)")
