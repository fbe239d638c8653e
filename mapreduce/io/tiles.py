"""Whether the tiles of a compressed image can be decompressed: before astropy's C code does it.

That code takes from a tile's bytes how long they are and how many pixels they make, and from the
table where they lie.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .hdu import Hdu
from .structure import Column, Tiling

__all__ = ["check_tiles"]

_COLUMNS = ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA")
_BYTES = {"B": 1, "I": 2, "J": 4, "E": 4, "D": 8}
_GZIP = 1032  # bytes that one byte of gzip can stand for
_FREE = 2**28  # bytes that a tile may take whatever it holds: counting takes as long as decoding
_HCOMPRESS = b"\xdd\x99"
_BITPLANES = 64


class Tile(NamedTuple):
    """One tile's bytes in the heap."""

    row: int
    column: str
    offset: int
    size: int
    shape: tuple[int, int]


def check_tiles(hdu: Hdu, file: io.BufferedIOBase, rows: range, columns: range) -> None:
    """Check the tiles that a rectangle of an image takes, in the HDU's open file.

    Raises
    ------
    OSError
        If one cannot be decompressed, or not into the pixels that it should be.
    """
    layout = hdu.check()
    assert layout is not None
    try:
        for tile in _tiles(file, hdu, layout, rows, columns):
            _check(file, hdu.data + layout.heap[0], layout, tile)
    except ValueError as error:
        raise OSError(f"{hdu.where}: {error}") from error


def _tiles(
    file: io.BufferedIOBase, hdu: Hdu, layout: Tiling, rows: range, columns: range
) -> Iterator[Tile]:
    """Yield the tiles of a rectangle, after a check that they are inside of the heap."""
    (height, width), (ny, nx) = layout.tile[-2:], hdu.shape[-2:]
    across = -(-nx // width)
    first, last = columns.start // width, columns[-1] // width
    for j in range(rows.start // height, rows[-1] // height + 1):
        start = j * across + first
        file.seek(hdu.data + start * layout.width)
        table = file.read((last - first + 1) * layout.width)
        for i in range(first, last + 1):
            row = table[(i - first) * layout.width : (i - first + 1) * layout.width]
            shape = min(height, ny - j * height), min(width, nx - i * width)
            yield _tile(row, start + i - first, layout, shape)


def _tile(row: bytes, number: int, layout: Tiling, shape: tuple[int, int]) -> Tile:
    for name in _COLUMNS:
        if name not in layout.columns:
            continue
        column = layout.columns[name]
        count, offset = _descriptor(row, column)
        size = count * _BYTES[column.of]
        if count < 0 or offset < 0 or offset + size > layout.heap[1]:
            raise ValueError(
                f"tile {number} takes {size} bytes at {offset} of a heap of {layout.heap[1]}"
            )
        if count:
            return Tile(number, name, offset, size, shape)
    raise ValueError(f"tile {number} has no bytes")


def _descriptor(row: bytes, column: Column) -> tuple[int, int]:
    dtype = np.dtype(">i4" if column.code == "P" else ">i8")
    count, offset = np.frombuffer(row, dtype, 2, column.offset).tolist()
    return count, offset


def _check(file: io.BufferedIOBase, heap: int, layout: Tiling, tile: Tile) -> None:
    """Check what a tile's own bytes say."""
    codec = {
        "COMPRESSED_DATA": layout.codec,
        "GZIP_COMPRESSED_DATA": "GZIP_1",
        "UNCOMPRESSED_DATA": "NOCOMPRESS",
    }[tile.column]
    pixels = math.prod(tile.shape)
    # Of Rice, a block of pixels takes three bits at least.
    most, bits = {"G": (_GZIP, 1), "N": (1, 1), "R": (8 * layout.block, 3)}.get(codec[0], (0, 0))
    if pixels * bits > (tile.size + 8) * most:
        raise ValueError(f"tile {tile.row} has {tile.size} bytes for {pixels} pixels")
    if codec[0] == "G" and tile.size * _GZIP > _FREE:
        _check_gzip(_read(file, heap, tile, tile.size), tile, 8 * pixels)
    elif codec[0] == "P":
        _check_plio(_read(file, heap, tile, 10), tile)
    elif codec[0] == "H":
        _check_hcompress(_read(file, heap, tile, 25), tile)


def _read(file: io.BufferedIOBase, heap: int, tile: Tile, size: int) -> bytes:
    if tile.size < size:
        raise ValueError(f"tile {tile.row} has {tile.size} bytes; it must have {size} or more")
    file.seek(heap + tile.offset)
    return file.read(size)


def _check_gzip(data: bytes, tile: Tile, most: int) -> None:
    decoder = zlib.decompressobj(wbits=31)
    try:
        size = len(decoder.decompress(data, most + 1))
    except zlib.error as error:
        raise ValueError(f"tile {tile.row}: {error}") from error
    if size > most or decoder.unused_data:
        raise ValueError(f"tile {tile.row} holds more than the {most} bytes that its pixels take")


def _check_plio(head: bytes, tile: Tile) -> None:
    """Check the length of a line list, and where in it the list begins."""
    words = np.frombuffer(head, ">i2").tolist()
    first, length = (3, words[2]) if words[2] > 0 else (words[1], (words[4] << 15) + words[3])
    if not 3 <= first <= length <= tile.size // 2:
        raise ValueError(
            f"tile {tile.row}: a PLIO list of {length} words from {first} in {tile.size} bytes"
        )


def _check_hcompress(head: bytes, tile: Tile) -> None:
    """Check the size of the image, and the number of bits of its coefficients."""
    shape = tuple(np.frombuffer(head, ">i4", 2, 2).tolist())
    wanted = tuple(n for n in tile.shape if n != 1)
    if head[:2] != _HCOMPRESS or shape != wanted or max(head[22:25]) > _BITPLANES:
        raise ValueError(
            f"tile {tile.row} is not an HCOMPRESS image of {tile.shape}: it starts with {head!r}"
        )
