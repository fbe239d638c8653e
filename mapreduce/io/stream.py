"""Writing plane by plane and block by block, on any scheduler; and under a temporary name first.

A *target* is a plane of a file that is being written: anything with ``shape``, ``dtype``,
``chunks`` and ``write`` that takes a block. It is small and picklable, and opens the file in
the task that has a block to write, so that no plane is ever held whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from copy import copy
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np
from dask.base import is_dask_collection
from dask.system import CPU_COUNT
from distributed import default_client

from ..exposure.exposure import Exposure
from ..exposure.plane import Plane, lazy
from ..report import Report
from ..run.order import in_order
from .paths import beside, copy_files, exists, inside, is_file, is_url, name_of, remove_files

__all__ = [
    "ABANDONED",
    "TEMPORARY",
    "Target",
    "aligned",
    "check_free",
    "complete_first",
    "complete_store",
    "final_meta",
    "is_replaceable",
    "is_store",
    "remove_abandoned",
    "stream",
]

TEMPORARY = ".*.tmp"
"""How `complete_first` names what is not complete yet."""

_SIDE = 2048  # pixels, of the blocks in which an unread plane is copied
_AHEAD = 4  # tiles in work for each thread: enough that none is idle, be some slow
ABANDONED = 3600  # seconds after which nobody goes on writing to a temporary file
_STORE_FILES = ("zarr.json", ".zgroup", ".zarray")


class Target(Protocol):
    """A plane that is being written."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    def dtype(self) -> np.dtype:
        """Of the pixels."""

    @property
    def chunks(self) -> tuple[int, int]:
        """Rows and columns of the pieces that only one task at a time may write to."""

    def write(self, slices: tuple[slice, slice], block: np.ndarray) -> int:
        """Write a block, and return what it adds to the checksum of the plane, if there is one."""


def stream(
    exposure: Exposure, targets: Mapping[str, Target]
) -> tuple[Any, Report | None, dict[str, int]]:
    """Write the planes of an exposure, and compute its other lazy parts, all in one computation.

    Parameters
    ----------
    exposure : Exposure
        Its lazy planes are written where their blocks are computed, its others from here.
    targets : mapping of str to Target
        Where each of its planes goes.

    Returns
    -------
    Psf or None
        The exposure's PSF, computed.
    Report or None
        Of the run, where the exposure is made of the lazy result of one.
    dict of str to int
        The sum over what the target of each plane has returned.
    """
    planes = exposure.planes
    lazy_planes = {n: plane for n, plane in planes.items() if not isinstance(plane, np.ndarray)}
    writes = [_write_lazily(name, plane, targets[name]) for name, plane in lazy_planes.items()]
    facts = {"psf": exposure.psf, "report": exposure.report}
    lazy_facts = {name: fact for name, fact in facts.items() if is_dask_collection(fact)}
    done = in_order([*writes, *lazy_facts.values()], _AHEAD * _threads()).compute()
    sums = {
        name: sum(int(part.item()) for row in parts for part in row)
        for name, parts in zip(lazy_planes, done, strict=False)
    }
    for name, plane in planes.items():
        if isinstance(plane, np.ndarray):
            rows, columns = map(slice, plane.shape)
            sums[name] = targets[name].write((rows, columns), plane)
    facts |= {name: fact for name, (fact,) in zip(lazy_facts, done[len(writes) :], strict=True)}
    return facts["psf"], facts["report"] if "report" in lazy_facts else None, sums


def _threads() -> int:
    """Return how many tasks may run at the same time."""
    try:
        return max(1, sum(default_client().nthreads().values()))
    except ValueError:
        return dask.config.get("num_workers", None) or CPU_COUNT


def final_meta(exposure: Exposure, report: Report | None = None) -> MutableMapping[str, Any]:
    """Return the header that an exposure has when it is computed; before the run, one as long."""
    if not is_dask_collection(exposure.report):
        return exposure.meta
    meta = copy(exposure.meta)
    meta["MRFAILED"] = 0 if report is None else len(report.failures)
    return meta


def _write_lazily(name: str, plane: Plane, target: Target) -> da.Array:
    """Return an array of which every element, when computed, has written a block."""
    if not isinstance(plane, da.Array):
        sides = (max(1, _SIDE // chunk) * chunk for chunk in target.chunks)
        plane = lazy(plane, name, tuple(map(min, sides, plane.shape)))
    plane = aligned(plane, target.chunks)
    return da.map_blocks(
        _put,
        plane,
        target=target,
        name=f"write-{name}-{uuid.uuid4().hex}",
        chunks=tuple((1,) * count for count in plane.numblocks),
        dtype=object,
        meta=np.empty((0, 0), object),
    )


def _put(block: np.ndarray, target: Target, block_info: Any = None) -> np.ndarray:
    rows, columns = (slice(*edges) for edges in block_info[0]["array-location"])
    expected = rows.stop - rows.start, columns.stop - columns.start
    if block.shape != expected:
        raise ValueError(f"a block of the exposure has shape {block.shape}, it said {expected}")
    return np.full((1, 1), target.write((rows, columns), block), object)


def aligned(plane: da.Array, chunks: tuple[int, int]) -> da.Array:
    """Move the edges between blocks to edges between chunks, so that no two write to the same.

    Examples
    --------
    >>> aligned(da.zeros((2500, 10), chunks=1000), (256, 10)).chunks
    ((1024, 1024, 452), (10,))
    """
    wanted = tuple(map(_snapped, plane.chunks, chunks))
    # Not by way of distributed's shuffle, which holds everything before it gives out anything.
    return plane if wanted == plane.chunks else plane.rechunk(wanted, method="tasks")


def _snapped(sizes: tuple[int, ...], chunk: int) -> tuple[int, ...]:
    """Return sizes whose edges are multiples of ``chunk``."""
    *inner, end = np.cumsum(sizes).tolist()
    snapped = {(edge + chunk // 2) // chunk * chunk for edge in inner}
    return tuple(b - a for a, b in pairwise([0, *sorted(e for e in snapped if 0 < e < end), end]))


# The file as a whole


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a zarr store."""
    return not is_file(path) and any(is_file(inside(path, name)) for name in _STORE_FILES)


def is_replaceable(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a zarr store, or at a URL what a killed run has left of one."""
    return is_store(path) or (is_url(path) and is_store(inside(path, "image")))


def check_free(
    path: str | os.PathLike[str],
    overwrite: bool,
    *,
    folder: Callable[[Any], bool] | None = None,
) -> None:
    """Refuse a target that exists, unless it is of the kind and to be replaced, or has no folder.

    Parameters
    ----------
    path : path or URL
    overwrite : bool
    folder : callable, optional
        For what is a folder: whether one that exists is of the kind that may be replaced.

    Raises
    ------
    FileExistsError
        If it exists and ``overwrite`` is false, or it is not a file, or not such a folder: those
        are never replaced.
    FileNotFoundError
        If the folder it is to lie in does not exist.
    ValueError
        If it is a URL that cannot be written to.
    """
    if is_url(path):
        _check_writable(os.fsdecode(path), folder is not None)
    elif not (parent := Path(path).parent).is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {parent}")
    if not exists(path):
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists; overwrite=True (--overwrite) replaces it")
    if is_file(path) != (folder is None) or (folder is not None and not folder(path)):
        kind = "a file" if folder is None else "of the kind that is written"
        raise FileExistsError(f"{path} exists and is not {kind}; remove it, or choose another name")


def _check_writable(url: str, is_folder: bool) -> None:
    if not is_folder:
        raise ValueError(
            f"cannot write {url}: only zarr stores are written to URLs; choose a name that ends "
            "with .zarr, or write the file locally and upload it"
        )
    if url.lower().startswith(("http://", "https://")):
        raise ValueError(
            f"cannot write {url}: web servers are only read from; write to a store (s3://), or "
            "write locally and upload it"
        )


@contextlib.contextmanager
def complete_first(
    path: Path, overwrite: bool, *, folder: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Give out a temporary name in the same folder; rename when all is done, remove when it fails.

    See `check_free` for the parameters.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     with complete_first(Path(place, "a.txt"), overwrite=False) as temporary:
    ...         _ = temporary.write_text("done")
    ...     Path(place, "a.txt").read_text()
    'done'
    """
    check_free(path, overwrite, folder=folder)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        check_free(path, overwrite, folder=folder)
        if folder is not None and path.exists():
            _exchange(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        _remove(temporary)


@contextlib.contextmanager
def complete_store(path: str, overwrite: bool) -> Iterator[str]:
    """Give out where a zarr store is written, whose own ``zarr.json`` has to be written last.

    A folder is written as in `complete_first`. Object stores have no folders that could be renamed,
    but a store without its ``zarr.json`` is none: what is new is written where it belongs, and what
    is to be replaced stays until a new store beside it is complete. Then it is removed, its
    ``zarr.json`` before all else, and the new one is copied into its place by the store itself,
    ``zarr.json`` after all else, so that nobody meets a store that is partly the old one. What is
    not completed is removed.
    """
    if not is_url(path):
        with complete_first(Path(path), overwrite, folder=is_replaceable) as temporary:
            yield str(temporary)
        return
    check_free(path, overwrite, folder=is_replaceable)
    replaces = exists(path)
    place = beside(path, f".{name_of(path)}.{uuid.uuid4().hex[:8]}.tmp") if replaces else path
    try:
        yield place
        if replaces:
            check_free(path, overwrite, folder=is_replaceable)
    except BaseException:
        _remove_store(place)
        raise
    if replaces:
        try:
            remove_files(path, first=_STORE_FILES)
            copy_files(place, path, last=_STORE_FILES[0])
        except BaseException as error:
            error.add_note(f"the new store is complete at {place}")
            raise
        _remove_store(place)


def _remove_store(url: str) -> None:
    """Remove a store, in which a task that was not told yet may still be writing."""
    for _ in range(10):
        with contextlib.suppress(Exception):  # the error that came before is the one to tell
            remove_files(url, first=_STORE_FILES)
            if not exists(url):
                return
        time.sleep(0.05)


def remove_abandoned(temporary: Iterable[Path]) -> None:
    """Remove files like `TEMPORARY` that killed runs left; not what another is writing now."""
    now = time.time()
    for path in temporary:
        with contextlib.suppress(OSError):
            if path.is_file() and now - path.stat().st_mtime > ABANDONED:
                path.unlink()


def _exchange(new: Path, path: Path) -> None:
    """Put a folder in the place of another, which then has its name."""
    old = new.with_suffix(".old")
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    old.rename(new)


def _remove(path: Path) -> None:
    """Remove a file or folder, in which a task that was not told yet may still be writing."""
    for _ in range(10):
        if path.is_dir():
            for name in _STORE_FILES:  # which tasks look for before they write
                for file in (path / name, *path.glob(f"*/{name}")):
                    file.unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if not path.exists():
            return
        time.sleep(0.05)
