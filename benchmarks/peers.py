"""Ways to add a constant to every cell that do no more than that: the ideal, and the peers.

Each is a function (planes, grid) -> planes for a grid that is a partition, as a user of that tool
would write it, and its docstring says in its first line what it is. None has a rule for NaN, a
reducer or a report. Libraries are imported where they are used.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.system import CPU_COUNT

import mapreduce as mr

from .helpers import Planes

__all__ = [
    "CONSTANT",
    "apply_parallel",
    "daisy_blocks",
    "ideal",
    "joblib_threads",
    "lazy_map_overlap",
    "map_overlap",
    "ray_tasks",
    "stop_ray",
    "thread_pool",
]

CONSTANT = np.float32(3)

_MEMORY = Path("/dev/shm")  # files that are never written to a disk, on Linux


def map_core(planes: Planes, where: tuple[slice, slice]) -> Planes:
    image, variance, mask = (plane[where] for plane in planes)
    return Planes(image + CONSTANT, variance, mask)


def write_core(out: Planes, where: tuple[slice, slice], result: Planes) -> None:
    for plane, values in zip(out, result, strict=True):
        plane[where] = values


def _empty(planes: Planes) -> Planes:
    return Planes(*(np.empty_like(plane) for plane in planes))


# On threads


def ideal(planes: Planes, grid: mr.Grid) -> Planes:
    """One thread a core with an equal share of the cells: slice, map, write; plain numpy."""
    out = _empty(planes)

    def work(cells: list[mr.Cell]) -> None:
        for cell in cells:
            where = cell.core.slices(grid.box)
            out.image[where] = planes.image[where] + CONSTANT
            out.variance[where] = planes.variance[where]
            out.mask[where] = planes.mask[where]

    edges = [len(grid) * n // CPU_COUNT for n in range(CPU_COUNT + 1)]
    with ThreadPoolExecutor(CPU_COUNT) as pool:
        list(pool.map(work, [grid.cells[start:stop] for start, stop in pairwise(edges)]))
    return out


def thread_pool(planes: Planes, grid: mr.Grid) -> Planes:
    """concurrent.futures.ThreadPoolExecutor, a thread a core, a task a cell."""
    out = _empty(planes)

    def work(cell: mr.Cell) -> None:
        where = cell.core.slices(grid.box)
        write_core(out, where, map_core(planes, where))

    with ThreadPoolExecutor(CPU_COUNT) as pool:
        list(pool.map(work, grid))
    return out


def joblib_threads(planes: Planes, grid: mr.Grid) -> Planes:
    """joblib.Parallel(prefer="threads"), a thread a core, a task a cell."""
    from joblib import Parallel, delayed

    out = _empty(planes)

    def work(cell: mr.Cell) -> None:
        where = cell.core.slices(grid.box)
        write_core(out, where, map_core(planes, where))

    Parallel(n_jobs=CPU_COUNT, prefer="threads")(delayed(work)(cell) for cell in grid)
    return out


# On dask's arrays


def add_to_block(block: np.ndarray) -> np.ndarray:
    return block + CONSTANT


def same_block(block: np.ndarray) -> np.ndarray:
    return block


def lazy_map_overlap(planes: Planes, grid: mr.Grid) -> tuple[da.Array, ...]:
    """Build map_overlap's graph of the three planes, a chunk where the grid has a cell."""
    chunks = _chunks(grid)
    return tuple(
        da.map_overlap(
            function,
            da.from_array(plane, chunks=chunks, name=False),  # which spares it hashing the pixels
            depth=_border(grid),
            boundary="none",
            dtype=plane.dtype,
            meta=np.empty((0, 0), plane.dtype),
        )
        for function, plane in zip((add_to_block, same_block, same_block), planes, strict=True)
    )


def map_overlap(planes: Planes, grid: mr.Grid) -> Planes:
    """dask.array.map_overlap on threads, a plane each, computed together."""
    return Planes(*dask.compute(*lazy_map_overlap(planes, grid), scheduler="threads"))


def apply_parallel(planes: Planes, grid: mr.Grid) -> Planes:
    """skimage.util.apply_parallel (dask inside) on the image alone; the others are just copied."""
    from skimage.util import apply_parallel

    with dask.config.set(scheduler="threads"):
        image = apply_parallel(
            add_to_block, planes.image, chunks=_chunks(grid), depth=_border(grid), dtype="f4"
        )
    return Planes(image, planes.variance.copy(), planes.mask.copy())


def _chunks(grid: mr.Grid) -> tuple[tuple[int, ...], tuple[int, ...]]:
    starts = {cell.core.y0 for cell in grid}, {cell.core.x0 for cell in grid}
    ends = grid.box.y1, grid.box.x1
    return tuple(
        tuple(stop - start for start, stop in pairwise([*sorted(edges), end]))
        for edges, end in zip(starts, ends, strict=True)
    )


def _border(grid: mr.Grid) -> int:
    return max(cell.core.x0 - cell.expanded.x0 for cell in grid)


# In other processes


def ray_tasks(planes: Planes, grid: mr.Grid) -> Planes:
    """ray, a process a core, a task a cell; planes through its object store, cells back."""
    import ray

    if not ray.is_initialized():
        ray.init(
            num_cpus=CPU_COUNT,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    stored = [ray.put(plane) for plane in planes]
    places = [cell.core.slices(grid.box) for cell in grid]
    results = [_ray_task().remote(*stored, where) for where in places]
    out = _empty(planes)
    for where, result in zip(places, results, strict=True):
        write_core(out, where, ray.get(result))
    return out


@cache
def _ray_task() -> Any:
    import ray

    return ray.remote(_map_stored)


def _map_stored(
    image: np.ndarray, variance: np.ndarray, mask: np.ndarray, where: tuple[slice, slice]
) -> Planes:
    return map_core(Planes(image, variance, mask), where)


def stop_ray() -> None:
    """Stop ray's processes, where there are any."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def daisy_blocks(planes: Planes, grid: mr.Grid) -> Planes:
    """daisy.run_blockwise, a process a core, a block a cell; planes through files in memory."""
    import daisy

    where = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        for name, plane in planes._asdict().items():
            np.save(f"{folder}/{name}.npy", plane)
            np.lib.format.open_memmap(f"{folder}/out_{name}.npy", "w+", plane.dtype, plane.shape)
        cell = daisy.Roi((0, 0), planes.image[grid.cells[0].core.slices(grid.box)].shape)
        task = daisy.Task(
            "add_constant",
            total_roi=daisy.Roi((0, 0), planes.image.shape),
            read_roi=cell,
            write_roi=cell,
            process_function=partial(_map_block, folder),
            read_write_conflict=False,
            fit="shrink",
            max_workers=CPU_COUNT,
        )
        done = daisy.run_blockwise(
            task, progress=False, block_tracking=False, host="127.0.0.1", summary=False
        )
        if not done:
            raise RuntimeError("daisy did not finish all blocks")
        return Planes(*(np.load(f"{folder}/out_{name}.npy") for name in Planes._fields))


def _map_block(folder: str, block: Any) -> None:
    planes, out = _opened(folder)
    where = block.write_roi.to_slices()
    write_core(out, where, map_core(planes, where))


@cache
def _opened(folder: str) -> tuple[Planes, Planes]:
    """Open the planes to read and to write, once a worker."""
    return tuple(
        Planes(*(np.load(f"{folder}/{kind}{name}.npy", mode) for name in Planes._fields))
        for kind, mode in (("", "r"), ("out_", "r+"))
    )
