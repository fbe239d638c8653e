"""Where cells lie: the arithmetic of their boxes, in whole pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..exposure.box import Box
from .grid import CELL, Cell, cells_of, table_of

__all__ = ["around", "even", "regular"]

Size = tuple[int, int]  # (x, y)

_SPAN = [("start", np.int64), ("length", np.int64)]
_SPANS = np.dtype([("core", _SPAN), ("expanded", _SPAN)])  # of cells along one axis


def regular(box: Box, size: Size, step: Size, border: Size, adjust: str) -> np.ndarray:
    """Return the cells of a regular grid over a box, without numbers, as an array of `CELL`.

    Parameters
    ----------
    box : Box
    size, step, border : (int, int)
        In x and in y: of the core, between cells, on every side.
    adjust : str
        See `GridConfig`.
    """
    if adjust == "size":
        size = step[0] + 1, step[1] + 1
    columns, rows = map(_spans, box[2:], size, step, border, (adjust, adjust))
    table = np.zeros(len(columns) * len(rows), CELL)
    x, y = np.repeat(columns, len(rows)), np.tile(rows, len(columns))
    for part in ("core", "expanded"):
        boxes = table[part]
        boxes["x0"], boxes["width"] = box.x0 + x[part]["start"], x[part]["length"]
        boxes["y0"], boxes["height"] = box.y0 + y[part]["start"], y[part]["length"]
    return table


def around(box: Box, centers: Iterable[tuple[int, int]], size: Size, border: Size) -> np.ndarray:
    """Return cells around pixels (x, y), clipped to a box, without numbers; see `regular`."""
    width, height = size
    cores = [Box(x - width // 2, y - height // 2, width, height) for x, y in centers]
    return table_of(Cell(0, core.clip(box), core.grow(*border).clip(box)) for core in cores)


def even(box: Box, table: np.ndarray) -> np.ndarray:
    """Return cells whose boxes have even sizes, inside of a box."""
    return table_of(
        Cell(index, _even(core, box), _even(expanded, box))
        for index, core, expanded in cells_of(table)
    )


def _spans(length: int, size: int, step: int, border: int, adjust: str) -> np.ndarray:
    """Return the cells along one axis, in local coordinates."""
    if adjust == "partition":
        cores = _partition(length, size)
    else:
        centers = _centers(adjust, length, size, step)
        cores = [(int(center) - size // 2, size) for center in centers]
    spans = [
        (_clipped(start, size, length), _clipped(start - border, size + 2 * border, length))
        for start, size in cores
    ]
    return np.array(spans, _SPANS)


def _partition(length: int, size: int) -> list[tuple[int, int]]:
    """Return (start, length) of the fewest equal pieces not longer than ``size``."""
    count = -(-length // size)
    edges = [length * n // count for n in range(count + 1)]
    return [(start, stop - start) for start, stop in zip(edges, edges[1:], strict=False)]


def _centers(adjust: str, length: int, size: int, step: int) -> np.ndarray:
    """Return the local centers of the cells along one axis."""
    if adjust == "spacing":
        count = length // size + 1 if size else 0
        return np.linspace(size // 2, length - size // 2, count)
    if step == 0:
        raise ValueError(f"the step rounds to zero pixels, which adjust={adjust!r} cannot use")
    first = (step if adjust == "size" else size) // 2
    return first + step * np.arange(math.ceil(length / step))


def _clipped(start: int, length: int, limit: int) -> tuple[int, int]:
    """Return the start and length of the part from 0 to the limit."""
    first = max(start, 0)
    return first, max(min(start + length, limit) - first, 0)


def _even(box: Box, limits: Box) -> Box:
    """Return a box of even sizes: one pixel more on the high side, or else on the low one."""
    if not box.area:
        return box
    x0, x1 = _even_span(box.x0, box.x1, limits.x0, limits.x1, box)
    y0, y1 = _even_span(box.y0, box.y1, limits.y0, limits.y1, box)
    return Box.from_edges(x0, y0, x1, y1)


def _even_span(start: int, stop: int, low: int, high: int, box: Box) -> tuple[int, int]:
    if (stop - start) % 2 == 0:
        return start, stop
    if stop < high:
        return start, stop + 1
    if start > low:
        return start - 1, stop
    raise RuntimeError(
        f"{box} cannot be even-sized: it spans the whole of an axis of {high - low} pixels; "
        "use a smaller cell or border"
    )
