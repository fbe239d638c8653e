"""The HDUs of a FITS file, found without reading pixels and opened one at a time.

A file is scanned once: where each HDU starts, how long it is, and the few cards that say what it
holds. Every later access goes straight to one HDU, so that a block of the last CCD of a mosaic
costs no more than one of the first. Astropy parses the headers, decompresses tiles and applies
BZERO and BSCALE; it is shown the one HDU as if that were the whole file.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits

from .cards import CARD, mended, value_of
from .paths import Seekable, Stamp, is_url, located, open_bytes, openable, stamp_of
from .structure import Tiling, array_shape, check_scaling, columns, data_size, tiling

__all__ = [
    "BLOCK",
    "Hdu",
    "listed",
    "open_data",
    "open_file",
    "open_hdu",
    "open_unchanged",
    "read_table",
    "scan",
    "shown",
]

BLOCK = 2880  # bytes, of which FITS files are made

_FACTS = frozenset(
    "XTENSION BITPIX NAXIS PCOUNT GCOUNT GROUPS EXTNAME EXTVER EXTTYPE BSCALE BZERO BLANK "
    "ZIMAGE ZBITPIX ZNAXIS ZBLANK ZCMPTYPE CCDNUM DATAMODL AR_HDU INSTRUME PLVER PSFMODEL".split()
)
_AXES = ("NAXIS", "ZNAXIS")
# Of the table that a tile-compressed image is stored as.
_TABLE = re.compile(
    r"XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|T(FIELDS|HEAP)"
    r"|T(TYPE|FORM|DIM|NULL|UNIT|DISP|SCAL|ZERO)\d+"
    r"|Z(IMAGE|CMPTYPE|MASKCMP|QUANTIZ|DITHER0|BLANK|SCALE|ZERO)|Z(TILE|NAME|VAL)\d+"
    r"|Z(SIMPLE|TENSION|EXTEND|BLOCKED|PCOUNT|GCOUNT)|ZHECKSUM|ZDATASUM"
)
_OF_IMAGE = re.compile(r"Z(BITPIX|NAXIS\d*)")
_LAYOUT = re.compile(r"THEAP|TFIELDS|ZCMPTYPE|ZQUANTIZ|ZDITHER0|(TFORM|TTYPE|ZTILE|ZNAME|ZVAL)\d+")
_EXTENSIONS = ("IMAGE", "TABLE", "BINTABLE", "A3DTABLE", "IUEIMAGE", "FOREIGN", "DUMP")
_MAX_HEADER = 2**24  # bytes; more is no header
_TEXT = bytes(range(32, 127))  # what cards are written in
_MAX_DEFLATED = 1032  # bytes that one byte of gzip can stand for
_STUB = fits.PrimaryHDU().header.tostring().encode("ascii")


@dataclass(frozen=True)
class Hdu:
    """Where one HDU of a file is, and what it holds.

    Attributes
    ----------
    path : str
        Absolute path of the file, or its URL.
    stamp : Stamp
        Size and modification time (ns) of the file when it was scanned; of a URL the size and what
        the server says of its content.
    index : int
        Number of the HDU, from 0.
    start, data, stop : int
        Byte offsets of the header, the data, and the end of the data (without padding).
    facts : mapping
        The cards that say what the HDU holds.
    names_planes : bool
        Whether the header names mask planes (cards ``MP_*`` or ``MSKN*``).
    fault : str
        What is wrong with the description of the image, so that it cannot be read; or empty.
    """

    path: str
    stamp: Stamp
    index: int
    start: int
    data: int
    stop: int
    facts: Mapping[str, Any] = field(hash=False)
    names_planes: bool = False
    fault: str = ""

    @property
    def name(self) -> str:
        """EXTNAME in capitals; empty where there is none."""
        return str(self.facts.get("EXTNAME", "")).strip().upper()

    @property
    def version(self) -> int:
        """EXTVER, 1 where there is none."""
        version = self.facts.get("EXTVER", 1)
        return version if isinstance(version, int) else 1

    @property
    def compressed(self) -> bool:
        """Whether this is a tile-compressed image."""
        return self.facts.get("ZIMAGE") is True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image, in numpy's order; empty for tables and for HDUs without data."""
        if self.fault or not _holds_array(self.facts):
            return ()
        return array_shape(self.facts, "Z" if self.compressed else "")

    @property
    def is_image(self) -> bool:
        """Whether there are pixels in two dimensions, others of length 1; or should have been."""
        if self.fault:
            return True
        return len(self.shape) >= 2 and 0 not in self.shape and {*self.shape[:-2]} <= {1}

    @property
    def is_table(self) -> bool:
        """Whether it is stored as a binary table, as compressed images are, too."""
        return self.facts.get("XTENSION") in ("BINTABLE", "A3DTABLE")

    @property
    def stored_dtype(self) -> np.dtype:
        """Data type of the numbers in the file; native."""
        bits = self.facts["ZBITPIX" if self.compressed else "BITPIX"]
        return np.dtype(f"f{-bits // 8}" if bits < 0 else "u1" if bits == 8 else f"i{bits // 8}")

    @property
    def dtype(self) -> np.dtype:
        """Data type of the image's values, BSCALE, BZERO and BLANK applied; native."""
        stored = self.stored_dtype
        if self.sign_flipped:
            return np.dtype("i1" if stored.itemsize == 1 else f"u{stored.itemsize}")
        if stored.kind == "f" or not self.scaled:
            return stored
        return np.dtype("f4" if stored.itemsize <= 2 else "f8")

    @property
    def sign_flipped(self) -> bool:
        """Whether integers are stored with the other sign bit: unsigned ones, and signed bytes."""
        stored = self.stored_dtype
        half = -128 if stored.itemsize == 1 else 2 ** (8 * stored.itemsize - 1)
        return stored.kind != "f" and self._scaling == (1, half)

    @property
    def scaled(self) -> bool:
        """Whether values in the file differ from those of the image."""
        blank = self.stored_dtype.kind != "f" and ("BLANK" in self.facts or "ZBLANK" in self.facts)
        return self._scaling != (1, 0) or blank

    @property
    def unsigned_plio(self) -> bool:
        """Whether this is the one image of which cfitsio adds BZERO before it compresses."""
        is_wide = self.stored_dtype.itemsize == 2
        return is_wide and self.sign_flipped and self.facts.get("ZCMPTYPE") == "PLIO_1"

    @property
    def _scaling(self) -> tuple[Any, Any]:
        return self.facts.get("BSCALE", 1), self.facts.get("BZERO", 0)

    @property
    def where(self) -> str:
        """How error messages name the HDU."""
        return f"{self.path}, HDU {self.index}" + (f" ({self.name})" if self.name else "")

    def header(self) -> fits.Header:
        """Read the header, mended; of a compressed image as astropy has it, not its table's."""
        raw = self._raw_header()
        return mended(_of_the_image(raw) if self.compressed else raw, self.where)

    def _raw_header(self) -> bytes:
        with open_unchanged(self) as file:
            file.seek(self.start)
            return file.read(self.data - self.start)

    def check(self) -> Tiling | None:
        """Check all that reading the data relies on; return how an image is tiled, if it is.

        Raises
        ------
        OSError
            If a card is wrong.
        """
        if self.fault:
            raise OSError(f"{self.where}: {self.fault}")
        return _layout(self) if self.is_table else None


def _of_the_image(table: bytes) -> bytes:
    """Return the header of an image that is stored as a table."""
    cards = [b"XTENSION= 'IMAGE   '".ljust(CARD)]
    for keyword, card in _cards(table):
        if _OF_IMAGE.fullmatch(keyword):
            cards.append(keyword[1:].ljust(8).encode() + card[8:])
        elif not _TABLE.fullmatch(keyword):
            cards.append(card)
    return b"".join(cards)


def listed(hdus: Sequence[Hdu]) -> str:
    """Return the HDUs as error messages list them.

    Examples
    --------
    >>> facts = {"BITPIX": -32, "NAXIS": 2, "NAXIS1": 30, "NAXIS2": 40, "EXTNAME": "SCI"}
    >>> listed([Hdu("a.fits", (0, 0), 0, 0, 2880, 7680, facts)])
    '0 SCI (40 x 30 float32)'
    """
    texts = []
    for hdu in hdus:
        size = " x ".join(map(str, hdu.shape))
        kind = f"{size} {hdu.dtype}" if hdu.shape else "table" if hdu.index else "no data"
        if hdu.fault:
            kind = f"damaged: {hdu.fault}"
        texts.append(f"{hdu.index} {hdu.name or '-'} ({kind})")
    return ", ".join(texts)


def scan(path: str | os.PathLike[str]) -> tuple[Hdu, ...]:
    """Find the HDUs of a FITS file; its pixels are not read.

    Also takes whole-file gzip and bzip2; those must be decompressed to their end for this.

    Parameters
    ----------
    path : path or URL
        The file.

    Returns
    -------
    tuple of Hdu

    Raises
    ------
    OSError
        If the file is missing (FileNotFoundError), not FITS, or shorter than its headers say.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     fits.PrimaryHDU(np.zeros((40, 30), "f4")).writeto(f"{folder}/a.fits")
    ...     listed(scan(f"{folder}/a.fits"))
    '0 - (40 x 30 float32)'
    """
    path = located(path)
    return _scan(path, stamp_of(path))


@functools.lru_cache(maxsize=32)
def _scan(path: str, stamp: Stamp) -> tuple[Hdu, ...]:
    try:
        with _open(path, stamp) as file:
            return tuple(_walk(file, path, stamp))
    except (EOFError, OSError, zlib.error) as error:
        if path in str(error):
            raise
        raise OSError(f"{path} cannot be decompressed: {error}") from error


def _walk(file: io.BufferedIOBase, path: str, stamp: Stamp) -> Iterator[Hdu]:
    """Yield the HDUs of an open file, each of which starts after the one before it."""
    start = 0
    for index in itertools.count():
        if (hdu := _next_hdu(file, path, stamp, index, start)) is None:
            return
        yield hdu
        start = hdu.data + _padded(hdu.stop - hdu.data)


def _open(path: str, stamp: Stamp) -> io.BufferedIOBase:
    """Open a file that may be compressed as a whole."""
    decompressed = _decompressor(path, stamp)
    if decompressed is None:
        return open_bytes(path, stamp)
    return decompressed(open_bytes(path, stamp) if is_url(path) else path)


@functools.lru_cache(maxsize=1024)
def _decompressor(path: str, stamp: Stamp) -> Callable[[Any], io.BufferedIOBase] | None:
    """Return what opens a file that is compressed; a server is asked once."""
    with open_bytes(path, stamp) as file:
        magic = file.read(3)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open
    return bz2.open if magic == b"BZh" else None


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _next_hdu(
    file: io.BufferedIOBase, path: str, stamp: Stamp, index: int, start: int
) -> Hdu | None:
    """Read the header at an offset; None where the file, or what is FITS of it, has ended."""
    file.seek(start)
    header = bytearray(file.read(BLOCK))
    if index == 0 and not header.startswith(b"SIMPLE  ="):
        raise OSError(f"{path} is not a FITS file: it starts with {bytes(header[:16])!r}")
    # What comes after the last HDU is nobody's business, unless its second card is a header's.
    if index > 0 and not header.startswith(b"XTENSION=") and header[80:90] != b"BITPIX  = ":
        return None
    while not _has_end(header):
        more = file.read(BLOCK)
        if len(more) < BLOCK or len(header) > _MAX_HEADER or not _is_header(more):
            what = "truncated" if len(more) < BLOCK else "damaged"
            raise OSError(
                f"{path} is {what}: the header of HDU {index} starts at byte {start} "
                f"and has no END before byte {start + len(header) + len(more) % BLOCK}"
            )
        header += more
    facts, names_planes = _facts(bytes(header))
    try:
        size = data_size(facts)
    except ValueError as error:
        raise OSError(f"{path}, HDU {index}: the header has no valid size: {error}") from error
    data = start + len(header)
    fault = _fault(facts) if index == 0 or "XTENSION" in facts else "there is no card XTENSION"
    hdu = Hdu(path, stamp, index, start, data, data + size, facts, names_planes, fault)
    if size and (end := _end_before(file, hdu)) is not None:
        raise OSError(
            f"{hdu.where}: the file is truncated: the data take bytes {data} to {hdu.stop} "
            f"but the file has {end}"
        )
    return hdu


def _end_before(file: io.BufferedIOBase, hdu: Hdu) -> int | None:
    """Return the size of a file that ends before the data of an HDU do."""
    size = hdu.stamp[0]
    if isinstance(file, gzip.GzipFile) and hdu.stop > size * _MAX_DEFLATED:
        return size * _MAX_DEFLATED  # at most, and all would be decompressed to find out
    try:
        file.seek(hdu.stop - 1)
        if file.read(1):
            return None
    except (OverflowError, ValueError):  # no offset in any file
        return size
    return file.tell() if isinstance(file, gzip.GzipFile | bz2.BZ2File) else size


def _has_end(header: bytes | bytearray) -> bool:
    last = header[-BLOCK:]
    return any(last[i : i + 8] == b"END     " for i in range(0, len(last), CARD))


def _is_header(block: bytes) -> bool:
    """Whether a block may belong to the header before it, and is neither data nor the next HDU."""
    junk = block.translate(None, _TEXT)
    return len(junk) < BLOCK // 20 and not block.startswith(b"XTENSION=")


def _facts(header: bytes) -> tuple[dict[str, Any], bool]:
    """Return the cards that we look for, and whether there are names of mask planes."""
    facts: dict[str, Any] = {}
    names_planes = False
    for keyword, card in _cards(header):
        if keyword in _FACTS or keyword.rstrip("0123456789") in _AXES:
            value = value_of(card)
            if keyword != "EXTNAME":
                facts.setdefault(keyword, value)  # as astropy has it, the first one counts
            # Some writers give a compressed HDU a default name before its own.
            elif value != "COMPRESSED_IMAGE":
                facts[keyword] = value
        elif keyword.startswith(("MP_", "MSKN")) or card.startswith(b"HIERARCH MP_"):
            names_planes = True
    return facts, names_planes


def _cards(header: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the cards of a header with their keywords, what is beyond 8 letters left out."""
    for i in range(0, len(header), CARD):
        yield header[i : i + 8].decode("latin-1").rstrip(), header[i : i + CARD]


def _holds_array(facts: Mapping[str, Any]) -> bool:
    return facts.get("XTENSION", "IMAGE") == "IMAGE" or facts.get("ZIMAGE") is True


def _fault(facts: Mapping[str, Any]) -> str:
    """Return what is wrong with the cards of an image, of which the size in bytes is right."""
    xtension = facts.get("XTENSION", "IMAGE")
    if xtension not in _EXTENSIONS:
        return f"XTENSION is {xtension!r}; known are {', '.join(_EXTENSIONS)}"
    if {"ZIMAGE", "ZBITPIX"} & facts.keys() and facts.get("ZIMAGE") is not True:
        return f"ZIMAGE is {facts.get('ZIMAGE')!r}; of a compressed image it must be T"
    if not _holds_array(facts):
        return ""
    try:
        if array_shape(facts, "Z" if "ZIMAGE" in facts else ""):
            check_scaling(facts)
    except ValueError as error:
        return str(error)
    return ""


@functools.lru_cache(maxsize=256)
def _layout(hdu: Hdu) -> Tiling | None:
    return _layout_of(hdu, hdu._raw_header())


def _layout_of(hdu: Hdu, header: bytes) -> Tiling | None:
    """Check the layout of a table; return how an image is tiled that is stored as one."""
    cards = dict(hdu.facts)
    for keyword, card in _cards(header):
        if _LAYOUT.fullmatch(keyword):
            cards.setdefault(keyword, value_of(card))
    try:
        if hdu.compressed:
            return tiling(cards)
        columns(cards)
    except ValueError as error:
        raise OSError(f"{hdu.where}: {error}") from error
    return None


class _Window(Seekable, io.RawIOBase):
    """An empty primary HDU followed by one HDU of a file, as if that were all there is."""

    def __init__(self, file: io.BufferedIOBase, start: int, stop: int) -> None:
        self._file = file
        self._shift = start - len(_STUB)
        self._size = stop - self._shift
        self._position = 0

    def readinto(self, buffer: Any) -> int:
        position, size = self._position, min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        if position < len(_STUB):
            piece = _STUB[position : position + size]
            buffer[: len(piece)] = piece
            count = len(piece)
        else:
            self._file.seek(self._shift + position)
            count = self._file.readinto(memoryview(buffer)[:size])
        self._position += count
        return count


@contextmanager
def open_hdu(hdu: Hdu, *, as_stored: bool = False) -> Iterator[Any]:
    """Open one HDU with astropy, without walking through those before it.

    ``as_stored``: BSCALE, BZERO and BLANK are not applied.

    Raises
    ------
    OSError
        If the file is gone or is not the one that was scanned, or the HDU is damaged.
    """
    with open_unchanged(hdu) as file, shown(hdu, file, as_stored=as_stored) as astropys:
        yield astropys


@contextmanager
def shown(hdu: Hdu, file: io.BufferedIOBase, *, as_stored: bool = False) -> Iterator[Any]:
    """Show astropy one HDU of an open file; see `open_hdu`."""
    hdu.check()
    window: Any = file
    if hdu.start:
        window = _Window(file, hdu.start, hdu.data + _padded(hdu.stop - hdu.data))
    with fits.open(
        window, memmap=False, lazy_load_hdus=True, do_not_scale_image_data=as_stored
    ) as hdulist:
        yield hdulist[1 if hdu.start else 0]


def open_file(path: str | os.PathLike[str]) -> fits.HDUList:
    """Open a file with astropy, all HDUs of which have been checked.

    Raises
    ------
    OSError
        As from `scan`; or if an HDU is damaged.
    """
    for hdu in scan(path):
        hdu.check()
    return fits.open(openable(path), memmap=False)


def open_data(data: bytes, where: str) -> fits.HDUList:
    """Open a file in memory with astropy, all HDUs of which have been checked; see `open_file`.

    ``where`` is how error messages name it.
    """
    for hdu in _walk(io.BytesIO(data), where, (len(data), 0)):
        if hdu.fault:
            raise OSError(f"{hdu.where}: {hdu.fault}")
        if hdu.is_table:
            _layout_of(hdu, data[hdu.start : hdu.data])
    return fits.open(io.BytesIO(data), lazy_load_hdus=False)


def read_table(hdu: Hdu) -> np.ndarray:
    """Return the rows of a small binary table as they are in the file, columns not scaled.

    Astropy's own array makes an object of every column again, which takes longer than the reading.

    Returns
    -------
    (nrows,) structured array
        Big-endian and read-only; texts are bytes, a column's TDIM is not looked at.

    Raises
    ------
    OSError
        If the file is gone or is not the one that was scanned, or the HDU is damaged.
    """
    with open_hdu(hdu) as table:
        dtype = table.columns.dtype.newbyteorder(">")
        width, rows = table.header["NAXIS1"], table.header["NAXIS2"]
    with open_unchanged(hdu) as file:
        file.seek(hdu.data)
        return np.frombuffer(file.read(width * rows), dtype)


def open_unchanged(hdu: Hdu) -> io.BufferedIOBase:
    """Open the file of an HDU if it is still the one that was scanned.

    Raises
    ------
    OSError
        If it is not, or is gone.
    """
    try:
        stamp = stamp_of(hdu.path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{hdu.path} has vanished since it was opened") from None
    if stamp != hdu.stamp:
        raise OSError(
            f"{hdu.path} has changed since it was opened: it had {hdu.stamp[0]} bytes "
            f"and has {stamp[0]}{_apart(hdu.stamp[1], stamp[1])}; open it again"
        )
    return _open(hdu.path, stamp)


def _apart(old: int | str, new: int | str) -> str:
    if isinstance(old, int) and isinstance(new, int):
        return f", last written {(new - old) / 1e9:+.3f} s apart"
    return f", and is {new!r} instead of {old!r} to the server"
