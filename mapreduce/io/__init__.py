"""Reading and writing exposures, one file per format.

A format is a module with ``recognizes(path)`` and ``read(path, **options)``, and ``write(exposure,
path, **options)`` if it can be written. Formats are asked in the order of the list below.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ..exposure.exposure import Exposure
from ..report import Report
from .stream import check_free, is_store

__all__ = ["check_target", "read_exposure", "write_exposure"]

_FORMATS = ("zarr", "lsst", "decam", "fits")
_SUFFIXES = {".fits": "fits", ".fit": "fits", ".fts": "fits", ".fz": "fits", ".zarr": "zarr"}


def read_exposure(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    chunks: int | tuple[int, int] | None = None,
    **options: Any,
) -> Exposure:
    """Open an exposure; its pixels are read block by block when they are used.

    Parameters
    ----------
    path : path
        The file, or the folder of a zarr store.
    format : {"zarr", "lsst", "decam", "fits"}, optional
        By default found from the file's content: zarr stores, LSST exposures and what
        `write_exposure` wrote, NOIRLab Community Pipeline exposures, any other FITS file.
    chunks : int or (int, int), optional
        Make the planes dask arrays in chunks of this size, a number or an (x, y) pair. By default
        they are sources, of which every user reads the blocks it needs.
    **options
        The options of the format: see `mapreduce.io.lsst.read`, `mapreduce.io.decam.read` (such as
        ``ccd=``), `mapreduce.io.fits.read` (such as ``image=``, ``error=``, ``mask_planes=``) and
        `mapreduce.io.zarr.read` (``image=``, ``variance=``, ``mask=``).

    Returns
    -------
    Exposure

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the format needs a package that is not installed.
    OSError
        If it is of no known format, or truncated. Later, when pixels are read, if the file is
        gone or has changed.
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
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {path}")
    if format is None:
        format = next((name for name in _FORMATS if _module(name).recognizes(path)), None)
        if format is None:
            raise OSError(f"{path} is of no known format; those are {', '.join(_FORMATS)}")
    read = _function(format, "read")
    _check_options(read, options, f"reading {path} as {format!r}")
    exposure = read(path, **options)
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
    path : path
        The file, or the folder of a zarr store.
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
        If the format needs a package that is not installed.
    TypeError
        If the format has no such option.
    ValueError
        If there is no such format, or the suffix says none; and what the format's writer raises.

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
    format = check_target(path, format=format, overwrite=overwrite)
    write = _function(format, "write")
    _check_options(write, options, f"writing {path} as {format!r}")
    return write(exposure, path, overwrite=overwrite, **options)


def check_target(
    path: str | os.PathLike[str], *, format: str | None = None, overwrite: bool = False
) -> str:
    """Find out before a long run whether an exposure can be written there; return the format.

    Raises
    ------
    FileExistsError, FileNotFoundError, ValueError
        As from `write_exposure`.

    Examples
    --------
    >>> check_target("result.fits")
    'fits'
    """
    if format is None:
        suffix = Path(path).suffix.lower()
        if suffix not in _SUFFIXES:
            raise ValueError(
                f"the suffix of {path} is none of {', '.join(_SUFFIXES)}; choose a format="
            )
        format = _SUFFIXES[suffix]
    check_free(Path(path), overwrite, folder=is_store if format == "zarr" else None)
    return format


def _module(name: str) -> Any:
    return import_module(f".{name}", __name__)


def _function(format: str, name: str) -> Callable[..., Any]:
    """Return what reads or writes a format."""
    found = getattr(_module(format), name, None) if format in _FORMATS else None
    if found is None:
        able = [f for f in _FORMATS if hasattr(_module(f), name)]
        raise ValueError(f"cannot {name} the format {format!r}; choose among {', '.join(able)}")
    return found


def _check_options(function: Callable[..., Any], options: dict[str, Any], doing: str) -> None:
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"no option {unknown[0]!r} for {doing}; there are {', '.join(known)}")
