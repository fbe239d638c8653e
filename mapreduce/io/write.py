"""Writing an exposure as a FITS file that LSST's afw, lsst.images and any FITS reader can read."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import dask
import numpy as np
from astropy.io import fits

from ..exposure import Exposure
from .header import as_header, bare, mask_cards, origin_cards, wcs_cards

__all__ = ["check_free", "write"]

_ALGORITHMS = {"gzip": "GZIP_2", "rice": "RICE_1"}


def write(
    exposure: Exposure,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    compression: str | None = "gzip",
    tile: int = 256,
    quantize: float = 16.0,
) -> None:
    """Write an exposure to a FITS file; the file appears under its name when it is complete.

    After a primary HDU with the header come IMAGE, MASK and VARIANCE as afw has them, those that
    there are: each with the WCS in array coordinates and with the origin, the mask with its planes
    (``MP_*`` and ``MSKN*`` cards). The PSF follows in HDUs called PSF. afw finds the planes by
    their order: if mask or variance is missing it replaces both by empty ones, and it does not
    see the PSF.

    Parameters
    ----------
    exposure : Exposure
        What to write; computed first if it is lazy.
    path : path
        The file.
    overwrite : bool
        Whether to replace a file of that name.
    compression : {"gzip", "rice"} or None
        Tile compression. "gzip" is lossless, and slow to write: of noise some 10 MB a second.
        "rice" rounds floats to a fraction of the noise in each tile, with dithering whose seed is
        recorded in the file; integers stay as they are.
    tile : int
        Width and height of a tile in pixels.
    quantize : float
        For "rice": the noise in a tile is this many of its steps.

    Raises
    ------
    FileExistsError
        If the file exists, unless ``overwrite``.
    FileNotFoundError
        If the folder does not exist.
    TypeError
        If the PSF is of a class that cannot be stored.
    ValueError
        If FITS cannot hold a plane, a card of the header, or the WCS.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write(Exposure(np.ones((20, 30), "f4")), f"{folder}/a.fits")
    ...     fits.getheader(f"{folder}/a.fits", "IMAGE")["EXTTYPE"]
    'IMAGE'
    """
    path = Path(path)
    if compression not in (None, *_ALGORITHMS):
        raise ValueError(f'compression is "gzip", "rice" or None, got {compression!r}')
    if tile < 1:
        raise ValueError(f"a tile is at least one pixel wide, got {tile}")
    check_free(path, overwrite)
    primary = fits.PrimaryHDU(header=bare(as_header(exposure.meta)))
    cards, tables = _plane_header(exposure)
    (exposure,) = dask.compute(exposure)
    hdus = [primary]
    for name in ("image", "mask", "variance"):
        if (plane := getattr(exposure, name)) is not None:
            header = cards.copy()
            header.extend(_own_cards(name, exposure), end=True)
            hdus.append(_hdu(name, plane, header, compression, tile, quantize))
    if exposure.psf is not None:
        from .psf import psf_to_hdus

        hdus += psf_to_hdus(exposure.psf)
    _write(fits.HDUList([*hdus, *tables]), path, overwrite)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a file that exists, unless it is to be replaced, and a folder that does not."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; overwrite=True (--overwrite) replaces it")


def _plane_header(exposure: Exposure) -> tuple[fits.Header, list[fits.ImageHDU]]:
    """Return the cards that all planes have, and the lookup tables of the WCS."""
    header, tables = fits.Header(), []
    if exposure.wcs is not None:
        header, tables = wcs_cards(exposure.wcs, exposure.origin)
    x0, y0 = exposure.origin
    header.extend(origin_cards(exposure.origin), end=True)
    header["LTV1"], header["LTV2"] = -float(x0), -float(y0)
    header["INHERIT"] = True
    return header, tables


def _own_cards(name: str, exposure: Exposure) -> list[tuple[str, Any, str]]:
    """Return the cards of one plane."""
    cards: list[tuple[str, Any, str]] = [("EXTTYPE", name.upper(), "")]
    meta = exposure.meta
    unit = meta.get("BUNIT")
    comment = meta.comments["BUNIT"] if unit and isinstance(meta, fits.Header) else ""
    if name == "mask":
        cards += mask_cards(exposure.mask_planes)
    elif isinstance(unit, str) and unit:
        squared = f"{unit}**2" if unit.isalpha() else f"({unit})**2"
        cards.append(("BUNIT", unit if name == "image" else squared, comment))
    return cards


def _hdu(
    name: str,
    plane: np.ndarray,
    header: fits.Header,
    compression: str | None,
    tile: int,
    quantize: float,
) -> fits.ImageHDU | fits.CompImageHDU:
    """Return the HDU of a plane."""
    if plane.dtype.kind == "f" and plane.dtype.itemsize not in (4, 8):
        raise ValueError(
            f"{name} is {plane.dtype}; FITS holds float32 and float64, convert it with astype"
        )
    # Astropy swaps the bytes of a writeable array in place while it writes, under the eyes of
    # whoever else uses it.
    plane = plane.view()
    plane.flags.writeable = False
    if compression is None:
        return fits.ImageHDU(plane, header, name=name.upper())
    lossy = compression == "rice" and plane.dtype.kind == "f"
    if compression == "rice" and plane.dtype.itemsize == 8 and not lossy:
        compression = "gzip"  # Rice is defined for up to 32 bits
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


def _write(hdus: fits.HDUList, path: Path, overwrite: bool) -> None:
    """Write under a temporary name in the same folder, then rename."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        hdus.writeto(temporary)
        check_free(path, overwrite)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
