"""From any number of pixels to a small picture: thinned out first, so that it is quickly drawn."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import dask.array as da
import numpy as np

from .optional import require

__all__ = [
    "block_means",
    "by_block",
    "gray",
    "matplotlib",
    "sampled",
    "steps",
    "stretch",
    "thinned",
]

_NAN_COLOR = "#5b8db8"


def matplotlib(module: str = "matplotlib") -> ModuleType:
    """Return matplotlib, or one of its modules.

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> matplotlib("matplotlib.colors").to_rgb("black")
    (0.0, 0.0, 0.0)
    """
    return require(module, "pictures need matplotlib: pip install 'skyfold[plot]'")


def gray() -> Any:
    """Return the color map of pixels: gray, and blue where there is no value."""
    return matplotlib().colormaps["gray"].with_extremes(bad=_NAN_COLOR)


def stretch(pixels: np.ndarray) -> Any:
    """Return an asinh stretch between the 1 and 99.5 percentiles of the finite pixels, if any."""
    from astropy.visualization import AsinhStretch, ImageNormalize

    finite = pixels[np.isfinite(pixels)]
    low, high = np.percentile(finite, (1, 99.5)) if finite.size else (0.0, 1.0)
    if not high - low > 1e-9 * abs(high):
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    return ImageNormalize(vmin=low, vmax=high, stretch=AsinhStretch(0.1), clip=False)


def steps(shape: tuple[int, int], limit: int) -> tuple[int, int]:
    """Return the size of the blocks that make a picture, and which pixels of them are read."""
    block = max(1, math.ceil(max(shape) / limit))
    step = max(1, block // 3)
    return step * math.ceil(block / step), step


def sampled(pixels: np.ndarray | da.Array, limit: int) -> np.ndarray | da.Array:
    """Return of large blocks only every so manyth row and column; lazy if the pixels are."""
    _, step = steps(pixels.shape, limit)
    pixels = pixels[::step, ::step]
    # A view would keep the whole block.
    return da.map_blocks(np.copy, pixels) if isinstance(pixels, da.Array) else pixels


def thinned(pixels: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
    """Return block means of at most ``limit`` pixels a side, and the size of the blocks.

    Examples
    --------
    >>> thinned(np.array([[1.0, 3.0, 5.0], [np.nan, 3.0, 6.0]]), limit=2)
    (array([[2.33333333, 5.5       ]]), 2)
    """
    block, step = steps(pixels.shape, limit)
    return block_means(np.asarray(sampled(pixels, limit)), block // step), block


def block_means(pixels: np.ndarray, number: int) -> np.ndarray:
    """Return means of blocks of so many pixels a side, float64; NaN where nothing is finite."""
    pixels = np.array(pixels, np.float64)
    finite = np.isfinite(pixels)
    pixels[~finite] = 0
    np.clip(pixels, -1e60, 1e60, out=pixels)  # so that neither sums nor stretches overflow
    total = by_block(np.add, pixels, number)
    count = by_block(np.add, finite.astype(np.int32), number)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def by_block(ufunc: np.ufunc, pixels: np.ndarray, block: int) -> np.ndarray:
    """Reduce square blocks; those at the far edges may be smaller."""
    for _ in range(2):  # rows, then columns
        result = pixels[::block].copy()
        for k in range(1, block):
            part = pixels[k::block]
            ufunc(result[: len(part)], part, out=result[: len(part)])
        pixels = result.T
    return pixels
