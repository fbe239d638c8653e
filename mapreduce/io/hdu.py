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
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits

from .cards import mended, value_of
from .paths import Stamp, is_url, located, open_bytes, stamp_of

__all__ = ["BLOCK", "Hdu", "listed", "open_hdu", "open_unchanged", "read_table", "scan"]

BLOCK = 2880  # bytes, of which FITS files are made

_FACTS = frozenset(
    "XTENSION BITPIX NAXIS PCOUNT GCOUNT GROUPS EXTNAME EXTVER EXTTYPE BSCALE BZERO BLANK "
    "ZIMAGE ZBITPIX ZNAXIS ZBLANK ZCMPTYPE CCDNUM DATAMODL AR_HDU INSTRUME PLVER PSFMODEL".split()
)
_AXES = ("NAXIS", "ZNAXIS")
# Of the table that a tile-compressed image is stored as.
_TABLE = re.compile(
    r"T(FIELDS|HEAP)|T(TYPE|FORM|DIM|NULL|UNIT|DISP|SCAL|ZERO)\d+|[PG]COUNT|NAXIS\d+"
    r"|Z(IMAGE|BITPIX|CMPTYPE|MASKCMP|QUANTIZ|DITHER0|BLANK|SCALE|ZERO)|Z(TILE|NAME|VAL)\d+"
    r"|Z(SIMPLE|TENSION|EXTEND|BLOCKED|PCOUNT|GCOUNT)|ZHECKSUM|ZDATASUM"
)
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
    """

    path: str
    stamp: Stamp
    index: int
    start: int
    data: int
    stop: int
    facts: Mapping[str, Any] = field(hash=False)
    names_planes: bool = False

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
        if self.facts.get("XTENSION", "IMAGE") not in ("IMAGE",) and not self.compressed:
            return ()
        prefix = "Z" if self.compressed else ""
        return tuple(
            self.facts[f"{prefix}NAXIS{i}"] for i in range(self.facts[prefix + "NAXIS"], 0, -1)
        )

    @property
    def is_image(self) -> bool:
        """Whether there are pixels in two dimensions; others may have the length 1."""
        return len(self.shape) >= 2 and 0 not in self.shape and {*self.shape[:-2]} <= {1}

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
        return self.facts.get("ZCMPTYPE") == "PLIO_1" and self.compressed and self.sign_flipped

    @property
    def _scaling(self) -> tuple[Any, Any]:
        return self.facts.get("BSCALE", 1), self.facts.get("BZERO", 0)

    @property
    def where(self) -> str:
        """How error messages name the HDU."""
        return f"{self.path}, HDU {self.index}" + (f" ({self.name})" if self.name else "")

    def header(self) -> fits.Header:
        """Read the header, mended; of a compressed image as astropy has it, not its table's."""
        with open_unchanged(self) as file:
            file.seek(self.start)
            header = mended(file.read(self.data - self.start), self.where)
        return _of_the_image(header) if self.compressed else header


def _of_the_image(table: fits.Header) -> fits.Header:
    """Return the header of an image that is stored as a table."""
    header = fits.Header([card for card in table.cards if not _TABLE.fullmatch(card.keyword)])
    header["XTENSION"], header["BITPIX"] = "IMAGE", table.get("ZBITPIX")
    for keyword in table:
        if re.fullmatch(r"ZNAXIS\d*", keyword):
            header[keyword[1:]] = table[keyword]
            header.remove(keyword)
    return header


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
    hdus: list[Hdu] = []
    try:
        with _open(path, stamp) as file:
            start = 0
            while (hdu := _next_hdu(file, path, stamp, len(hdus), start)) is not None:
                hdus.append(hdu)
                start = hdu.data + _padded(hdu.stop - hdu.data)
    except (EOFError, OSError, zlib.error) as error:
        if path in str(error):
            raise
        raise OSError(f"{path} cannot be decompressed: {error}") from error
    return tuple(hdus)


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
    header = file.read(BLOCK)
    if index == 0 and not header.startswith(b"SIMPLE  ="):
        raise OSError(f"{path} is not a FITS file: it starts with {header[:16]!r}")
    if index > 0 and not header.startswith(b"XTENSION="):
        return None
    while not _has_end(header):
        more = file.read(BLOCK)
        if len(more) < BLOCK:
            raise OSError(
                f"{path} is truncated: the header of HDU {index} starts at byte {start} "
                f"and has no END in the {len(header) + len(more)} bytes there are"
            )
        header += more
    facts, names_planes = _facts(header)
    try:
        size = _data_size(facts)
    except (KeyError, TypeError) as error:
        raise OSError(f"{path}, HDU {index}: the header has no valid size: {error}") from error
    data = start + len(header)
    hdu = Hdu(path, stamp, index, start, data, data + size, facts, names_planes)
    if size:
        file.seek(hdu.stop - 1)
        if not file.read(1):
            end = file.seek(0, io.SEEK_END)
            raise OSError(
                f"{hdu.where}: the file is truncated: the data take bytes {data} to {hdu.stop} "
                f"but the file has {end}"
            )
    return hdu


def _has_end(header: bytes) -> bool:
    last = header[-BLOCK:]
    return any(last[i : i + 8] == b"END     " for i in range(0, len(last), 80))


def _facts(header: bytes) -> tuple[dict[str, Any], bool]:
    """Return the cards that we look for, and whether there are names of mask planes."""
    facts = {}
    names_planes = False
    for i in range(0, len(header), 80):
        keyword = header[i : i + 8].decode("latin-1").rstrip()
        if keyword in _FACTS or keyword.rstrip("0123456789") in _AXES:
            value = value_of(header[i : i + 80])
            # Some writers give a compressed HDU a default name before its own.
            if keyword != "EXTNAME" or value != "COMPRESSED_IMAGE":
                facts[keyword] = value
        elif keyword.startswith(("MP_", "MSKN")) or header[i : i + 12] == b"HIERARCH MP_":
            names_planes = True
    return facts, names_planes


def _data_size(facts: Mapping[str, Any]) -> int:
    axes = [facts[f"NAXIS{i}"] for i in range(1, facts["NAXIS"] + 1)]
    if facts.get("GROUPS") is True and axes[:1] == [0]:
        axes = axes[1:]
    if not axes:
        return 0
    pixels = facts.get("PCOUNT", 0) + math.prod(axes)
    return abs(facts["BITPIX"]) // 8 * facts.get("GCOUNT", 1) * pixels


class _Window(io.RawIOBase):
    """An empty primary HDU followed by one HDU of a file, as if that were all there is."""

    def __init__(self, file: io.BufferedIOBase, start: int, stop: int) -> None:
        self._file = file
        self._shift = start - len(_STUB)
        self._size = stop - self._shift
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

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
        If the file is gone or is not the one that was scanned.
    """
    with open_unchanged(hdu) as file:
        window: Any = file
        if hdu.start:
            window = _Window(file, hdu.start, hdu.data + _padded(hdu.stop - hdu.data))
        with fits.open(
            window, memmap=False, lazy_load_hdus=True, do_not_scale_image_data=as_stored
        ) as hdulist:
            yield hdulist[1 if hdu.start else 0]


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
        If the file is gone or is not the one that was scanned.
    ValueError
        If the columns do not add up to the length of a row.
    """
    with open_hdu(hdu) as table:
        dtype = table.columns.dtype.newbyteorder(">")
        width, rows = table.header["NAXIS1"], table.header["NAXIS2"]
    if dtype.itemsize != width:
        raise ValueError(f"{hdu.where}: the columns take {dtype.itemsize} bytes of rows of {width}")
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
