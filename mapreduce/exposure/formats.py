"""Formats by name: what reads exposures and what writes them.

`mapreduce.io.files` fills them in when it is imported, as it is with the package, so that an
exposure can be written without knowing of any.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

__all__ = ["FORMATS", "Format", "converter", "format_of", "naming", "read", "write"]


class Format(NamedTuple):
    """One format, of files or of another package's objects.

    Attributes
    ----------
    read : callable, optional
        ``read(path, **options)``, returns an exposure; the options by keyword only. Of a package's
        object instead of a path, where that is the format.
    write : callable, optional
        ``write(exposure, path, **options)``, or ``write(exposure, **options)`` that returns the
        object.
    recognizes : callable, optional
        ``recognizes(path)``, whether a file is of this format; without it, it is none of files.
    suffixes : tuple of str
        Names of files that are written in this format if nobody says otherwise.
    """

    read: Callable[..., Any] | None = None
    write: Callable[..., Any] | None = None
    recognizes: Callable[[str | os.PathLike[str]], bool] | None = None
    suffixes: tuple[str, ...] = ()


_PLACE = re.compile(r"[/\\]")

FORMATS: dict[str, Format] = {}
"""The formats, by name. Of those that recognize a file the first one reads it."""


def read(path: str | os.PathLike[str], *, format: str | None = None, **options: Any) -> Any:
    """Read a file by the format's reader; see `read_exposure`."""
    if format is None:
        with naming(path):
            format = _recognized(path)
    function = _function(format, "read")
    _check_options(function, options, f"reading {path} as {format!r}")
    with naming(path):
        return function(path, **options)


def _recognized(path: str | os.PathLike[str]) -> str:
    """Return the first format that recognizes a file."""
    files = {name: entry.recognizes for name, entry in FORMATS.items() if entry.recognizes}
    refusal: OSError | None = None
    for name, recognizes in files.items():
        try:
            if recognizes(path):
                return name
        except OSError as error:  # it is no FITS file, say; it may be of a format after that
            refusal = refusal or error
    raise refusal or OSError(f"{path} is of no known format; those are {', '.join(files)}")


@contextmanager
def naming(
    path: str | os.PathLike[str],
    where: str | None = None,
    *,
    keep: tuple[type[Exception], ...] = (TypeError, ValueError),
) -> Iterator[None]:
    """Let every error that leaves the block name a file, whatever decoder it comes from.

    Parameters
    ----------
    path : path
        The file; an error whose text has it stays as it is.
    where : str, optional
        More exactly: how errors name what was read. By default the path.
    keep : tuple of types
        The errors of our own, of options and of what a file holds, that keep their kind.

    Raises
    ------
    OSError
        For errors of other packages, which say what went wrong inside of them.

    Examples
    --------
    >>> with naming("a.fits"):
    ...     {}["ZTILE1"]
    Traceback (most recent call last):
    OSError: a.fits cannot be read: 'ZTILE1'
    """
    try:
        yield
    except (ImportError, Warning):
        raise
    except Exception as error:
        text = str(error)
        if os.fspath(path) in text or os.path.abspath(path) in text:
            raise
        ours = _module(error).partition(".")[0] == __name__.partition(".")[0]
        if ours and isinstance(error, OSError) and _PLACE.search(text):  # of another file
            raise
        if ours and type(error) in keep:
            raise type(error)(f"{where or path}: {text}") from error
        what = text if ours else f"{type(error).__name__}: {text}"
        failure = OSError(f"{where or path} cannot be read: {what}")
    else:
        return
    raise failure  # not from the error, which may not travel between processes


def _module(error: BaseException) -> str:
    """Return the name of the module that an error comes from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")


def write(
    exposure: Any, path: str | os.PathLike[str], *, format: str | None = None, **options: Any
) -> Any:
    """Write an exposure to a file by the format's writer; see `write_exposure`."""
    format = format_of(path) if format is None else format
    function = _function(format, "write")
    _check_options(function, options, f"writing {path} as {format!r}")
    return function(exposure, path, **options)


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format that the suffix of a path stands for.

    Raises
    ------
    ValueError
        If it stands for none.

    Examples
    --------
    >>> format_of("result.fits.fz")
    'fits'
    """
    known = {suffix: name for name, entry in FORMATS.items() for suffix in entry.suffixes}
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ValueError(f"the suffix of {path} is none of {', '.join(known)}; choose a format=")
    return known[suffix]


def converter(format: str, verb: Literal["read", "write"]) -> Callable[..., Any]:
    """Return what takes another package's objects of a format, or makes them."""
    return getattr(FORMATS[format], verb)


def _function(format: str, verb: str) -> Callable[..., Any]:
    """Return what reads or writes files of a format."""
    files = {name: getattr(entry, verb) for name, entry in FORMATS.items() if entry.recognizes}
    function = files.get(format)
    if function is None:
        able = ", ".join(name for name, function in files.items() if function)
        raise ValueError(f"cannot {verb} the format {format!r}; choose among {able}")
    return function


def _check_options(function: Callable[..., Any], options: dict[str, Any], doing: str) -> None:
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"no option {unknown[0]!r} for {doing}; there are {', '.join(known)}")
