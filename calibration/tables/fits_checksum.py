"""Checksums of FITS files: of headers and data, as the standard has them, without astropy's HDUs.

Astropy takes milliseconds for a small file, most of them for the header's cards, and reports damage
by warnings, which threads cannot watch for.
"""

from __future__ import annotations

import io

import numpy as np
from astropy.io import fits

from mapreduce.io.hdu import BLOCK

__all__ = ["check_fits", "summed", "word_sum"]

_WHOLE = 0xFFFFFFFF  # to which the words of a part with a checksum add up
_CARD = b"CHECKSUM= '"


def word_sum(data: bytes | memoryview, total: int = 0) -> int:
    """Add 32-bit words to a sum, with the carries added at the low end (FITS 4.0, 4.4.2.7).

    Parameters
    ----------
    data : bytes or memoryview
        A multiple of 4.
    total : int, optional

    Examples
    --------
    >>> word_sum(bytes([255, 255, 255, 255, 0, 0, 0, 2]))
    2
    """
    total += int(np.frombuffer(data, ">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def summed(header: fits.Header, data_sum: int = 0) -> bytes:
    """Return a header as it stands in a file, with the checksums of the data and of itself.

    Parameters
    ----------
    header : Header
        Gets the cards DATASUM and CHECKSUM.
    data_sum : int, optional
        The `word_sum` of the data.

    Examples
    --------
    >>> text = summed(fits.PrimaryHDU().header)
    >>> hex(word_sum(text)), fits.Header.fromstring(text)["DATASUM"]
    ('0xffffffff', '0')
    """
    header["DATASUM"], header["CHECKSUM"] = str(data_sum), "0" * 16
    text = header.tostring().encode("ascii")
    rest = _WHOLE - word_sum(text, data_sum)
    return text.replace(_CARD + b"0" * 16, _CARD + _encoded(rest), 1)


def _encoded(value: int) -> bytes:
    """Return 16 letters and digits that add 32 bits to a sum of words (FITS 4.0, appendix J)."""
    columns = []
    for byte in value.to_bytes(4):
        quarter, rest = divmod(byte, 4)
        columns.append(
            [*_letters(48 + quarter + rest, 48 + quarter), *_letters(*[48 + quarter] * 2)]
        )
    text = bytes(column[i] for i in range(4) for column in columns)
    return text[-1:] + text[:-1]


def _letters(first: int, second: int) -> tuple[int, int]:
    """Return two letters or digits of the same sum."""
    while not (chr(first).isalnum() and chr(second).isalnum()):
        first, second = first + 1, second - 1
    return first, second


def check_fits(data: bytes) -> fits.Header:
    """Return the header of the table in a file, once the file is seen to be whole.

    Parameters
    ----------
    data : bytes
        All of a file with a bare primary header and one table. The table has the card DATASUM;
        either both have CHECKSUM, too, or none.

    Raises
    ------
    EOFError, OSError, LookupError, ValueError
        If it is damaged, or not such a file.
    """
    if not data.startswith(b"SIMPLE  =") or len(data) % BLOCK:
        raise ValueError("it does not begin as FITS does, or does not end where a block ends")
    if _CARD in data and word_sum(data) != _WHOLE:
        raise ValueError("its checksum is not that of what was written")
    file = io.BytesIO(data)
    for _ in range(2):
        header = fits.Header.fromfile(file)
    rows = memoryview(data)[file.tell() :]
    size = header["NAXIS1"] * header["NAXIS2"]
    if len(rows) != size + -size % BLOCK or str(word_sum(rows)) != header["DATASUM"]:
        raise ValueError("the data are not those that were written")
    return header
