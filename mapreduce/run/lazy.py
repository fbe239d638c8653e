"""The lazy result of a run, and how it becomes an Exposure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.task_spec import DataNode, List, Task, TaskRef

from ..exposure.cell_psf import CellPsf, PsfComponent
from ..exposure.exposure import Exposure
from ..report import Report, runs
from .tasks import Sealed, SharedTask, Summary, start_run, summarize, take_plane
from .tile import FinishedTile

__all__ = ["MappedExposure"]


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
            layer = self._per_tile(key, take_plane, name)
            graph = self._extended(key, layer)
            dtype = self._dtypes[name]
            meta = np.empty((0, 0), dtype)
            self._parts[name] = da.Array(graph, key, self._chunks, dtype=dtype, meta=meta)
        return self._parts[name]

    def _summary(self, name: str, function: Callable) -> Delayed:
        if name not in self._parts:
            records, key = f"records-{self._facts['token']}", f"{name}-{self._facts['token']}"
            layer = self._per_tile(records, summarize)
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

    def in_order(self, collections: Sequence[Any], ahead: int) -> Delayed:
        """Return what is to be computed of us such that few tiles are in work at the same time.

        Left alone, dask begins in the middle and works outwards, and the results of many tiles
        wait for their neighbors, and to be used. Here a tile is begun only when an earlier one is
        done, and all blocks that need none beyond it.

        Parameters
        ----------
        collections : sequence of dask collections
            Made of our planes, PSF and report.
        ahead : int
            How many tiles may be in work beyond those that the next one to be done waits for.

        Returns
        -------
        Delayed
            Of the results, a list for each collection: an array's blocks, nested.
        """
        collections = dask.optimize(*collections)
        graph: dict = {}
        for part in reversed(collections):  # of arrays, which come first, tasks have been fused
            graph.update(part.__dask_graph__())
        keys = [part.__dask_keys__() for part in collections]
        if not self._stored:
            self._let_wait(graph, list(flatten(keys)), ahead)
        name = f"in-order-{tokenize(keys)}"
        return Delayed(name, {**graph, name: SharedTask(name, list, _refs(keys))})

    def _let_wait(self, graph: dict, ends: list, ahead: int) -> None:
        """Make the map task of every tile depend on what ends with an earlier tile."""
        lines = self._indices()
        if len(lines) < len(lines[0]):
            lines = list(zip(*lines, strict=True))
        tiles = [tile for line in lines for tile in line]
        place = {tile: n for n, tile in enumerate(tiles)}
        reach = max(
            place[key[1:]] - place[tile]
            for tile in tiles
            for key in graph[(self._name, *tile)].dependencies - {self._run}
        )
        last = {(self._name, *tile): n for tile, n in place.items()}
        done: list[list] = [[] for _ in tiles]
        records = f"records-{self._facts['token']}"
        for end in [*ends, *((records, *tile) for tile in tiles)]:
            if isinstance(end, tuple) and end in graph:  # not of the exposure as a whole
                done[_latest(end, graph, last)].append(TaskRef(end))
        for tile, before in zip(tiles[reach + ahead :], done, strict=False):
            key = f"map-{self._facts['token']}", *tile
            old = graph[key]
            graph[key] = SharedTask(key, _after, List(*before), old.func, *old.args)

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
        shell = self._variation(self._bbox)
        shell.psf = None
        return shell


def _latest(key: Any, graph: Mapping, places: dict) -> int:
    """Return the highest place of what a task needs; -1 where it needs nothing that has one."""
    if key not in places:
        needs = graph[key].dependencies
        places[key] = max((_latest(need, graph, places) for need in needs), default=-1)
    return places[key]


def _after(done: Any, function: Callable, *args: Any) -> Any:
    return function(*args)


def _refs(keys: Any) -> Any:
    return List(*map(_refs, keys)) if isinstance(keys, list) else TaskRef(keys)


def _with_canvas(task: Task) -> Task:
    sealed, _, psf = task.args
    return SharedTask(task.key, start_run, sealed, True, psf)


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
    """Make a MappedExposure of computed tiles, of futures of them, or of an optimized graph."""
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
    exposure = shell._variation(shell.bbox, **planes)
    summaries = [summarize(tile, None) for line in tiles for tile in line]
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
    records = [summary.records for summary in summaries]
    if facts["keeps_psf"] and not any(part.psfs for part in records):
        return input_psf
    components = [PsfComponent(*found) for part in records for found in part.components(input_psf)]
    components.sort(key=lambda component: component.index)
    return CellPsf(components) if components else None


def _report_of(summaries: list[Summary], sealed: Sealed) -> Report:
    facts = sealed.open()
    return Report.of(
        [summary.records for summary in summaries],
        token=facts["token"],
        n_tiles=len(summaries),
        predicted_bytes=facts["predicted_bytes"],
        peak_bytes=max(summary.peak_bytes for summary in summaries),
    )
