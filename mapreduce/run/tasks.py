"""What dask runs: the tasks' functions, and what travels with them to the workers."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

import cloudpickle
import numpy as np
from astropy.table import Table
from dask.task_spec import Task, TaskRef
from distributed import get_worker
from numpy.typing import NDArray

from ..exposure.box import Box
from ..report import Report
from .input import Layout, TileInput
from .plan import Tile, TileIndex
from .spec import Planes, RunSpec
from .tile import Spill, TileCollection, TileResult, collect_tile, map_tile, reduce_tile

__all__ = [
    "Run",
    "Sealed",
    "SharedTask",
    "assemble",
    "collect_cells",
    "gather",
    "leave_pixels",
    "map_cells",
    "reduce_strips",
    "send_spill",
    "start_run",
    "take_part",
    "take_plane",
]


class SharedTask(Task):
    """A task that is never copied under another key.

    ``dask.delayed(f)(collection)`` rewrites the collection's graph with new keys, so that it would
    run a second time beside the collection itself; a reference to the original takes the copy's
    place.
    """

    __slots__ = ()

    def substitute(self, subs: dict[Any, Any], key: Any = None) -> Any:
        """Return a reference to this task where a copy of it is wanted."""
        if subs.get(self.key, self.key) != self.key:
            return TaskRef(self.key)
        return super().substitute(subs, key)


class Sealed:
    """What users gave us, on its way: pickled by itself, and opened in the task that uses it.

    A mapper or PSF that a worker cannot import then fails as a task does, with its error. Inside of
    dask's own messages it would not reach the worker, and the run would wait for it for ever.

    Parameters
    ----------
    value : object
    data : bytes, optional
        The same, pickled.
    alive : object, optional
        What has to live in this process as long as the graph does; it is not sent.
    """

    def __init__(self, value: Any, data: bytes | None = None, *, alive: Any = None) -> None:
        self._value = value
        self._data = data
        self._alive = alive

    def __reduce__(self) -> tuple[Any, ...]:
        if self._data is None:
            try:
                return Sealed, (None, cloudpickle.dumps(self._value))
            except Exception as error:
                raise TypeError(
                    "the mapper, its arguments or the PSF cannot be pickled, "
                    f"so they cannot go to another process: {error}"
                ) from error
        return Sealed, (None, self._data)

    def open(self) -> Any:
        """Return what was sealed."""
        if self._value is None:
            try:
                self._value = cloudpickle.loads(self._data)
            except Exception as error:
                error.add_note("while loading the mapper, its arguments or the PSF on a worker")
                raise
        return self._value


class Run:
    """A run in progress: what to do, and where its results go.

    With a canvas, tiles are written straight into the whole planes of the result, which are then
    complete when the last tile is. A canvas does not travel to another process.
    """

    def __init__(self, sealed: Sealed, canvas: bool = False, psf: Any = None) -> None:
        self._sealed = sealed
        self.psf = psf
        self._lock = threading.Lock() if canvas else None
        self._canvas: Planes | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Run, (self._sealed, False, self.psf)

    @cached_property
    def spec(self) -> RunSpec[Any]:
        """What to do; with the input's PSF, where that is itself a result of this computation."""
        spec = self._sealed.open()
        return spec if self.psf is None else spec.with_psf(self.psf)

    def planes(self, box: Box) -> Planes:
        """Return arrays for the result over a box, contents undefined."""
        dtypes = self.spec.dtypes
        if self._lock is None:
            return {name: np.empty(box.shape, dtype) for name, dtype in dtypes.items()}
        with self._lock:
            if self._canvas is None:
                shape = self.spec.box.shape
                self._canvas = {name: np.empty(shape, dtype) for name, dtype in dtypes.items()}
        where = box.slices(self.spec.box)
        return {name: plane[where] for name, plane in self._canvas.items()}


def start_run(sealed: Sealed, canvas: bool, psf: Any) -> Run:
    """Begin a run; ``psf`` is the input's, where that is a result of this computation."""
    return Run(sealed, canvas and not _on_cluster(), psf)


def _on_cluster() -> bool:
    """Whether this is a worker of a cluster, where a canvas would defeat its memory accounting."""
    try:
        get_worker()
    except ValueError:
        return False
    return True


def map_cells(run: Run, tile: Tile, layout: Layout, *blocks: Any) -> TileResult:
    """Read a tile's blocks, map its cells and fold the results."""
    return map_tile(run.spec, tile, TileInput(layout, blocks), run.planes(tile.box))


def collect_cells(run: Run, tile: Tile, layout: Layout, *blocks: Any) -> TileCollection:
    """Read a tile's blocks, map its cells and keep what comes."""
    return collect_tile(run.spec, tile, TileInput(layout, blocks))


def send_spill(mapped: TileResult, run: Run) -> dict[TileIndex, Spill]:
    """Take out what the neighbors need, so that only this travels to them."""
    return mapped.spill


def reduce_strips(
    run: Run, tile: Tile, mapped: TileResult, spills: list[dict[TileIndex, Spill]]
) -> TileResult:
    """Do the strips of a tile again, with what its neighbors sent."""
    received = [spill[tile.index] for spill in spills if tile.index in spill]
    finished = reduce_tile(run.spec, tile, mapped, received)
    if tile.index == (0, 0):
        finished.input_psf = run.psf
    return finished


def take_plane(finished: TileResult, name: str, run: Run) -> NDArray[Any]:
    """Take one plane out of a tile."""
    return finished.planes[name]


def leave_pixels(finished: TileResult, run: Run) -> TileResult:
    """Leave the pixels of a tile out."""
    return finished.without_pixels()


def assemble(chunks: list[list[NDArray[Any]]], rows: list[Any], columns: list[Any]) -> NDArray[Any]:
    """Put the needed parts of a dask array's chunks together."""
    if len(rows) == len(columns) == 1:
        return chunks[0][0][rows[0][0], columns[0][0]]
    shape = rows[-1][1].stop, columns[-1][1].stop
    block = np.empty(shape, chunks[0][0].dtype)
    for line, (from_y, to_y) in zip(chunks, rows, strict=True):
        for chunk, (from_x, to_x) in zip(line, columns, strict=True):
            block[to_y, to_x] = chunk[from_y, from_x]
    return block


def gather(run: Run, tiles: list[TileCollection], facts: Sealed) -> tuple[Any, Report]:
    """Return what the collector makes of all results, in the order of the cells; and the report."""
    results = [result for tile in tiles for result in tile.results]
    value = run.spec.reducer.collect(sorted(results, key=lambda result: result.cell.index))
    report = Report.of(
        [tile.records for tile in tiles],
        n_tiles=len(tiles),
        peak_bytes=max((tile.peak_bytes for tile in tiles), default=0),
        **facts.open(),
    )
    if isinstance(value, Table):
        value.meta |= {"MRFAILED": len(report.failures), "MRREPORT": report}
    return value, report


def take_part(gathered: tuple[Any, Report], part: int, run: Run) -> Any:
    """Take out the value, or the report."""
    return gathered[part]
