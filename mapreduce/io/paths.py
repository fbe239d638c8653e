"""Where files are: local paths, and URLs that fsspec opens (``s3://``, ``https://``, ``memory://``).

A URL stays as it was given, on every worker too: it is opened where it is read, and only the bytes
that are needed are fetched. How a server is reached (keys, endpoints, headers) is said to fsspec,
by its own configuration files and environment variables. Needs fsspec and what the kind of URL
needs: ``pip install 'skyfold[remote]'``.
"""

from __future__ import annotations

import errno
import io
import os
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from ..optional import require

__all__ = [
    "Seekable",
    "Stamp",
    "beside",
    "check_opens",
    "check_stamp",
    "copy_files",
    "exists",
    "inside",
    "is_file",
    "is_url",
    "located",
    "name_of",
    "open_bytes",
    "openable",
    "remove_files",
    "stamp_of",
]

Stamp = tuple[int, int | str]
"""Size of a file, and what else changes with its content: the time (ns), or what a server says."""

# Of links of a chain too; the drives of Windows have one letter.
_URL = re.compile(r"([a-z][\w+.-]*::)*[a-z][\w+.-]+://", re.IGNORECASE)
# How the file systems of fsspec call what changes with the content.
_CHANGES = (
    "ETag etag LastModified last_modified Last-Modified mtime modified updated created "
    "generation md5Hash md5 Content-MD5 content_md5 Digest checksum VersionId"
).split()
_AHEAD = 2**16, 2**22  # bytes that are fetched at once where less is read: at least, at most


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URL, of other than local files.

    Examples
    --------
    >>> is_url("s3://bucket/a.fits"), is_url("folder/a.fits"), is_url("file:///folder/a.fits")
    (True, False, False)
    """
    text = os.fsdecode(path)
    return _URL.match(text) is not None and not text.lower().startswith("file:")


def located(path: str | os.PathLike[str]) -> str:
    """Return a URL as it is, and of what is local the absolute path.

    Examples
    --------
    >>> located("https://host/a.fits?page=1"), located("file:///folder/a%20b.fits")
    ('https://host/a.fits?page=1', '/folder/a b.fits')
    """
    text = os.fsdecode(path)
    if is_url(text):
        return text
    if text.lower().startswith("file://"):
        text = unquote(urlsplit(text).path)
    return os.path.abspath(os.path.expanduser(text))


def check_opens(path: str) -> None:
    """Refuse a URL that nothing that is installed can open.

    Raises
    ------
    ImportError
        If that needs a package.
    ValueError
        If nothing does.
    """
    if is_url(path):
        _file_system(path)


def name_of(path: str | os.PathLike[str]) -> str:
    """Return the last part of a path, without the query of a URL.

    Examples
    --------
    >>> name_of("https://host/folder/a.fits?page=1"), name_of("folder/a.fits")
    ('a.fits', 'a.fits')
    """
    return _parts(os.fsdecode(path))[1]


def beside(path: str | os.PathLike[str], name: str) -> str:
    """Return the path of another file in the same folder.

    Examples
    --------
    >>> beside("https://host/folder/a.fits?page=1", "b.fits"), beside("folder/a.fits", "b.fits")
    ('https://host/folder/b.fits?page=1', 'folder/b.fits')
    """
    folder, _, query = _parts(os.fsdecode(path))
    return folder + name + query


def inside(folder: str | os.PathLike[str], *names: str) -> str:
    """Return the path of what is in a folder.

    Examples
    --------
    >>> inside("s3://bucket/a.zarr/", "image", "zarr.json")
    's3://bucket/a.zarr/image/zarr.json'
    """
    return "/".join([os.fsdecode(folder).rstrip("/"), *names])


def _parts(path: str) -> tuple[str, str, str]:
    """Return folder, name and query."""
    bare, mark, query = path.partition("?") if is_url(path) else (path, "", "")
    folder, slash, name = bare.rstrip("/").rpartition("/")
    return folder + slash, name, mark + query


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or a folder."""
    if not is_url(path):
        return os.path.exists(path)
    try:
        return bool(_info(os.fsdecode(path)))
    except FileNotFoundError:
        return False


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file that may be read, not a folder or a server's page about one."""
    if not is_url(path):
        return os.path.isfile(path)
    try:
        info = _info(os.fsdecode(path))
    except (FileNotFoundError, PermissionError):
        return False
    return info["type"] == "file" and info.get("mimetype") != "text/html"


def stamp_of(path: str) -> Stamp:
    """Return what changes when a file does.

    Raises
    ------
    OSError
        If it is missing (FileNotFoundError) or cannot be reached.
    """
    if not is_url(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    info = _info(path)
    if info["type"] == "directory":
        raise IsADirectoryError(errno.EISDIR, "a folder is no file", path)
    changes = " ".join(str(info[key]) for key in _CHANGES if info.get(key) is not None)
    return -1 if info.get("size") is None else int(info["size"]), changes


def check_stamp(path: str, stamp: Stamp) -> None:
    """Refuse a file that is another than it was.

    Raises
    ------
    OSError
        If it is gone, or was changed.
    """
    if stamp_of(path) != stamp:
        raise OSError(f"{path} has changed since it was opened; open it again")


def open_bytes(path: str, stamp: Stamp | None = None) -> io.BufferedIOBase:
    """Open a file for reading; that of a URL holds no connection, and reads from any place.

    Parameters
    ----------
    path : str
    stamp : Stamp, optional
        The file's, where it is known: a server is not asked again.
    """
    if not is_url(path):
        return open(path, "rb")
    return _RemoteFile(path, (stamp or stamp_of(path))[0])


def openable(path: str | os.PathLike[str]) -> str | io.BufferedIOBase:
    """Return what astropy and gzip open: a local path, or the bytes of a URL."""
    place = located(path)
    return open_bytes(place) if is_url(place) else place


class Seekable(io.IOBase):
    """A stream of known size, whose position is a number."""

    _size: int
    _position: int

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position


class _RemoteFile(Seekable, io.BufferedIOBase):
    """The bytes of a URL; fetched further ahead the longer they are read in order."""

    def __init__(self, url: str, size: int) -> None:
        if size < 0:
            raise OSError(f"{url}: the server does not say how long the file is; {_way_round(url)}")
        self._url = url
        self._size = size
        self._position = self._start = 0
        self._piece = b""
        self._ahead = 0

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        data = self._take(wanted)
        if len(data) < wanted:
            self._fetch(wanted - len(data))
            data += self._take(wanted - len(data))
        return data

    read1 = read

    def _take(self, size: int) -> bytes:
        """Take what is here of the next bytes."""
        first = self._position - self._start
        data = self._piece[first : first + size] if first >= 0 else b""
        self._position += len(data)
        return data

    def _fetch(self, size: int) -> None:
        least, most = _AHEAD
        skipped = self._position - (self._start + len(self._piece))
        in_order = 0 <= skipped <= self._ahead
        self._ahead = max(least, min(2 * self._ahead, most)) if in_order else least
        start, stop = self._position, self._position + max(size, self._ahead)
        stop = min(stop, self._size)
        self._start, self._piece = start, _asked(self._url, "cat_file", start=start, end=stop)
        if len(self._piece) > stop - start:
            raise OSError(
                f"{self._url}: the server sends the whole file where a part is asked for "
                f"(it does not support Range requests); {_way_round(self._url)}"
            )


def _way_round(url: str) -> str:
    return f"download the file, or let fsspec do so by opening simplecache::{url}"


# What is written


def copy_files(url: str, target: str, *, last: str) -> None:
    """Copy the files of a folder to another of the same server, one of them after the others."""
    system, path = _file_system(url)
    _, target = _file_system(target)
    names = [file.removeprefix(path.rstrip("/") + "/") for file in system.find(path)]
    for group in ([name for name in names if name != last], [last]):
        sources, targets = ([inside(p, name) for name in group] for p in (path, target))
        system.copy(sources, targets)


def remove_files(url: str, *, first: tuple[str, ...] = ()) -> None:
    """Remove all files of a folder, if it is there, and those of some names before the others."""
    system, path = _file_system(url)
    system.invalidate_cache()
    files = system.find(path)
    early = [file for file in files if file.rpartition("/")[2] in first]
    early.sort(key=lambda file: file.count("/"))
    for file in early:
        system.rm_file(file)
    if later := sorted({*files} - {*early}):
        system.rm(later)
    if system.exists(path):  # where folders are more than parts of names
        system.rm(path, recursive=True)


# fsspec


def _file_system(url: str) -> tuple[Any, str]:
    """Return what opens a URL, and what it calls it."""
    how = "pip install 'skyfold[remote]'"
    core = require("fsspec.core", f"{url} needs fsspec: {how}")
    try:
        return core.url_to_fs(url)
    except ImportError as error:
        raise ImportError(
            f"{url} needs a package that is not installed: {error}; "
            f"{how} brings those of https:// and s3://"
        ) from error
    except ValueError as error:
        raise ValueError(f"{url} is of no kind that fsspec knows: {error}") from error


def _info(url: str) -> dict[str, Any]:
    """Ask for what is known of a file or folder, anew every time."""
    _file_system(url)[0].invalidate_cache()
    return _asked(url, "info")


def _asked(url: str, question: str, **options: Any) -> Any:
    """Ask a server; what goes wrong comes as an error that names the URL."""
    system, path = _file_system(url)
    try:
        return getattr(system, question)(path, **options)
    except Exception as error:  # every file system has exceptions of its own
        failure = _failure(url, error)
    raise failure  # not from the error: many of those do not travel between processes


def _failure(url: str, error: Exception) -> OSError:
    """Return what went wrong as an error that names the URL."""
    cause = error.__cause__ or error  # fsspec calls missing whatever a web server does not give
    status = getattr(cause, "status", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(errno.EACCES, f"the server refuses it ({cause})", url)
    if isinstance(error, FileNotFoundError) and (cause is error or status in (404, 410)):
        return FileNotFoundError(errno.ENOENT, "there is no file", url)
    return OSError(f"{url} cannot be read: {type(cause).__name__}: {cause}")
