"""Figures: boxes over an image, before and after.

Figures are made without pyplot, so they work headless and in threads, and nothing has to be
closed. Large images are thinned out first: drawing takes about as long for any size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import compute

from .exposure.box import Box
from .exposure.exposure import Exposure
from .exposure.plane import lazy
from .picture import block_means, by_block, gray, matplotlib, sampled, steps, stretch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["before_after", "draw_boxes", "new_figure"]

_CORE, _EXPANDED = "#1f77b4", "#ff9f1c"
_CORE_ON_IMAGE = "#4cd3ff"
_PANEL = 1024  # pixels of a picture, at most

# By bit, the LSST planes BAD to STREAK first; more planes start over.
_PLANE_COLORS = (
    "#d62728", "#2ca02c", "#bcbd22", "#ff7f0e", "#7f7f7f", "#9ecae1",
    "#c5b0d5", "#e377c2", "#111111", "#8c564b", "#17becf", "#6a3d9a",
)  # fmt: skip


def draw_boxes(
    boxes_core: Sequence[Box],
    boxes_expanded: Sequence[Box] = (),
    ax: Axes | None = None,
    *,
    image: Exposure | np.ndarray | None = None,
    box: Box | None = None,
) -> Axes:
    """Draw the boxes of cells: cores outlined, expanded boxes dashed and darker where they overlap.

    Parameters
    ----------
    boxes_core, boxes_expanded : sequence of Box
        In parent coordinates.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default on a figure of its own, ``ax.figure``.
    image : Exposure or (ny, nx) array, optional
        To draw the boxes on. An array is over ``box``.
    box : Box, optional
        The exposure's, to outline; by default that of ``image``, or the one around all the boxes.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If the image is an array of another shape than ``box``.

    Examples
    --------
    >>> cores = [Box(0, 0, 50, 50), Box(50, 0, 50, 50)]
    >>> ax = draw_boxes(cores, [box.grow(5) for box in cores], box=Box(0, 0, 100, 50))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['exposure', 'expanded box', 'core box']
    """
    everything = Box.union([*boxes_core, *boxes_expanded])
    box = box or _bbox(image) or everything
    ax = _new_figure(box).add_subplot() if ax is None else ax
    core, width = _CORE, 1.2 if len(boxes_core) < 500 else 0.6
    if image is not None:
        core = _CORE_ON_IMAGE
        _show(ax, image, box)
    dashed = {"edgecolor": _EXPANDED, "facecolor": (*_rgb(_EXPANDED), 0.12), "linestyle": "--"}
    styles = {
        "exposure": ([box], {"edgecolor": "black", "linewidth": 1.5}),
        "expanded box": (boxes_expanded, {**dashed, "linewidth": width}),
        "core box": (boxes_core, {"edgecolor": core, "linewidth": width}),
    }
    polygons = matplotlib("matplotlib.collections").PolyCollection
    for label, (boxes, style) in styles.items():
        if len(boxes):
            style = {"facecolor": "none", "label": label, **style}
            ax.add_collection(polygons(_corners(boxes), **style))
    _frame(ax, Box.union([box, everything]))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    return ax


def before_after(
    before: Exposure | np.ndarray,
    after: Exposure | np.ndarray,
    path: str | os.PathLike[str] | None = None,
    *,
    titles: tuple[str, str] = ("before", "after"),
) -> Figure:
    """Show two images side by side, and the mask planes of the second.

    Each image has its own asinh stretch between its 1 and 99.5 percentiles; what is not finite is
    blue. Of pixels with several mask planes the rarest is shown.

    Parameters
    ----------
    before, after : Exposure or (ny, nx) array
        Lazy ones are computed, together; only what is drawn is kept. Arrays start at (0, 0) and
        have no mask.
    path : str or path-like, optional
        Where to save the figure, too; the suffix says the format.
    titles : (str, str)
        Of the two images.

    Raises
    ------
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> figure = before_after(np.eye(20), np.eye(20) - 0.1, titles=("raw", "less a tenth"))
    >>> [ax.get_title() for ax in figure.axes[:2]]
    ['raw', 'less a tenth']
    """
    flagged = after if isinstance(after, Exposure) and after.mask is not None else None
    panels = 2 if flagged is None else 3
    box = _bbox(before) or Box(0, 0, *before.shape[::-1])
    figure = _new_figure(box, panels, 5.0)
    axes = figure.subplots(1, panels)
    images = before, after
    *thin, bits = compute(*map(_sampled, images), None if flagged is None else _mask_bits(flagged))
    for ax, image, pixels, title in zip(axes, images, thin, titles, strict=False):
        box = _bbox(image) or Box(0, 0, *image.shape[::-1])
        drawn = _draw(ax, pixels, box)
        _frame(ax, box)
        ax.set_title(title)
        unit = image.meta.get("BUNIT", "") if isinstance(image, Exposure) else ""
        _color_bar(figure, ax, drawn, unit)
    if flagged is not None:
        _draw_mask(axes[2], flagged, bits)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def new_figure(size: tuple[float, float]) -> Figure:
    """Return an empty figure, width and height in inches.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    return matplotlib("matplotlib.figure").Figure(figsize=size, layout="compressed")


def _new_figure(box: Box, panels: int = 1, size: float = 6.0) -> Figure:
    """Figure for panels side by side that show a box, and room for what goes below."""
    height = size * min(max(box.height / max(box.width, 1), 0.2), 2.0) + 1.2
    return new_figure((size * panels, height))


def _rgb(color: str) -> tuple[float, float, float]:
    return matplotlib("matplotlib.colors").to_rgb(color)


def _sampled(image: Exposure | np.ndarray | da.Array) -> np.ndarray | da.Array:
    """Return what is drawn of an image; lazy if that is."""
    return sampled(image.image if isinstance(image, Exposure) else image, _PANEL)


def _bbox(image: Any) -> Box | None:
    return image.bbox if isinstance(image, Exposure) else None


def _show(ax: Axes, image: Exposure | np.ndarray, box: Box) -> Any:
    """Draw an image that lies over a box; an exposure knows its own."""
    box = _bbox(image) or box
    if tuple(image.shape) != box.shape:
        raise ValueError(
            f"image is {image.shape[0]} x {image.shape[1]} but its box is "
            f"{box.height} x {box.width} (rows x columns)"
        )
    return _draw(ax, np.asarray(_sampled(image)), box)


def _draw(ax: Axes, pixels: np.ndarray, box: Box) -> Any:
    """Draw what was sampled of an image over a box."""
    block, step = steps(box.shape, _PANEL)
    pixels = block_means(pixels, block // step)
    extent = _extent(box, pixels.shape, block)
    drawn = np.ma.masked_invalid(pixels)
    return ax.imshow(
        drawn, cmap=gray(), norm=stretch(pixels), origin="lower", extent=extent, aspect="equal"
    )


def _extent(box: Box, shape: tuple[int, ...], block: int) -> tuple[float, float, float, float]:
    """Edges of the blocks, which may reach beyond the box at its far side."""
    x, y = box.x0 - 0.5, box.y0 - 0.5
    return x, x + block * shape[1], y, y + block * shape[0]


def _color_bar(figure: Figure, ax: Axes, drawn: Any, unit: str) -> None:
    """Draw a color bar with ticks at equal distances, which the usual ones are not."""
    norm = drawn.norm
    digits = 2 - math.floor(math.log10(norm.vmax - norm.vmin))
    form = f"%.{max(digits, 0)}f" if -4 < digits < 6 else "%.3g"
    ticks = norm.inverse(np.linspace(0, 1, 6))
    figure.colorbar(drawn, ax=ax, location="bottom", ticks=ticks, format=form, label=unit)


def _mask_block(exposure: Exposure) -> int:
    """Return the size of the blocks of a mask that make a picture."""
    # Fewer blocks than the panel has dots: drawing must not skip any.
    return max(1, math.ceil(max(exposure.shape) / 400))


def _mask_bits(exposure: Exposure) -> np.ndarray | da.Array:
    """Return the bits that are set anywhere in each block of the mask; lazy if that is."""
    block = _mask_block(exposure)
    reduce = partial(by_block, np.bitwise_or, block=block)
    if isinstance(exposure.mask, np.ndarray):
        return reduce(exposure.mask)
    mask = lazy(exposure.planes["mask"], "mask", max(1, 1024 // block) * block)
    sizes = tuple(tuple(-(-size // block) for size in line) for line in mask.chunks)
    return da.map_blocks(reduce, mask, chunks=sizes, dtype=mask.dtype, meta=np.empty((0, 0), "i4"))


def _draw_mask(ax: Axes, exposure: Exposure, bits: np.ndarray) -> None:
    """Draw the mask, a color per plane; a flagged pixel is seen however small it gets."""
    box, block = exposure.bbox, _mask_block(exposure)
    set_in = {name: (bits >> bit & 1).astype(bool) for name, bit in exposure.mask_planes.items()}
    present = [name for name in set_in if set_in[name].any()]
    color = {
        name: _PLANE_COLORS[exposure.mask_planes[name] % len(_PLANE_COLORS)] for name in present
    }
    picture = np.full((*bits.shape, 3), 0.96)
    for name in sorted(present, key=lambda name: set_in[name].sum(), reverse=True):
        picture[set_in[name]] = _rgb(color[name])
    ax.imshow(
        picture, origin="lower", extent=_extent(box, bits.shape, block), interpolation="nearest"
    )
    _frame(ax, box)
    ax.set_title("mask")
    patch = matplotlib("matplotlib.patches").Patch
    handles = [patch(color=color[name], label=name) for name in present]
    handles = handles or [patch(facecolor="none", label="no plane is set")]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4,
              frameon=False, fontsize="small")  # fmt: skip


def _corners(boxes: Iterable[Box]) -> list[list[tuple[float, float]]]:
    """Corners of boxes, at the outer edges of their pixels."""
    edges = ((b[0] - 0.5, b[1] - 0.5, b[0] + b[2] - 0.5, b[1] + b[3] - 0.5) for b in boxes)
    return [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, y0, x1, y1 in edges]


def _frame(ax: Axes, box: Box) -> None:
    locator = matplotlib("matplotlib.ticker").MaxNLocator
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(locator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    ax.set_xlim(box.x0 - 0.5, box.x1 - 0.5)
    ax.set_ylim(box.y0 - 0.5, box.y1 - 0.5)
    ax.set_aspect("equal")
    ax.set_xlabel("x [pixel]")
    ax.set_ylabel("y [pixel]")
