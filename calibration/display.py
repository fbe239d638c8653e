"""Pictures: a calibration over the focal plane, transmission curves. Needs matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mapreduce.display import new_figure
from mapreduce.io.stream import complete_first

from .atmosphere.transmission import TransmissionCurve
from .camera.camera import Camera
from .photocalib.photocalib import VisitPhotoCalib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["draw_focal_plane", "draw_transmissions", "save_figure"]

_SAMPLES = 24  # along each side of a detector
_LABELED = 40  # detectors that are few enough to have their ids written on them


def draw_focal_plane(photo_calibs: VisitPhotoCalib, camera: Camera, ax: Axes | None = None) -> Axes:
    """Draw the calibrations of a visit over the focal plane, relative to their median.

    Parameters
    ----------
    photo_calibs : VisitPhotoCalib
    camera : Camera
        Detectors without a calibration are drawn as empty outlines.
    ax : matplotlib Axes, optional
        Default those of a new figure.

    Returns
    -------
    Axes
        Save the picture with ``ax.figure.savefig(path)``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    ax = new_figure((7.5, 6.5)).add_subplot() if ax is None else ax
    fields = {number: _sampled(photo_calibs, camera, number) for number in photo_calibs}
    median = np.median([values for _, _, values in fields.values()])
    relative = {n: (x, y, 100 * (values / median - 1)) for n, (x, y, values) in fields.items()}
    reach = max(np.abs(values).max() for _, _, values in relative.values()) or 1.0
    for corners in np.degrees(camera.corners()):
        ax.fill(*corners.T, facecolor="none", edgecolor="0.6", linewidth=0.6)
    for number, (x, y, values) in relative.items():
        drawn = ax.pcolormesh(x, y, values, cmap="RdBu_r", vmin=-reach, vmax=reach, shading="auto")
        if len(relative) <= _LABELED:
            ax.annotate(str(number), (x.mean(), y.mean()), ha="center", va="center", fontsize=8)
    ax.set_aspect("equal")
    ax.set_xlabel("field angle x (deg)")
    ax.set_ylabel("field angle y (deg)")
    ax.set_title(f"visit {photo_calibs.visit}: calibration, median {median:.4g} nJy per unit")
    ax.figure.colorbar(drawn, ax=ax, label="above the median (%)")
    return ax


def _sampled(
    photo_calibs: VisitPhotoCalib, camera: Camera, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return field angles (deg) and calibrations on a coarse grid over a detector."""
    box = photo_calibs[number].box
    x = np.linspace(box.x0 - 0.5, box.x1 - 0.5, _SAMPLES)
    y = np.linspace(box.y0 - 0.5, box.y1 - 0.5, _SAMPLES)
    x, y = np.meshgrid(x, y)
    tx, ty = camera.to_field_angle(number, x, y)
    return np.degrees(tx), np.degrees(ty), photo_calibs[number].calibration(x, y)


def draw_transmissions(curves: Mapping[Any, TransmissionCurve], ax: Axes | None = None) -> Axes:
    """Draw transmission curves, colored by airmass where they have one.

    Parameters
    ----------
    curves : mapping of label to TransmissionCurve
        Labels of up to ten are shown.
    ax : matplotlib Axes, optional
        Default those of a new figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib import colormaps

    ax = new_figure((9.0, 5.0)).add_subplot() if ax is None else ax
    airmasses = [curve.airmass or np.nan for curve in curves.values()]
    low, high = np.nanmin([*airmasses, 1.0]), np.nanmax([*airmasses, 1.001])
    for (label, curve), airmass in zip(curves.items(), airmasses, strict=True):
        share = 0.5 if np.isnan(airmass) else (airmass - low) / (high - low)
        text = f"{label}" if np.isnan(airmass) else f"{label} (airmass {airmass:.2f})"
        color = colormaps["viridis"](0.9 * share)
        ax.plot(curve.wavelengths, curve.throughput, color=color, linewidth=0.9, label=text)
    ax.set_xlabel("wavelength (Angstrom)")
    ax.set_ylabel("transmission of the atmosphere")
    ax.set_ylim(0, 1)
    ax.grid(alpha=0.3)
    if len(curves) <= 10:
        ax.legend(fontsize=8, loc="lower right")
    return ax


def save_figure(figure: Figure | SubFigure, path: str | os.PathLike[str]) -> None:
    """Save a figure in the format of its suffix, or else as PNG; the file appears when complete."""
    with complete_first(Path(path), overwrite=True) as temporary:  # of a part of one, the whole
        figure.figure.savefig(temporary, dpi=120, format=Path(path).suffix[1:] or "png")
