"""Pictures: thumbnails, boxes over an image, before and after. The one file that needs matplotlib.

Figures are made without pyplot, so they work headless and in threads, and nothing has to be
closed. Large images are thinned out first: drawing takes about as long for any size.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np

from .exposure.box import Box
from .exposure.exposure import Exposure
from .exposure.plane import lazy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["before_after", "draw_boxes", "facts_table", "new_figure", "thumbnail"]

_NEEDS = "needs matplotlib: pip install skyfold[plot]"
_NAN_COLOUR = "#5b8db8"
_CORE, _EXPANDED = "#1f77b4", "#ff9f1c"
_CORE_ON_IMAGE = "#4cd3ff"
_PANEL = 1024  # pixels of a picture, at most

# By bit, the LSST planes BAD to STREAK first; more planes start over.
_PLANE_COLOURS = (
    "#d62728", "#2ca02c", "#bcbd22", "#ff7f0e", "#7f7f7f", "#9ecae1",
    "#c5b0d5", "#e377c2", "#111111", "#8c564b", "#17becf", "#6a3d9a",
)  # fmt: skip


def facts_table(title: str, facts: Iterable[tuple[str, str]], picture: str = "") -> str:
    """Return a title, a picture and a table of facts as HTML, for notebooks.

    Parameters
    ----------
    title : str
    facts : iterable of (str, str)
        Name and value of each; plain text.
    picture : str, optional
        HTML, such as that of `thumbnail`.

    Examples
    --------
    >>> facts_table("Cell", [("index", "3")])  # doctest: +ELLIPSIS
    "<div><b>Cell</b><table><tr><th style='text-align:left'>index</th>...</table></div>"
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in facts
    )
    return f"<div><b>{title}</b>{picture}<table>{rows}</table></div>"


def thumbnail(image: np.ndarray) -> str:
    """Return a small picture of an image as an HTML ``<img>``.

    Parameters
    ----------
    image : (ny, nx) array
        Shown with y upwards on an asinh stretch between its 1 and 99.5 percentiles. What is not
        finite is blue.

    Returns
    -------
    str
        An embedded PNG of at most 256 pixels on a side; without matplotlib a line that says what
        to install.

    Examples
    --------
    >>> thumbnail(np.eye(20))[:31]
    '<img src="data:image/png;base64'
    """
    try:
        from matplotlib.image import imsave
    except ImportError:
        return f"<p><i>A picture {_NEEDS}</i></p>"
    pixels, _ = _thinned(image, 256)
    colours = _grey()(_norm(pixels)(np.ma.masked_invalid(pixels)), bytes=True)
    file = io.BytesIO()
    imsave(file, colours, format="png", origin="lower")
    code = base64.b64encode(file.getvalue()).decode("ascii")
    height, width = pixels.shape
    zoom = max(1, 128 // max(width, height))
    return (
        f'<img src="data:image/png;base64,{code}" width="{width * zoom}" height="{height * zoom}" '
        f'alt="image" style="image-rendering: pixelated">'
    )


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
    from matplotlib.collections import PolyCollection

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
    for label, (boxes, style) in styles.items():
        if len(boxes):
            style = {"facecolor": "none", "label": label, **style}
            ax.add_collection(PolyCollection(_corners(boxes), **style))
    _frame(ax, Box.union([box, everything]))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    return ax


def before_after(
    before: Exposure | np.ndarray,
    after: Exposure | np.ndarray,
    path: str | os.PathLike | None = None,
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
    masked = isinstance(after, Exposure) and after.mask is not None
    box = _bbox(before) or Box(0, 0, *before.shape[::-1])
    figure = _new_figure(box, 2 + masked, 5.0)
    axes = figure.subplots(1, 2 + masked)
    *sampled, bits = dask.compute(
        _sampled(before, _PANEL), _sampled(after, _PANEL), _mask_bits(after) if masked else None
    )
    for ax, image, pixels, title in zip(axes, (before, after), sampled, titles, strict=False):
        box = _bbox(image) or Box(0, 0, *image.shape[::-1])
        drawn = _draw(ax, pixels, box)
        _frame(ax, box)
        ax.set_title(title)
        unit = image.meta.get("BUNIT", "") if isinstance(image, Exposure) else ""
        _colour_bar(figure, ax, drawn, unit)
    if masked:
        _draw_mask(axes[2], after, bits)
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
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(f"a plot {_NEEDS}") from None
    return Figure(figsize=size, layout="compressed")


def _new_figure(box: Box, panels: int = 1, size: float = 6.0) -> Figure:
    """Figure for panels side by side that show a box, and room for what goes below."""
    height = size * min(max(box.height / max(box.width, 1), 0.2), 2.0) + 1.2
    return new_figure((size * panels, height))


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def _grey() -> Any:
    from matplotlib import colormaps

    return colormaps["gray"].with_extremes(bad=_NAN_COLOUR)


def _norm(pixels: np.ndarray) -> Any:
    """Asinh stretch between percentiles of the finite pixels, if there are any."""
    from astropy.visualization import AsinhStretch, ImageNormalize

    finite = pixels[np.isfinite(pixels)]
    low, high = np.percentile(finite, (1, 99.5)) if finite.size else (0.0, 1.0)
    if not high - low > 1e-9 * abs(high):
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    return ImageNormalize(vmin=low, vmax=high, stretch=AsinhStretch(0.1), clip=False)


def _steps(shape: tuple[int, int], limit: int) -> tuple[int, int]:
    """Return the size of the blocks that make a picture, and which pixels of them are read."""
    block = max(1, math.ceil(max(shape) / limit))
    step = max(1, block // 3)
    return step * math.ceil(block / step), step


def _sampled(image: Exposure | np.ndarray | da.Array, limit: int) -> np.ndarray | da.Array:
    """Return of large blocks only every so manyth row and column; lazy if the image is."""
    pixels = image.image if isinstance(image, Exposure) else image
    _, step = _steps(pixels.shape, limit)
    pixels = pixels[::step, ::step]
    # A view would keep the whole block.
    return pixels.map_blocks(np.copy) if isinstance(pixels, da.Array) else pixels


def _means(pixels: np.ndarray, number: int) -> np.ndarray:
    """Return means of blocks of so many pixels a side, float64; NaN where nothing is finite."""
    pixels = np.array(pixels, np.float64)
    finite = np.isfinite(pixels)
    pixels[~finite] = 0
    np.clip(pixels, -1e60, 1e60, out=pixels)  # so that neither sums nor stretches overflow
    total = _by_block(np.add, pixels, number)
    count = _by_block(np.add, finite.astype(np.int32), number)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _thinned(image: Any, limit: int) -> tuple[np.ndarray, int]:
    """Return block means of at most ``limit`` pixels a side, and the size of the blocks."""
    block, step = _steps(image.shape, limit)
    return _means(_sampled(image, limit), block // step), block


def _by_block(ufunc: np.ufunc, pixels: np.ndarray, block: int) -> np.ndarray:
    """Reduce square blocks; those at the far edges may be smaller."""
    for _ in range(2):  # rows, then columns
        result = pixels[::block].copy()
        for k in range(1, block):
            part = pixels[k::block]
            ufunc(result[: len(part)], part, out=result[: len(part)])
        pixels = result.T
    return pixels


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
    return _draw(ax, np.asarray(_sampled(image, _PANEL)), box)


def _draw(ax: Axes, sampled: np.ndarray, box: Box) -> Any:
    """Draw what was sampled of an image over a box."""
    block, step = _steps(box.shape, _PANEL)
    pixels = _means(sampled, block // step)
    extent = _extent(box, pixels.shape, block)
    drawn = np.ma.masked_invalid(pixels)
    return ax.imshow(
        drawn, cmap=_grey(), norm=_norm(pixels), origin="lower", extent=extent, aspect="equal"
    )


def _extent(box: Box, shape: tuple[int, ...], block: int) -> tuple[float, float, float, float]:
    """Edges of the blocks, which may reach beyond the box at its far side."""
    x, y = box.x0 - 0.5, box.y0 - 0.5
    return x, x + block * shape[1], y, y + block * shape[0]


def _colour_bar(figure: Figure, ax: Axes, drawn: Any, unit: str) -> None:
    """Draw a colour bar with ticks at equal distances, which the usual ones are not."""
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
    reduce = partial(_by_block, np.bitwise_or, block=block)
    if isinstance(exposure.mask, np.ndarray):
        return reduce(exposure.mask)
    mask = lazy(exposure.planes["mask"], "mask", max(1, 1024 // block) * block)
    sizes = tuple(tuple(-(-size // block) for size in line) for line in mask.chunks)
    return mask.map_blocks(reduce, chunks=sizes, dtype=mask.dtype, meta=np.empty((0, 0), "i4"))


def _draw_mask(ax: Axes, exposure: Exposure, bits: np.ndarray) -> None:
    """Draw the mask, a colour per plane; a flagged pixel is seen however small it gets."""
    from matplotlib.patches import Patch

    box, block = exposure.bbox, _mask_block(exposure)
    set_in = {name: (bits >> bit & 1).astype(bool) for name, bit in exposure.mask_planes.items()}
    present = [name for name in set_in if set_in[name].any()]
    colour = {
        name: _PLANE_COLOURS[exposure.mask_planes[name] % len(_PLANE_COLOURS)] for name in present
    }
    picture = np.full((*bits.shape, 3), 0.96)
    for name in sorted(present, key=lambda name: set_in[name].sum(), reverse=True):
        picture[set_in[name]] = _rgb(colour[name])
    ax.imshow(
        picture, origin="lower", extent=_extent(box, bits.shape, block), interpolation="nearest"
    )
    _frame(ax, box)
    ax.set_title("mask")
    handles = [Patch(color=colour[name], label=name) for name in present]
    handles = handles or [Patch(facecolor="none", label="no plane is set")]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4,
              frameon=False, fontsize="small")  # fmt: skip


def _corners(boxes: Iterable[Box]) -> list[list[tuple[float, float]]]:
    """Corners of boxes, at the outer edges of their pixels."""
    edges = ((b[0] - 0.5, b[1] - 0.5, b[0] + b[2] - 0.5, b[1] + b[3] - 0.5) for b in boxes)
    return [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, y0, x1, y1 in edges]


def _frame(ax: Axes, box: Box) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    ax.set_xlim(box.x0 - 0.5, box.x1 - 0.5)
    ax.set_ylim(box.y0 - 0.5, box.y1 - 0.5)
    ax.set_aspect("equal")
    ax.set_xlabel("x [pixel]")
    ax.set_ylabel("y [pixel]")
