"""Planes of FITS files: handles that open the file when a block is read."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..exposure.formats import naming
from .hdu import Hdu, open_unchanged, shown
from .paths import is_url
from .tiles import check_tiles

__all__ = ["FitsPlane"]

# Of a URL: a request takes about as long as this many bytes, and so many are read by one.
_GAP, _SPAN = 2**20, 2**24


@dataclass(frozen=True)
class FitsPlane:
    """The image of an HDU as a plane: a handle that opens the file whenever a block is read.

    It holds no file and no pixels, so it is small, picklable, and safe to share between threads
    and workers (which must see the file under the same path or URL). Blocks are new arrays in
    native byte order. Of a tile-compressed image only the tiles needed are decompressed; a file
    compressed as a whole (``.fits.gz``) is decompressed up to the block every time. Of a URL a
    block is read by one request, with what lies between its rows, unless that is far more.

    Parameters
    ----------
    hdu : Hdu
        Where the image is; axes beyond two must be of length 1.
    bits : bool
        Whether integers are taken as bit fields: unsigned, BSCALE and BLANK not applied.

    Raises
    ------
    ValueError
        If the HDU does not hold an image with two dimensions.
    OSError
        If the HDU is damaged; on reading, if the file is gone or was changed since it was scanned.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.io import fits
    >>> from mapreduce.io.hdu import scan
    >>> with TemporaryDirectory() as folder:
    ...     fits.PrimaryHDU(np.eye(40)).writeto(f"{folder}/a.fits")
    ...     FitsPlane(scan(f"{folder}/a.fits")[0])[10:12, 10:13]
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """

    hdu: Hdu
    bits: bool = False

    ndim = 2

    def __post_init__(self) -> None:
        self.hdu.check()
        if not self.hdu.is_image:
            shape = self.hdu.shape
            what = f"an array of shape {shape}" if shape else "no image"
            raise ValueError(
                f"{self.hdu.where} holds {what}; a plane has two dimensions. Of a cube, take one "
                "plane: mr.Exposure(fits.getdata(path)[0])"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.hdu.shape[-2:]
        return rows, columns

    @property
    def dtype(self) -> np.dtype:
        """Of the values, BSCALE and BZERO applied; native byte order."""
        stored = self.hdu.stored_dtype
        return np.dtype(f"u{stored.itemsize}") if self._as_bits else self.hdu.dtype

    @property
    def _as_bits(self) -> bool:
        return self.bits and self.hdu.stored_dtype.kind != "f"

    def __getitem__(self, slices: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (range(n)[s] for s, n in zip(slices, self.shape, strict=True))
        if not len(rows) or not len(columns):
            return np.empty((len(rows), len(columns)), self.dtype)
        spans = _span(rows), _span(columns)
        with naming(self.hdu.path, self.hdu.where, keep=()):
            block = self._read(*spans)
            if block.shape != (expected := (len(spans[0]), len(spans[1]))):
                raise OSError(f"a block of {expected} has become one of {block.shape}")
        if rows.step == columns.step == 1:
            return block
        return np.ascontiguousarray(block[:: rows.step, :: columns.step])

    def _read(self, rows: range, columns: range) -> np.ndarray:
        """Read a rectangle of pixels."""
        hdu = self.hdu
        if not self._as_bits and hdu.scaled and not hdu.unsigned_plio:
            return np.require(self._read_section(rows, columns), self.dtype, ("C", "O"))
        read = self._read_section if hdu.compressed else self._read_rows
        block = np.require(read(rows, columns, as_stored=True), hdu.stored_dtype, ("C", "O", "W"))
        if hdu.sign_flipped and not hdu.unsigned_plio:
            bits = block.view(f"u{block.itemsize}")
            bits ^= bits.dtype.type(1 << (8 * block.itemsize - 1))
        return block if block.dtype == self.dtype else block.view(self.dtype)

    def _read_section(self, rows: range, columns: range, as_stored: bool = False) -> np.ndarray:
        """Read a rectangle by way of astropy."""
        others = (0,) * (len(self.hdu.shape) - 2)
        with open_unchanged(self.hdu) as file:
            if self.hdu.compressed:
                check_tiles(self.hdu, file, rows, columns)
            with shown(self.hdu, file, as_stored=as_stored) as hdu:
                return hdu.section[*others, rows.start : rows.stop, columns.start : columns.stop]

    def _read_rows(self, rows: range, columns: range, as_stored: bool = True) -> np.ndarray:
        """Read a rectangle row by row, or at once where the rows are whole."""
        dtype, width = self.hdu.stored_dtype, self.shape[1]
        size = dtype.itemsize
        block = np.empty((len(rows), len(columns)), dtype)
        pieces = block.reshape(1, -1) if len(columns) == width else block
        with open_unchanged(self.hdu) as file:
            if len(pieces) > 1 and is_url(self.hdu.path) and (width - len(columns)) * size < _GAP:
                return self._read_spans(file, rows, columns, block)
            for i, piece in enumerate(pieces):
                file.seek(self.hdu.data + ((rows.start + i) * width + columns.start) * size)
                if file.readinto(piece.view(np.uint8)) != piece.nbytes:
                    raise OSError(f"the file ends before row {rows.start + i}")
        if np.little_endian:
            block.byteswap(inplace=True)
        return block

    def _read_spans(
        self, file: io.BufferedIOBase, rows: range, columns: range, block: np.ndarray
    ) -> np.ndarray:
        """Fill a block with many rows at a time, read with what lies between."""
        dtype = block.dtype.newbyteorder(">")
        size, row = dtype.itemsize, self.shape[1] * dtype.itemsize
        count = max(1, _SPAN // row)
        for first in range(0, len(rows), count):
            piece = block[first : first + count]
            file.seek(self.hdu.data + (rows.start + first) * row + columns.start * size)
            raw = file.read((len(piece) - 1) * row + len(columns) * size)
            try:
                piece[:] = np.ndarray(piece.shape, dtype, raw, strides=(row, size))
            except TypeError:  # numpy's word for a buffer that is too small
                raise OSError(f"the file ends before row {rows.start + first + count}") from None
        return block

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "FitsPlane", self.hdu.path, self.hdu.stamp, self.hdu.index, self.bits


def _span(indices: range) -> range:
    """Return the smallest range of step 1 that holds an increasing range."""
    if indices.step < 1:
        raise ValueError(f"a block is read forwards, got step {indices.step}")
    return range(indices.start, indices[-1] + 1)
