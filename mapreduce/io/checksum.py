"""Checksums of FITS files (the cards CHECKSUM and DATASUM), also of planes written by block.

The checksum is the sum of all 32-bit words of the file, in ones' complement: what is carried out of
the upper end is added to the lower. So it can be added up from blocks in any order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from astropy.io import fits

__all__ = ["block_sum", "fill_in_checksums", "with_checksum_cards"]

_BAND = 2**24  # bytes that are read at a time
_NOT_USED = frozenset(range(58, 65)) | frozenset(range(91, 97))  # characters between 9, A, Z and a


def with_checksum_cards(header: fits.Header) -> fits.Header:
    """Return a header with the cards that `fill_in_checksums` fills in."""
    header = header.copy()
    header.extend(map(fits.Card.fromstring, _lines("0" * 16, 0)), end=True)
    return header


def fill_in_checksums(path: str | os.PathLike[str], known: Mapping[int, int]) -> None:
    """Fill in the checksums of a file, every HDU of which has cards for them.

    Parameters
    ----------
    path : path
    known : mapping of int to int
        The sums of the data of some HDUs, by index; the others' are read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     hdu = fits.PrimaryHDU(np.arange(6.0), with_checksum_cards(fits.Header()))
    ...     hdu.writeto(f"{folder}/a.fits")
    ...     fill_in_checksums(f"{folder}/a.fits", {})
    ...     with fits.open(f"{folder}/a.fits", checksum=True) as hdus:  # warns if it is wrong
    ...         hdus[0].verify_checksum(), hdus[0].verify_datasum()
    (1, 1)
    """
    with fits.open(path, memmap=False, disable_image_compression=True) as hdus:
        places = [hdu.fileinfo() for hdu in hdus]
    with open(path, "r+b") as file:
        for index, place in enumerate(places):
            start, data = place["hdrLoc"], place["datLoc"]
            total = known.get(index)
            if total is None:
                file.seek(data)
                left = range(0, place["datSpan"], _BAND)
                total = sum(_sum(file.read(min(_BAND, place["datSpan"] - n))) for n in left)
            file.seek(start)
            header = bytearray(file.read(data - start))
            _set(header, *_lines("0" * 16, _folded(total)))
            _set(header, *_lines(_encoded(_folded(_sum(header) + total)), _folded(total)))
            file.seek(start)
            file.write(header)


def block_sum(pixels: np.ndarray, first: int, width: int) -> int:
    """Return the sum over a block of a plane.

    Parameters
    ----------
    pixels : (rows, columns) array of unsigned integers
        The bits of the block's pixels, in native byte order.
    first : int
        How many pixels there are in the plane before the block's first.
    width : int
        Of the plane's rows.

    Examples
    --------
    >>> hex(block_sum(np.array([[0x12, 0x34], [0x56, 0x78]], np.uint8), 1, 3))  # 00123400 + 5678
    '0x568a3400'
    """
    size = pixels.dtype.itemsize
    if size >= 4:
        return int(pixels.view(np.uint32).sum(dtype=np.uint64))
    total, count = 0, 4 // size  # pixels in a word, of which the first is the upper end
    for column in range(count):
        sums = pixels[:, column::count].sum(axis=1, dtype=np.uint64)
        place = (first + column + width * np.arange(len(pixels), dtype=np.uint64)) % count
        for n in range(count):
            total += int(sums[place == n].sum()) << 8 * size * (count - 1 - n)
    return total


def _sum(data: bytes | bytearray) -> int:
    return int(np.frombuffer(data, ">u4").sum(dtype=np.uint64))


def _folded(total: int) -> int:
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _encoded(total: int) -> str:
    """Return the complement of a sum as 16 letters and digits, which as words add up to it.

    See the FITS standard 4.0, appendix J.
    """
    columns = []
    for byte in (~total & 0xFFFFFFFF).to_bytes(4, "big"):
        quarter, rest = divmod(byte, 4)
        letters = [48 + quarter + rest, *[48 + quarter] * 3]
        while not _NOT_USED.isdisjoint(letters):
            for i in (0, 2):
                if not _NOT_USED.isdisjoint(letters[i : i + 2]):
                    letters[i] += 1
                    letters[i + 1] -= 1
        columns.append(letters)
    text = "".join(chr(column[i]) for i in range(4) for column in columns)
    return text[-1] + text[:-1]  # the value begins one byte before a word


def _lines(checksum: str, datasum: int) -> tuple[str, str]:
    cards = ("CHECKSUM", checksum, "of the HDU"), ("DATASUM", str(datasum), "of the data")
    one, other = (fits.Card(*card).image for card in cards)
    return one, other


def _set(header: bytearray, *lines: str) -> None:
    """Put lines in the place of those with the same keyword."""
    for line in lines:
        start = header.index(line[:10].encode("ascii"))
        while start % 80:
            start = header.index(line[:10].encode("ascii"), start + 1)
        header[start : start + 80] = line.encode("ascii")
