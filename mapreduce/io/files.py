"""Reading and writing exposures in files of any format."""

from __future__ import annotations

import os
from typing import Any

from astropy.wcs import WCS

from ..exposure import formats
from ..exposure.exposure import Exposure
from ..exposure.formats import FORMATS, Format
from ..report import Report
from . import ccddata, decam, fits, lsst, zarr
from .paths import is_url, located
from .stream import check_free, is_replaceable

__all__ = ["check_target", "read_exposure", "write_exposure"]

FORMATS.update(
    zarr=Format(zarr.read, zarr.write, zarr.recognizes, (".zarr",)),
    lsst=Format(lsst.read, recognizes=lsst.recognizes),
    decam=Format(decam.read, recognizes=decam.recognizes),
    fits=Format(fits.read, fits.write, fits.recognizes, (".fits", ".fit", ".fts", ".fz")),
    ccddata=Format(ccddata.from_ccddata, ccddata.to_ccddata),
)


def read_exposure(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    chunks: int | tuple[int, int] | None = None,
    wcs: WCS | str | None = "auto",
    **options: Any,
) -> Exposure:
    """Open an exposure; its pixels are read block by block when they are used.

    Parameters
    ----------
    path : path or URL
        The file, or the folder of a zarr store; also what fsspec opens, such as ``s3://``,
        ``https://`` and ``memory://``, of which only the blocks that are used are fetched. ``~``
        is the home folder.
    format : {"zarr", "lsst", "decam", "fits"}, optional
        By default found from the file's content: zarr stores, LSST exposures and what
        `write_exposure` wrote, NOIRLab Community Pipeline exposures, any other FITS file.
    chunks : int or (int, int), optional
        Make the planes dask arrays in chunks of this size, a number or an (x, y) pair. By default
        they stay in the file, of which every user reads the blocks it needs.
    wcs : astropy.wcs.WCS, "auto" or None
        By default that of the file; where it cannot be used there is a warning and no WCS. Another
        one, from parent pixels (0-based), is taken instead; None: do without.
    **options
        The options of the format: see `mapreduce.io.lsst.read`, `mapreduce.io.decam.read` (such as
        ``ccd=``), `mapreduce.io.fits.read` (such as ``image=``, ``error=``, ``mask_planes=``) and
        `mapreduce.io.zarr.read` (``image=``, ``variance=``, ``mask=``). All take
        ``keep_planes=``.

    Returns
    -------
    Exposure

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the format or the URL needs a package that is not installed.
    OSError
        If it is of no known format, or truncated, or cannot be reached. Later, when pixels are
        read, if the file is gone or has changed.
    TypeError
        If the format has no such option.
    ValueError
        If there is no such format; and what the format's reader raises.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     write_exposure(Exposure(np.ones((20, 30))), f"{folder}/a.fits")
    ...     exposure = read_exposure(f"{folder}/a.fits")
    ...     float(exposure.image.sum().compute())
    600.0
    """
    given, path = path, located(path)
    if not is_url(path) and not os.path.exists(path):  # of a URL the first read finds out
        raise FileNotFoundError(f"there is no file {given}")
    if not (isinstance(wcs, str) and wcs == "auto"):
        options["wcs"] = wcs
    exposure = formats.read(path, format=format, **options)
    return exposure if chunks is None else exposure.chunk(chunks)


def write_exposure(
    exposure: Exposure,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Report | None:
    """Write an exposure to a file; nothing is left half-written.

    Parameters
    ----------
    exposure : Exposure
        What to write. If it is lazy it is computed now, and written by block wherever the blocks
        are computed, so that it is never held whole; but a compressed FITS file is put together in
        memory.
    path : path or URL
        The file, or the folder of a zarr store; of a zarr store also what fsspec writes to, such as
        ``s3://`` and ``memory://``.
    format : {"fits", "zarr"}, optional
        By default from the suffix: .fits, .fit, .fts; .fz, which is compressed FITS; .zarr.
    overwrite : bool
        Whether to replace what is there; also the file that the exposure is read from.
    **options
        The options of the format: see `mapreduce.io.write.write` (``compression=``) and
        `mapreduce.io.zarr.write` (``chunks=``, ``compression=``).

    Returns
    -------
    Report or None
        What happened in the run, where the exposure is the lazy result of a `map_reduce`.

    Raises
    ------
    FileExistsError
        If the file exists, unless ``overwrite``.
    ImportError
        If the format or the URL needs a package that is not installed.
    TypeError
        If the format has no such option.
    ValueError
        If there is no such format, or the suffix says none, or the format cannot be written to a
        URL, or the URL not to; and what the format's writer raises.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> exposure = Exposure(np.ones((20, 30)))
    >>> with TemporaryDirectory() as folder:
    ...     write_exposure(exposure, f"{folder}/a.fits.fz", compression="rice")
    """
    if not isinstance(exposure, Exposure):
        raise TypeError(f"write_exposure writes an Exposure, got {type(exposure).__name__}")
    return formats.write(exposure, path, format=format, overwrite=overwrite, **options)


def check_target(
    path: str | os.PathLike[str], *, format: str | None = None, overwrite: bool = False
) -> str:
    """Find out before a long run whether an exposure can be written there; return the format.

    Raises
    ------
    FileExistsError, FileNotFoundError, ImportError, ValueError
        As from `write_exposure`.

    Examples
    --------
    >>> check_target("result.fits")
    'fits'
    """
    format = formats.format_of(path) if format is None else format
    check_free(located(path), overwrite, folder=is_replaceable if format == "zarr" else None)
    return format
