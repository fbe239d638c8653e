"""What the cards that say where things are in a FITS file must be.

A damaged or hostile header must neither send the scan of a file round in circles nor reach the C
code that decompresses tiles, which believes what it is told. Each function here takes cards as a
mapping and raises a ValueError that names the card, its value, and what would be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from .cards import is_number

__all__ = ["Column", "array_shape", "check_scaling", "columns", "data_size", "tiling"]

_BITPIX = (8, 16, 32, 64, -32, -64)
_MAX = 999  # axes, and columns of a table
_MAX_TILE = 2**28  # pixels, of up to 8 bytes, whose number is an int in the C code
_TFORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])(.*)")
_BYTES = dict(zip("LBIJKAEDCMPQ", (1, 1, 2, 4, 8, 1, 4, 8, 8, 16, 8, 16), strict=True))
_CODECS = ("GZIP_1", "GZIP_2", "RICE_1", "RICE_ONE", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS")
_DITHERS = ("SUBTRACTIVE_DITHER_1", "SUBTRACTIVE_DITHER_2")


def array_shape(cards: Mapping[str, Any], prefix: str = "") -> tuple[int, ...]:
    """Return the shape of an array in numpy's order; ``prefix`` is Z for one that is compressed.

    Examples
    --------
    >>> array_shape({"BITPIX": -32, "NAXIS": 2, "NAXIS1": 30, "NAXIS2": 40})
    (40, 30)
    >>> array_shape({"BITPIX": -32, "NAXIS": 1, "NAXIS1": -30})
    Traceback (most recent call last):
    ValueError: NAXIS1 is -30; it must be a whole number, 0 or more
    """
    _one_of(cards, f"{prefix}BITPIX", _BITPIX)
    naxis = _whole(cards, f"{prefix}NAXIS", 0, _MAX)
    return tuple(_whole(cards, f"{prefix}NAXIS{i}", 0) for i in range(naxis, 0, -1))


def data_size(cards: Mapping[str, Any]) -> int:
    """Return the bytes that the data of an HDU take.

    Examples
    --------
    >>> data_size({"BITPIX": 16, "NAXIS": 2, "NAXIS1": 30, "NAXIS2": 40})
    2400
    """
    axes = array_shape(cards)[::-1]
    pcount = _whole(cards, "PCOUNT", 0, default=0)
    gcount = _whole(cards, "GCOUNT", 1, default=1)
    if cards.get("GROUPS") is True and axes[:1] == (0,):
        axes = axes[1:]
    if not axes:
        return 0
    return abs(cards["BITPIX"]) // 8 * gcount * (pcount + math.prod(axes))


def check_scaling(cards: Mapping[str, Any]) -> None:
    """Check the cards that say how values in the file become those of the image.

    Examples
    --------
    >>> check_scaling({"BSCALE": "two"})
    Traceback (most recent call last):
    ValueError: BSCALE is 'two'; it must be a number
    """
    for keyword in ("BSCALE", "BZERO"):
        if not is_number(value := cards.get(keyword, 1)):
            raise ValueError(f"{keyword} is {value!r}; it must be a number")
    for keyword in ("BLANK", "ZBLANK"):
        if keyword in cards:
            _whole(cards, keyword, -(2**63), 2**63 - 1)


class Column(NamedTuple):
    """Where a column of a binary table is in a row.

    Attributes
    ----------
    offset : int
        Of its first byte.
    code : str
        Letter of its type; of one with elements in the heap, P or Q.
    of : str
        Letter of the type of what is in the heap.
    """

    offset: int
    code: str
    of: str


def columns(cards: Mapping[str, Any]) -> dict[str, Column]:
    """Return the columns of a binary table by name, after checks of the table's layout.

    Examples
    --------
    >>> cards = {"BITPIX": 8, "NAXIS": 2, "NAXIS1": 12, "NAXIS2": 5, "TFIELDS": 2}
    >>> columns(cards | {"TFORM1": "J", "TTYPE1": "A", "TFORM2": "1PB(9)"})
    {'A': Column(offset=0, code='J', of=''), '': Column(offset=4, code='P', of='B')}
    """
    _one_of(cards, "BITPIX", (8,))
    _whole(cards, "NAXIS", 2, 2)
    width, rows = _whole(cards, "NAXIS1", 0), _whole(cards, "NAXIS2", 0)
    found, offset = {}, 0
    for i in range(1, _whole(cards, "TFIELDS", 0, _MAX) + 1):
        form = cards.get(f"TFORM{i}")
        match = _TFORM.match(form.strip()) if isinstance(form, str) else None
        if match is None:
            raise ValueError(f"TFORM{i} is {form!r}, which is no format of a column")
        repeat, code, rest = match.groups()
        count = int(repeat or 1)
        found[str(cards.get(f"TTYPE{i}", "")).strip()] = Column(
            offset, code, rest[:1] if code in "PQ" else ""
        )
        offset += -(-count // 8) if code == "X" else count * _BYTES[code]
    if offset != width:
        raise ValueError(f"the columns take {offset} bytes of rows of {width}")
    heap = rows * width
    _whole(cards, "THEAP", heap, heap + _whole(cards, "PCOUNT", 0, default=0), default=heap)
    return found


class Tiling(NamedTuple):
    """How an image is cut into tiles, and how they are compressed.

    Attributes
    ----------
    codec : str
        ZCMPTYPE.
    tile : tuple of int
        Shape of a tile in numpy's order.
    columns : mapping of str to Column
        Of the table whose rows are tiles.
    width : int
        Bytes of a row of the table.
    heap : (int, int)
        Offset in the data, and size, of the bytes that the rows refer to.
    block : int
        Of Rice: pixels that are coded together.
    """

    codec: str
    tile: tuple[int, ...]
    columns: Mapping[str, Column]
    width: int
    heap: tuple[int, int]
    block: int


def tiling(cards: Mapping[str, Any]) -> Tiling:
    """Return how an image is tiled, after checks of all that its decompression relies on."""
    shape = array_shape(cards, "Z")
    codec = _one_of(cards, "ZCMPTYPE", _CODECS)
    tile = tuple(_whole(cards, f"ZTILE{i}", 1) for i in range(len(shape), 0, -1))
    tile = tuple(max(1, min(sizes)) for sizes in zip(tile, shape, strict=True))
    if math.prod(tile) > _MAX_TILE:
        raise ValueError(f"a tile has {math.prod(tile)} pixels; {_MAX_TILE} can be decompressed")
    table = columns(cards)
    count = math.prod(-(-n // size) for n, size in zip(shape, tile, strict=True))
    if count != cards["NAXIS2"]:
        raise ValueError(f"NAXIS2 is {cards['NAXIS2']}; it must be the number of tiles, {count}")
    _check_tile_columns(table, codec)
    settings = _settings(cards)
    block = _whole(settings, "BLOCKSIZE", 1, 256, default=32)
    _one_of(settings, "BYTEPIX", (1, 2, 4), default=4)
    if codec == "HCOMPRESS_1":
        _whole(settings, "SMOOTH", 0, 1, default=0)
    _check_dither(cards)
    width = cards["NAXIS1"]
    heap = cards.get("THEAP", count * width)
    size = count * width + cards.get("PCOUNT", 0) - heap
    return Tiling(codec, tile, table, width, (heap, size), block)


def _check_tile_columns(table: Mapping[str, Column], codec: str) -> None:
    """Check that there are bytes of tiles, and as the algorithm expects them."""
    kinds = {
        "COMPRESSED_DATA": "I" if codec == "PLIO_1" else "B" if codec[0] in "RH" else "BIJ",
        "GZIP_COMPRESSED_DATA": "BIJ",
        "UNCOMPRESSED_DATA": "BIJED",
    }
    if "COMPRESSED_DATA" not in table:
        raise ValueError("there is no column COMPRESSED_DATA, of the bytes of the tiles")
    for name in kinds.keys() & table.keys():
        column = table[name]
        if column.code not in "PQ" or column.of not in (*kinds[name],):
            right = " or ".join(f"1P{code}" for code in kinds[name])
            raise ValueError(f"the column {name} is {column.code}{column.of}; it must be {right}")


def _settings(cards: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the algorithm, which are pairs of cards ZNAMEn and ZVALn."""
    settings: dict[str, Any] = {}
    for i in range(1, _MAX + 1):
        if f"ZNAME{i}" not in cards:
            break
        name = cards[f"ZNAME{i}"]
        if not isinstance(name, str) or f"ZVAL{i}" not in cards:
            raise ValueError(f"ZNAME{i} is {name!r}; it must name the parameter in a card ZVAL{i}")
        settings.setdefault(name.upper(), cards[f"ZVAL{i}"])
    return settings


def _check_dither(cards: Mapping[str, Any]) -> None:
    method = _one_of(cards, "ZQUANTIZ", (*_DITHERS, "NO_DITHER", "NONE"), default="NO_DITHER")
    if method in _DITHERS:
        _whole(cards, "ZDITHER0", 1, 10000)


def _whole(
    cards: Mapping[str, Any],
    keyword: str,
    low: int,
    high: int | None = None,
    *,
    default: int | None = None,
) -> int:
    """Return a card that must be a whole number in a range."""
    value = cards.get(keyword, default)
    if type(value) is int and low <= value and (high is None or value <= high):
        return value
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    raise ValueError(_wrong(cards, keyword, f"a whole number, {allowed}"))


def _one_of(
    cards: Mapping[str, Any], keyword: str, allowed: Collection[Any], *, default: Any = None
) -> Any:
    value = cards.get(keyword, default)
    if not isinstance(value, bool) and value in allowed:
        return value
    raise ValueError(_wrong(cards, keyword, " or ".join(map(str, allowed))))


def _wrong(cards: Mapping[str, Any], keyword: str, right: str) -> str:
    if keyword not in cards:
        return f"there is no card {keyword}; it must be {right}"
    return f"{keyword} is {cards[keyword]!r}; it must be {right}"
