"""Plan -> dask graph. The only file that knows how the tasks are written.

For every tile there are three tasks, however many cells it has::

    run ──▶ map ──▶ spill ──▶ (reduce of the neighbours)
             └────▶ reduce ◀── (spill of the neighbours)

and one more for each plane that is asked for alone. ``run`` is a single task that hands what is the
same for all (mapper, reducer, arguments) to each worker once.

The mapper runs once per cell, whatever is computed together. Dask optimises collections of
different types apart and then merges their graphs by key, so tasks must keep their keys: nothing
here can be fused, because every task that dask could fuse depends on ``run`` as well, and
`SharedTask` keeps its key where dask would make a copy under another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import cloudpickle
import dask.array as da
import numpy as np
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.task_spec import DataNode, List, Task, TaskRef
from distributed import get_worker

from .box import Box
from .cell_psf import CellPsf, PsfComponent
from .exposure import Exposure
from .job import MAIN, Blocks, Job, Planes, Unread
from .plan import Plan, Tile
from .plane import Plane
from .report import CellRecord, Report, runs
from .tile import FinishedTile, MappedTile, SamePsf, collect_tile, map_tile, reduce_tile

__all__ = ["MappedExposure", "collected", "mapped"]


class SharedTask(Task):
    """A task that is never copied under another key.

    ``dask.delayed(f)(collection)`` rewrites the collection's graph with new keys, so that it would
    run a second time beside the collection itself; a reference to the original takes the copy's
    place.
    """

    __slots__ = ()

    def substitute(self, subs: dict, key: Any = None) -> Any:
        """Return a reference to this task where a copy of it is wanted."""
        if subs.get(self.key, self.key) != self.key:
            return TaskRef(self.key)
        return super().substitute(subs, key)


class Sealed:
    """What users gave us, on its way: pickled by itself, and opened in the task that uses it.

    A mapper or PSF that a worker cannot import then fails as a task does, with its error. Inside of
    dask's own messages it would not reach the worker, and the run would wait for it for ever.
    """

    def __init__(self, value: Any, data: bytes | None = None) -> None:
        self._value = value
        self._data = data

    def __reduce__(self) -> tuple:
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
    """A run in progress: the job, and where its results go.

    With a canvas, tiles are written straight into the whole planes of the result, which are then
    complete when the last tile is. A canvas does not travel to another process.
    """

    def __init__(self, sealed: Sealed, canvas: bool = False, psf: Any = None) -> None:
        self._sealed = sealed
        self.psf = psf
        self._lock = threading.Lock() if canvas else None
        self._canvas: Planes | None = None

    def __reduce__(self) -> tuple:
        return Run, (self._sealed, False, self.psf)

    @cached_property
    def job(self) -> Job:
        """The job; with the input's PSF, where that is itself a result of this computation."""
        job = self._sealed.open()
        if self.psf is None:
            return job
        main = {**job.shells[MAIN], "psf": self.psf}
        return replace(job, shells={**job.shells, MAIN: main})

    def planes(self, box: Box) -> Planes:
        """Return arrays for the result over a box, contents undefined."""
        dtypes = self.job.dtypes
        if self._lock is None:
            return {name: np.empty(box.shape, dtype) for name, dtype in dtypes.items()}
        with self._lock:
            if self._canvas is None:
                shape = self.job.box.shape
                self._canvas = {name: np.empty(shape, dtype) for name, dtype in dtypes.items()}
        where = box.slices(self.job.box)
        return {name: plane[where] for name, plane in self._canvas.items()}


def _start(sealed: Sealed, canvas: bool, psf: Any) -> Run:
    return Run(sealed, canvas and not _on_cluster(), psf)


def _on_cluster() -> bool:
    """Whether this is a worker of a cluster, where a canvas would defeat its memory accounting."""
    try:
        get_worker()
    except ValueError:
        return False
    return True


# What the tasks do

Layout = list[tuple[str, Box, str]]  # exposure, box and plane of each block that a task gets


def _blocks(layout: Layout, arrays: tuple) -> tuple[dict[str, Blocks], Blocks | None]:
    blocks: dict[str, Blocks] = {}
    mask = None
    for (name, box, plane), array in zip(layout, arrays, strict=True):
        if name == _TILE_MASK:
            mask = Blocks(box, {plane: array})
        else:
            blocks.setdefault(name, Blocks(box, {})).planes[plane] = array
    return blocks, mask


def _map(run: Run, tile: Tile, layout: Layout, *arrays: Any) -> MappedTile:
    return map_tile(run.job, tile, *_blocks(layout, arrays), run.planes(tile.box))


def _collect(run: Run, tile: Tile, layout: Layout, *arrays: Any) -> tuple:
    return collect_tile(run.job, tile, _blocks(layout, arrays)[0])


def _spill(mapped: MappedTile, run: Run) -> dict:
    return mapped.spill


def _reduce(run: Run, tile: Tile, mapped: MappedTile, spills: list[dict]) -> FinishedTile:
    received = [spill.get(tile.index, []) for spill in spills]
    finished = reduce_tile(run.job, tile, mapped, received)
    if tile.index == (0, 0):
        finished.input_psf = run.psf
    return finished


def _take(finished: FinishedTile, name: str, run: Run | None) -> np.ndarray:
    return finished.planes[name]


class Summary(NamedTuple):
    """What is known of a tile, without its pixels."""

    records: list[CellRecord]
    peak_bytes: int
    input_psf: Any


def _summary(finished: FinishedTile, run: Run | None) -> Summary:
    return Summary(finished.records, finished.peak_bytes, finished.input_psf)


def _assemble(chunks: list[list[np.ndarray]], rows: list, columns: list) -> np.ndarray:
    """Put the needed parts of a dask array's chunks together."""
    if len(rows) == len(columns) == 1:
        return chunks[0][0][rows[0][0], columns[0][0]]
    shape = rows[-1][1].stop, columns[-1][1].stop
    block = np.empty(shape, chunks[0][0].dtype)
    for line, (source_y, target_y) in zip(chunks, rows, strict=True):
        for chunk, (source_x, target_x) in zip(line, columns, strict=True):
            block[target_y, target_x] = chunk[source_y, source_x]
    return block


# How they are put together

_TILE_MASK = "mask of the tile"


def _block(plane: Plane, slices: tuple[slice, slice]) -> Any:
    """Return what a task gets for a block: a view, a source to read, or a dask array's chunks."""
    if isinstance(plane, np.ndarray):
        return plane[slices]
    if not isinstance(plane, da.Array):
        return Unread(plane, slices)
    rows, columns = (_overlaps(c, s) for c, s in zip(plane.chunks, slices, strict=True))
    chunks = List(*(List(*(TaskRef((plane.name, r, c)) for c, _ in columns)) for r, _ in rows))
    return Task(None, _assemble, chunks, [cut for _, cut in rows], [cut for _, cut in columns])


def _overlaps(sizes: tuple[int, ...], wanted: slice) -> list[tuple[int, tuple[slice, slice]]]:
    """Return the chunks that hold a range: number, range within it, and where it goes."""
    edges = np.cumsum((0, *sizes)).tolist()
    found = []
    for number, (start, stop) in enumerate(zip(edges, edges[1:], strict=False)):
        low, high = max(start, wanted.start), min(stop, wanted.stop)
        if low < high:
            source = slice(low - start, high - start)
            found.append((number, (source, slice(low - wanted.start, high - wanted.start))))
    return found


def _input(
    tile: Tile, sources: Mapping[str, Exposure], whole_mask: bool
) -> tuple[Layout, list[Any]]:
    """Return the blocks that a tile's map task reads, one of each plane."""
    layout: Layout = []
    arrays = []
    for name, exposure in sources.items():
        for plane_name, plane in exposure.planes.items():
            box, key = tile.reads, name
            if whole_mask and name == MAIN and plane_name == "mask":
                box, key = Box.union((tile.reads, tile.box)), _TILE_MASK
            if box.area:
                layout.append((key, box, plane_name))
                arrays.append(_block(plane, box.slices(exposure.bbox)))
    return layout, arrays


def _run_layer(job: Job, token: str, sources: Mapping[str, Exposure]) -> tuple[str, dict]:
    name = f"run-{token}"
    psf = sources[MAIN].psf
    lazy_psf = TaskRef(psf.key) if isinstance(psf, Delayed) else None
    return name, {name: SharedTask(name, _start, Sealed(job), False, lazy_psf)}


def _graph(
    layers: dict[str, dict], depends: dict[str, set[str]], sources: Mapping[str, Exposure], on: str
) -> HighLevelGraph:
    """Return the layers and the graphs of lazy sources, which the layer ``on`` depends on."""
    lazy = [part for source in sources.values() for part in _dask_parts(source)]
    graph = HighLevelGraph.merge(*(part.__dask_graph__() for part in lazy))
    upstream = {layer for part in lazy for layer in part.__dask_layers__()}
    depends = {**depends, on: depends[on] | upstream}
    run = next(name for name in layers if name.startswith("run-"))
    if isinstance(sources[MAIN].psf, Delayed):
        depends[run] = set(sources[MAIN].psf.__dask_layers__())
    return HighLevelGraph(
        {**graph.layers, **{name: MaterializedLayer(tasks) for name, tasks in layers.items()}},
        {**graph.dependencies, **depends},
    )


def _dask_parts(exposure: Exposure) -> list[Any]:
    """Return the dask collections among the planes as they are held, and the PSF if it is one."""
    parts = [plane for plane in exposure.planes.values() if isinstance(plane, da.Array)]
    return [*parts, exposure.psf] if isinstance(exposure.psf, Delayed) else parts


def mapped(
    job: Job, plan: Plan, sources: Mapping[str, Exposure], token: str, shell: Exposure
) -> MappedExposure:
    """Return the lazy result of a run with a `PixelReducer`."""
    run, run_layer = _run_layer(job, token, sources)
    names = {step: f"{step}-{token}" for step in ("map", "spill", "reduce")}
    maps, spills, reduces = {}, {}, {}
    for tile in plan.tiles:
        map_key, spill_key, key = ((name, *tile.index) for name in names.values())
        layout, arrays = _input(tile, sources, whole_mask=True)
        maps[map_key] = SharedTask(map_key, _map, TaskRef(run), tile, layout, *arrays)
        if tile.sends:
            spills[spill_key] = SharedTask(spill_key, _spill, TaskRef(map_key), TaskRef(run))
        received = List(*(TaskRef((names["spill"], *index)) for index in tile.receives))
        reduces[key] = SharedTask(key, _reduce, TaskRef(run), tile, TaskRef(map_key), received)
    graph = _graph(
        {run: run_layer, names["map"]: maps, names["spill"]: spills, names["reduce"]: reduces},
        {
            run: set(),
            names["map"]: {run},
            names["spill"]: {run, names["map"]},
            names["reduce"]: {run, names["map"], names["spill"]},
        },
        sources,
        on=names["map"],
    )
    facts = {
        "token": token,
        "input_psf": None if isinstance(sources[MAIN].psf, Delayed) else sources[MAIN].psf,
        "keeps_psf": job.reducer.keeps_psf,
        "predicted_bytes": _predicted_bytes(job, plan, sources),
    }
    return MappedExposure(shell, graph, names["reduce"], run, plan.chunks, job.dtypes, facts)


def collected(job: Job, plan: Plan, sources: Mapping[str, Exposure], token: str) -> Delayed:
    """Return the lazy result of a run with a `Collector`."""
    run, run_layer = _run_layer(job, token, sources)
    name, result = f"map-{token}", f"{job.reducer.name or 'collect'}-{token}"
    maps = {}
    for tile in plan.tiles:
        if tile.cells:
            key = (name, *tile.index)
            layout, arrays = _input(tile, sources, whole_mask=False)
            maps[key] = SharedTask(key, _collect, TaskRef(run), tile, layout, *arrays)
    gather = {
        result: SharedTask(result, _gather, TaskRef(run), List(*(TaskRef(key) for key in maps)))
    }
    graph = _graph(
        {run: run_layer, name: maps, result: gather},
        {run: set(), name: {run}, result: {run, name}},
        sources,
        on=name,
    )
    return Delayed(result, graph)


def _gather(run: Run, tiles: list[tuple]) -> Any:
    """Return what the collector makes of all results, in the order of the cells."""
    results = [result for results, _, _ in tiles for result in results]
    return run.job.reducer.collect(sorted(results, key=lambda result: result.cell.index))


def _predicted_bytes(job: Job, plan: Plan, sources: Mapping[str, Exposure]) -> int:
    """Return the memory that the largest task holds: blocks read and planes written."""
    reads = sum(
        np.dtype(plane.dtype).itemsize
        for source in sources.values()
        for plane in source.planes.values()
    )
    writes = sum(dtype.itemsize for dtype in job.dtypes.values())
    return max(tile.reads.area * reads + tile.box.area * writes for tile in plan.tiles)


# The result


class MappedExposure(Exposure):
    """The lazy result of a run: an Exposure whose planes come from the same tasks.

    Computed alone it needs the reduce tasks only; each plane asked for alone adds a task a tile.
    ``psf`` and ``report`` are Delayed until the exposure is computed.
    """

    __slots__ = (
        "_chunks",
        "_dtypes",
        "_facts",
        "_graph",
        "_name",
        "_parts",
        "_run",
        "_stored",
        "replayable",
    )

    def __init__(
        self,
        shell: Exposure,
        graph: HighLevelGraph,
        name: str,
        run: str,
        chunks: tuple,
        dtypes: Mapping[str, np.dtype],
        facts: Mapping[str, Any],
        stored: bool = False,
    ) -> None:
        self._bbox = shell.bbox
        self._mask_planes = shell.mask_planes
        self.wcs = shell.wcs
        self.meta = shell.meta
        self._graph = graph
        self._name = name
        self._run = run
        self._chunks = chunks
        self._dtypes = dtypes
        self._facts = facts
        self._parts: dict[str, Any] = {}
        self._stored = stored  # its tiles are held by the graph, not made anew when computed
        self.replayable = runs.get(facts["token"])  # keeps what a replay needs alive

    _image = property(lambda self: self._plane("image"))
    _variance = property(lambda self: self._plane("variance"))
    _mask = property(lambda self: self._plane("mask"))

    @property
    def psf(self) -> Delayed:
        """The PSF of the result, a Delayed."""
        return self._summary("psf", _psf_of)

    @property
    def report(self) -> Delayed:
        """The report of the run, a Delayed."""
        return self._summary("report", _report_of)

    @property
    def predicted_bytes(self) -> int:
        """Memory that one task is expected to hold, in bytes."""
        return self._facts["predicted_bytes"]

    def __reduce__(self) -> tuple:
        state = (self._graph, self._name, self._run, self._chunks, self._dtypes, self._facts)
        return MappedExposure, (self._shell(), *state, self._stored)

    def _indices(self) -> list[list[tuple[int, int]]]:
        return [[(r, c) for c in range(len(self._chunks[1]))] for r in range(len(self._chunks[0]))]

    def _plane(self, name: str) -> da.Array | None:
        if name not in self._dtypes:
            return None
        if name not in self._parts:
            key = f"{name}-{self._facts['token']}"
            layer = self._per_tile(key, _take, name)
            graph = self._extended(key, layer)
            dtype = self._dtypes[name]
            meta = np.empty((0, 0), dtype)
            self._parts[name] = da.Array(graph, key, self._chunks, dtype=dtype, meta=meta)
        return self._parts[name]

    def _summary(self, name: str, function: Callable) -> Delayed:
        if name not in self._parts:
            records, key = f"records-{self._facts['token']}", f"{name}-{self._facts['token']}"
            layer = self._per_tile(records, _summary)
            refs = List(*(TaskRef(tile) for tile in layer))
            layer[key] = SharedTask(key, function, refs, Sealed(self._facts))
            self._parts[name] = Delayed(key, self._extended(key, layer))
        return self._parts[name]

    def _per_tile(self, name: str, function: Callable, *args: Any) -> dict:
        return {
            (name, *index): SharedTask(
                (name, *index), function, TaskRef((self._name, *index)), *args, TaskRef(self._run)
            )
            for line in self._indices()
            for index in line
        }

    def _extended(self, name: str, layer: dict) -> HighLevelGraph:
        graph = self._graph
        return HighLevelGraph(
            {**graph.layers, name: MaterializedLayer(layer)},
            {**graph.dependencies, name: {self._name, self._run}},
        )

    def __dask_graph__(self) -> HighLevelGraph:
        return self._graph

    def __dask_keys__(self) -> list:
        return [[(self._name, *index) for index in line] for line in self._indices()]

    def __dask_layers__(self) -> tuple[str, ...]:
        return (self._name,)

    def __dask_tokenize__(self) -> tuple:
        return "MappedExposure", self._name

    def __dask_postcompute__(self) -> tuple[Callable, tuple]:
        return _finish, (self._shell(), Sealed(self._facts), self._stored)

    def __dask_postpersist__(self) -> tuple[Callable, tuple]:
        state = (self._shell(), self._name, self._run, self._chunks, self._dtypes, self._facts)
        return _rebuilt, state

    @staticmethod
    def __dask_optimize__(graph: HighLevelGraph, keys: Any, **kwargs: Any) -> HighLevelGraph:
        """Let tiles be written straight into the planes of the result."""
        layers = dict(graph.layers)
        for name in layers:
            if name.startswith("run-"):
                task = layers[name][name]
                if isinstance(task, Task):
                    layers[name] = MaterializedLayer({name: _with_canvas(task)})
        graph = HighLevelGraph(layers, graph.dependencies)
        return da.Array.__dask_optimize__(graph, keys, **kwargs)

    def _shell(self) -> Exposure:
        shell = self._variation(self._bbox, {"image": None})
        shell.psf = None
        return shell


def _with_canvas(task: Task) -> Task:
    sealed, _, psf = task.args
    return SharedTask(task.key, _start, sealed, True, psf)


def _rebuilt(
    graph: Mapping,
    shell: Exposure,
    name: str,
    run: str,
    chunks: tuple,
    dtypes: Mapping,
    facts: Mapping,
    *,
    rename: Mapping[str, str] | None = None,
) -> MappedExposure:
    """Make a MappedExposure of computed tiles, of futures of them, or of an optimised graph."""
    if rename:
        name, run = rename.get(name, name), rename.get(run, run)
    tasks = {run: DataNode(run, None), **graph}
    ours = {run: {run: tasks.pop(run)}, name: tasks}
    layers = {layer: MaterializedLayer(part) for layer, part in ours.items()}
    rebuilt = HighLevelGraph(layers, {run: set(), name: {run}})
    return MappedExposure(shell, rebuilt, name, run, chunks, dtypes, facts, stored=True)


def _finish(
    tiles: list[list[FinishedTile]], shell: Exposure, facts: Sealed, stored: bool
) -> Exposure:
    """Make the result of its finished tiles."""
    planes = {
        name: _joined([[tile.planes[name] for tile in line] for line in tiles], shell.bbox.shape)
        for name in tiles[0][0].planes
    }
    if stored:
        planes = {name: plane.copy() for name, plane in planes.items()}
    exposure = shell._variation(shell.bbox, planes)
    summaries = [_summary(tile, None) for line in tiles for tile in line]
    exposure.psf = _psf_of(summaries, facts)
    exposure.report = _report_of(summaries, facts)
    exposure.meta["MRFAILED"] = len(exposure.report.failures)
    return exposure


def _joined(blocks: list[list[np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Return the whole plane: the canvas that all blocks are views of, or a copy."""
    whole = blocks[0][0].base
    if blocks[0][0].shape == shape:
        return blocks[0][0]
    on_canvas = whole is not None and whole.shape == shape
    if on_canvas and all(block.base is whole for line in blocks for block in line):
        return whole
    return np.block(blocks)


def _psf_of(summaries: list[Summary], sealed: Sealed) -> Any:
    facts = sealed.open()
    known = [facts["input_psf"], *(summary.input_psf for summary in summaries)]
    input_psf = next((psf for psf in known if psf is not None), None)
    records = [record for summary in summaries for record in summary.records]
    records.sort(key=lambda record: record.index)
    given = [record for record in records if record.box is not None]
    same = all(record.psf is SamePsf for record in given)
    if facts["keeps_psf"] and same:
        return input_psf
    components = []
    for record in given:
        psf = input_psf if record.psf is SamePsf else record.psf
        if psf is not None:
            components.append(PsfComponent(record.index, record.box, psf))
    return CellPsf(components) if components else None


def _report_of(summaries: list[Summary], sealed: Sealed) -> Report:
    facts = sealed.open()
    return Report.of(
        [record for summary in summaries for record in summary.records],
        token=facts["token"],
        n_tiles=len(summaries),
        predicted_bytes=facts["predicted_bytes"],
        peak_bytes=max(summary.peak_bytes for summary in summaries),
    )
