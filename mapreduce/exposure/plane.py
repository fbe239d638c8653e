"""A plane of pixels: a NumPy array, a dask array, or what is read by block.

A *plane source* is anything with ``shape``, ``dtype`` and ``__getitem__`` that returns NumPy
arrays: what the readers of files give, a zarr array, an h5py dataset. Only the block that is needed
is read, by several threads at a time; for other processes it must be picklable. Of FITS files
`mapreduce.read_exposure` makes plane sources; a ``section`` of astropy is none, as its threads
would move about in one open file.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import dask.array as da
import numpy as np
from dask.base import tokenize

__all__ = [
    "Array",
    "Derived",
    "Plane",
    "PlaneSource",
    "Section",
    "cut",
    "lazy",
    "plane_token",
    "read",
]

_CHUNK_BYTES = 16 * 2**20


@runtime_checkable
class PlaneSource(Protocol):
    """An array on disk or elsewhere, read by block.

    Its ``__getitem__`` must be safe to call from several threads at the same time.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    @property
    def dtype(self) -> np.dtype:
        """Of what is read."""

    def __getitem__(self, slices: tuple[slice, slice]) -> np.ndarray:
        """Read a block."""


Array = np.ndarray | da.Array
Plane = Array | PlaneSource


class Section:
    """A rectangle of a plane source, still unread."""

    def __init__(self, whole: PlaneSource, slices: tuple[slice, slice]) -> None:
        self.whole = whole
        y, x = (slice(*s.indices(n)[:2]) for s, n in zip(slices, whole.shape, strict=True))
        self.slices = y, x
        self.shape = y.stop - y.start, x.stop - x.start
        self.dtype = np.dtype(whole.dtype)
        self.ndim = 2

    def __getitem__(self, slices: tuple[slice, slice]) -> np.ndarray:
        ranges = (s.indices(n) for s, n in zip(slices, self.shape, strict=True))
        y, x = (
            slice(outer.start + start, outer.start + stop, step)
            for outer, (start, stop, step) in zip(self.slices, ranges, strict=True)
        )
        return self.whole[y, x]

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return "Section", tokenize(self.whole), str(self.slices)


@dataclass(frozen=True)
class Derived:
    """A plane source that is computed block by block from others of the same shape.

    Attributes
    ----------
    function : callable
        From one block of each plane to the block; importable, or a `functools.partial` of one
        that is.
    planes : tuple of PlaneSource
        What it is computed from.
    dtype : numpy.dtype
        Of what the function returns.

    Raises
    ------
    ValueError
        If the planes differ in shape.
    """

    function: Callable[..., np.ndarray]
    planes: tuple[PlaneSource, ...]
    dtype: np.dtype

    ndim = 2

    def __post_init__(self) -> None:
        shapes = {tuple(plane.shape) for plane in self.planes}
        if len(shapes) > 1:
            raise ValueError(f"the planes differ in shape: {sorted(shapes)} (rows, columns)")

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.planes[0].shape

    def __getitem__(self, slices: tuple[slice, slice]) -> np.ndarray:
        return self.function(*(plane[slices] for plane in self.planes))

    def __dask_tokenize__(self) -> tuple[str, str, list[str]]:
        return "Derived", tokenize(self.function), [tokenize(p) for p in self.planes]


def cut(plane: Plane, slices: tuple[slice, slice]) -> Plane:
    """Return a rectangle of a plane, without reading or copying."""
    # Most are NumPy's, and every cell cuts six: to ask for the union takes longer than the view.
    if type(plane) is np.ndarray or isinstance(plane, Array):
        return plane[slices]
    if isinstance(plane, Section):
        y, x = (
            slice(outer.start + inner.start, outer.start + inner.stop)
            for outer, inner in zip(plane.slices, slices, strict=True)
        )
        plane, slices = plane.whole, (y, x)
    return Section(plane, slices)


def read(
    plane: np.ndarray | PlaneSource, slices: tuple[slice, slice] = (slice(None), slice(None))
) -> np.ndarray:
    """Return a rectangle of a plane in memory (a view) or of a source (read now), native order."""
    block = np.asanyarray(plane[slices])
    return block if block.dtype.isnative else block.astype(block.dtype.newbyteorder("="))


def lazy(plane: Plane, name: str, chunks: Any = None) -> da.Array:
    """Return the plane as a dask array; rechunked if it is one already and ``chunks`` is given.

    Without ``chunks`` a plane source gets square chunks of about 16 MiB.
    """
    if isinstance(plane, da.Array):
        return plane if chunks is None else plane.rechunk(chunks)
    if chunks is None:
        chunks = max(1, math.isqrt(_CHUNK_BYTES // np.dtype(plane.dtype).itemsize))
    meta = np.empty((0, 0), np.dtype(plane.dtype).newbyteorder("="))
    return da.from_array(
        plane,
        chunks=chunks,
        name=f"{name}-{tokenize(plane_token(plane), chunks)}",
        asarray=False,
        fancy=False,
        meta=meta,
    )


def plane_token(plane: Plane | None) -> object:
    """Return what names a plane's content.

    Hashing the pixels of an in-memory plane would take longer than most work on them, and its
    owner may change them between two runs: it is new content every time it is asked for.
    """
    if isinstance(plane, np.ndarray):
        return uuid.uuid4().hex
    return None if plane is None else tokenize(plane)
