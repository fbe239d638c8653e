"""Writing an exposure as a FITS file that LSST's afw, lsst.images and any FITS reader can read.

An uncompressed file is written by block, from wherever the blocks are computed: its headers say
where every pixel is. Astropy makes the headers, the PSF's HDUs, and compressed files as a whole.
Every HDU has its checksums.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from dask.base import is_dask_collection

from ..exposure.exposure import Exposure
from ..report import Report
from .checksum import block_sum, fill_in_checksums, with_checksum_cards
from .hdu import BLOCK
from .header import as_header, bare, mask_cards, origin_cards, wcs_cards
from .paths import located
from .psf import psf_to_hdus
from .stream import check_free, complete_first, final_meta, stream

__all__ = ["FitsTarget", "hdus_to_bytes", "psf_hdus", "unit_of", "write"]

_ALGORITHMS = {"gzip": "GZIP_2", "rice": "RICE_1"}
_PLANES = ("image", "mask", "variance")  # in the order in which afw expects them
_BAND = 2**24  # bytes that are brought into the file's byte order at a time


def write(
    exposure: Exposure,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    compression: str | None = "auto",
    tile: int = 256,
    quantize: float = 16.0,
) -> Report | None:
    """Write an exposure to a FITS file; the file appears under its name when it is complete.

    After a primary HDU with the header come IMAGE, MASK and VARIANCE as afw has them, those that
    there are: each with the WCS in array coordinates and with the origin, the mask with its planes
    (``MP_*`` and ``MSKN*`` cards). The PSF follows in HDUs called PSF. All have checksums, which
    ``astropy.io.fits.open(path, checksum=True)`` and fitscheck look at. afw finds the planes by
    their order: if mask or variance is missing it replaces both by empty ones, and it does not see
    the PSF.

    Parameters
    ----------
    exposure : Exposure
        What to write. If it is lazy it is computed now, on threads or on the current Client.
        Without compression its blocks are written where they are computed, into a file that all
        workers must see under the same path, and it is never held whole. A compressed file is put
        together in the memory of this process.
    path : path
        The file; not a URL.
    overwrite : bool
        Whether to replace a file of that name; also the one that the exposure is read from.
    compression : {"auto", "gzip", "rice"} or None
        Tile compression. None is none. "gzip" is lossless, and slow to write: of noise some 10 MB
        a second. "rice" rounds floats to a fraction of the noise in each tile, with dithering whose
        seed is recorded in the file; integers stay as they are. An image of 64-bit integers is
        never compressed: CFITSIO, and with it funpack and fitsio, could not read it. "auto" is
        "gzip" where the name ends with .fz, and else None.
    tile : int
        Of a compressed file: width and height of a tile in pixels.
    quantize : float
        For "rice": the noise in a tile is this many of its steps.

    Returns
    -------
    Report or None
        What happened in the run, where the exposure is the lazy result of a `map_reduce`.

    Raises
    ------
    FileExistsError
        If the file exists, unless ``overwrite``; or if it is a folder.
    FileNotFoundError
        If the folder does not exist.
    TypeError
        If the PSF is of a class that cannot be stored.
    ValueError
        If FITS cannot hold a plane, a card of the header, or the WCS; or the path is a URL.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write(Exposure(np.ones((20, 30), "f4")), f"{folder}/a.fits")
    ...     fits.getheader(f"{folder}/a.fits", "IMAGE")["EXTTYPE"]
    'IMAGE'
    """
    place = located(path)
    path = Path(place)
    if compression == "auto":
        compression = "gzip" if path.suffix.lower() == ".fz" else None
    if compression not in (None, *_ALGORITHMS):
        raise ValueError(f'compression is "auto", "gzip", "rice" or None, got {compression!r}')
    if tile < 1:
        raise ValueError(f"a tile is at least one pixel wide, got {tile}")
    check_free(place, overwrite)
    _check_dtypes(exposure)
    _primary(exposure)
    headers, tables = _headers(exposure)
    psf = None if is_dask_collection(exposure.psf) else psf_hdus(exposure.psf)
    with complete_first(path, overwrite) as temporary:
        if compression is None:
            return _stream(exposure, temporary, headers, tables, psf)
        how = compression, tile, quantize
        return _compress(exposure, temporary, headers, tables, psf, how)


@dataclass(frozen=True)
class FitsTarget:
    """The pixels of an uncompressed image HDU that is being written, by block.

    Any number of tasks may write at the same time, each its own pixels.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a").write_bytes(bytes(6))
    ...     target = FitsTarget(f"{folder}/a", 0, (1, 3), np.dtype("u2"))
    ...     target.write((slice(0, 1), slice(1, 2)), np.array([[32769]]))
    ...     Path(folder, "a").read_bytes().hex()
    1
    '000000010000'
    """

    path: str
    offset: int
    shape: tuple[int, int]
    dtype: np.dtype

    chunks = (1, 1)

    def write(self, slices: tuple[slice, slice], block: np.ndarray) -> int:
        """Write a block, and return what it adds to the checksum of the plane."""
        rows, columns = slices
        width, pixel = self.shape[1], self.dtype.itemsize
        first_row, _, _ = rows.indices(self.shape[0])
        first, end, _ = columns.indices(width)
        band = max(1, _BAND // (block.shape[1] * pixel))
        total = 0
        with open(self.path, "r+b", buffering=0) as file:
            for n in range(0, block.shape[0], band):
                stored = as_stored(block[n : n + band], self.dtype)
                place = (first_row + n) * width + first
                total += block_sum(stored, place, width)
                raw = stored.astype(stored.dtype.newbyteorder(">"), copy=False)
                for i, piece in enumerate([raw] if end - first == width else raw):
                    _write_at(file.fileno(), piece, self.offset + (place + i * width) * pixel)
        return total


def as_stored(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the bits of pixels as FITS has them, but for the byte order, as unsigned integers.

    Unsigned integers, but for bytes, have an offset; of 8-bit integers those with a sign have it.
    """
    bits = np.ascontiguousarray(block, dtype).view(f"u{dtype.itemsize}")
    if dtype.kind == "i" and dtype.itemsize == 1 or dtype.kind == "u" and dtype.itemsize > 1:
        bits = bits ^ bits.dtype.type(1 << (8 * dtype.itemsize - 1))
    return bits


def _write_at(file: int, piece: np.ndarray, offset: int) -> None:
    written = os.pwrite(file, piece.data, offset)
    if written != piece.nbytes:
        raise OSError(f"only {written} of {piece.nbytes} bytes could be written; the disk is full?")


def _stream(
    exposure: Exposure,
    path: Path,
    headers: Mapping[str, fits.Header],
    tables: list[fits.ImageHDU],
    hdus: list[Any] | None,
) -> Report | None:
    """Write headers, then blocks, then what is known at the end."""
    targets: dict[str, FitsTarget] = {}
    with open(path, "xb") as file:
        file.write(_primary(exposure))
        for name, header in headers.items():
            plane = exposure.planes[name]
            dtype = np.dtype(plane.dtype).newbyteorder("=")
            # Astropy makes the header of an array that takes no memory.
            nothing = np.broadcast_to(np.zeros((), dtype), plane.shape)
            hdu = fits.ImageHDU(nothing, with_checksum_cards(header), name=name.upper())
            file.write(hdu.header.tostring().encode("ascii"))
            targets[name] = FitsTarget(str(path.absolute()), file.tell(), exposure.shape, dtype)
            file.seek(-(-nothing.nbytes // BLOCK) * BLOCK, io.SEEK_CUR)
        file.truncate()
    psf, report, sums = stream(exposure, targets)
    with open(path, "r+b") as file:
        file.write(_primary(exposure, report))
        file.seek(0, io.SEEK_END)
        hdus = psf_hdus(psf) if hdus is None else hdus
        file.write(hdus_to_bytes([*hdus, *tables], checksum=True)[BLOCK:])
    fill_in_checksums(path, {1 + n: sums[name] for n, name in enumerate(targets)})
    return report


def _compress(
    exposure: Exposure,
    path: Path,
    headers: Mapping[str, fits.Header],
    tables: list[fits.ImageHDU],
    hdus: list[Any] | None,
    how: tuple[str, int, float],
) -> Report | None:
    """Compute the exposure and write it as compressed HDUs."""
    done = exposure.compute()
    planes = [
        _compressed(name, getattr(done, name), header, *how) for name, header in headers.items()
    ]
    hdus = psf_hdus(done.psf) if hdus is None else hdus
    report = done.report if is_dask_collection(exposure.report) else None
    primary = fits.PrimaryHDU(header=_meta(exposure, report))
    fits.HDUList([primary, *planes, *hdus, *tables]).writeto(path, checksum=True)
    fill_in_checksums(path, {})  # without the time, which astropy adds
    return report


def _primary(exposure: Exposure, report: Report | None = None) -> bytes:
    """Return the primary HDU, which has the same size before and after the run."""
    header = with_checksum_cards(_meta(exposure, report))
    hdus = fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU()])
    hdus.update_extend()
    return hdus[0].header.tostring().encode("ascii")


def _meta(exposure: Exposure, report: Report | None) -> fits.Header:
    """Return the header of the exposure without what its other parts stand for."""
    return bare(as_header(final_meta(exposure, report)), exposure.wcs)


def hdus_to_bytes(hdus: list[Any], *, checksum: bool = False) -> bytes:
    """Return extension HDUs as a FITS file, after a primary HDU of one block."""
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(file, checksum=checksum)
    return file.getvalue()


def psf_hdus(psf: Any) -> list[Any]:
    """Return the HDUs of a PSF, if there is one."""
    return [] if psf is None else psf_to_hdus(psf)


def _check_dtypes(exposure: Exposure) -> None:
    for name, plane in exposure.planes.items():
        dtype = np.dtype(plane.dtype)
        if dtype.kind == "f" and dtype.itemsize not in (4, 8):
            raise ValueError(
                f"{name} is {dtype}; FITS holds float32 and float64, convert it with astype"
            )


def _headers(exposure: Exposure) -> tuple[dict[str, fits.Header], list[fits.ImageHDU]]:
    """Return the header of each plane, in the file's order, and the lookup tables of the WCS."""
    common = fits.Header()
    tables: list[fits.ImageHDU] = []
    if exposure.wcs is not None:
        common, tables = wcs_cards(exposure.wcs, exposure.origin)
    x0, y0 = exposure.origin
    common.extend(origin_cards(exposure.origin), end=True)
    common["LTV1"], common["LTV2"] = -float(x0), -float(y0)
    common["INHERIT"] = True
    names = [name for name in _PLANES if name in exposure.planes]
    return {name: _header(name, exposure, common) for name in names}, tables


def _header(name: str, exposure: Exposure, common: fits.Header) -> fits.Header:
    """Return the cards of one plane, after those that all have."""
    cards: list[tuple[str, Any, str]] = [("EXTTYPE", name.upper(), "")]
    meta = exposure.meta
    if name == "mask":
        cards += mask_cards(exposure.mask_planes)
    elif unit := unit_of(name, meta):
        comment = meta.comments["BUNIT"] if isinstance(meta, fits.Header) else ""
        cards.append(("BUNIT", unit, comment))
    header = common.copy()
    header.extend(cards, end=True)
    return as_header(header)


def unit_of(name: str, meta: Mapping[str, Any]) -> str:
    """Return the unit of the image or the variance; empty where the header gives none.

    Examples
    --------
    >>> unit_of("variance", {"BUNIT": "nJy"})
    'nJy2'
    """
    unit = meta.get("BUNIT")
    if name == "mask" or not isinstance(unit, str) or not unit.strip():
        return ""
    return unit if name == "image" else _squared(unit)


def _squared(unit: str) -> str:
    """Return the square of a unit, as FITS spells it where it knows the unit.

    >>> _squared("MJy/sr"), _squared("DN/s"), _squared("furlong / day")
    ('MJy2 sr-2', 'DN2 / s2', '(furlong / day)**2')
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)  # of spellings that are understood
        for standard in ("fits", "generic"):
            with contextlib.suppress(ValueError, TypeError, u.UnitsError):
                square = u.Unit(unit) ** 2
                text = square.to_string(standard)
                if u.Unit(text) == square:
                    return text
    return f"{unit}**2" if unit.isalpha() else f"({unit})**2"


def _compressed(
    name: str, plane: np.ndarray, header: fits.Header, compression: str, tile: int, quantize: float
) -> fits.ImageHDU | fits.CompImageHDU:
    """Return the compressed HDU of a plane."""
    # Astropy swaps the bytes of a writeable array in place while it writes, under the eyes of
    # whoever else uses it.
    plane = plane.view()
    plane.flags.writeable = False
    lossy = compression == "rice" and plane.dtype.kind == "f"
    if plane.dtype.itemsize == 8 and plane.dtype.kind != "f":
        return fits.ImageHDU(plane, header, name=name.upper())
    return fits.CompImageHDU(
        plane,
        header,
        name=name.upper(),
        compression_type=_ALGORITHMS[compression],
        tile_shape=tuple(min(tile, n) for n in plane.shape),
        quantize_level=quantize if lossy else 0.0,
        # The second method keeps zeros.
        quantize_method=fits.hdu.compressed.SUBTRACTIVE_DITHER_2 if lossy else -1,
        dither_seed=fits.hdu.compressed.DITHER_SEED_CHECKSUM,
    )
