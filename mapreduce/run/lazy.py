"""The lazy result of a run, and how it becomes an Exposure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dask.array as da
import numpy as np
from dask.base import compute
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.task_spec import DataNode, List, Task, TaskRef

from ..exposure.cell_psf import CellPsf, PsfComponent
from ..exposure.exposure import Exposure
from ..report import Report, runs, warn_of_failures
from .tasks import Sealed, SharedTask, leave_pixels, start_run, take_plane
from .tile import TileResult

__all__ = ["Collected", "MappedExposure"]


class MappedExposure(Exposure):
    """The lazy result of a run: an Exposure whose parts are all made of the same tiles.

    Its planes are dask arrays, its PSF and report are Delayed, and each can be set to something
    else. As long as none was, computing it takes the tiles as they are, without a further task for
    every part, and on threads without a copy.

    Parameters
    ----------
    shell : Exposure
        All but the planes, the PSF and the report.
    graph : HighLevelGraph
        What makes the tiles.
    name, run : str
        The layer of the tiles, and that of the task that all depend on.
    chunks : pair of tuple of int
        Heights and widths of the tiles.
    dtypes : mapping of str to numpy.dtype
        Of the planes.
    facts : mapping
        Of the run: token, input_psf, keeps_psf, predicted_bytes.
    stored : bool
        Whether the graph holds the tiles, which are not made anew when computed.
    """

    __slots__ = (
        "_as_made",
        "_chunks",
        "_facts",
        "_graph",
        "_name",
        "_run",
        "_stored",
    )

    def __init__(
        self,
        shell: Exposure,
        graph: HighLevelGraph,
        name: str,
        run: str,
        chunks: tuple[tuple[int, ...], tuple[int, ...]],
        dtypes: Mapping[str, np.dtype[Any]],
        facts: Mapping[str, Any],
        stored: bool = False,
    ) -> None:
        self._graph = graph
        self._name = name
        self._run = run
        self._chunks = chunks
        self._facts = facts
        self._stored = stored
        planes = {plane: self._plane(plane, dtype) for plane, dtype in dtypes.items()}
        self._bbox = shell.bbox
        self._image = planes["image"]
        self._variance, self._mask = planes.get("variance"), planes["mask"]
        self._mask_planes = shell.mask_planes
        self.wcs = shell.wcs
        self.meta = shell.meta
        records = self._per_tile(f"records-{facts['token']}", leave_pixels)
        self.psf = self._summary("psf", _psf_of, records)
        self.report = self._summary("report", _report_of, records)
        self._as_made = self._part_keys()

    @property
    def predicted_bytes(self) -> int:
        """Memory that one task is expected to hold, in bytes."""
        return self._facts["predicted_bytes"]

    # How the parts are made of the tiles

    def _plane(self, plane: str, dtype: np.dtype[Any]) -> da.Array:
        name = f"{plane}-{self._facts['token']}"
        graph = self._extended(name, self._per_tile(name, take_plane, plane))
        return da.Array(graph, name, self._chunks, dtype=dtype, meta=np.empty((0, 0), dtype))

    def _summary(
        self, part: str, function: Callable[..., Any], records: Mapping[Any, Task]
    ) -> Delayed:
        name = f"{part}-{self._facts['token']}"
        refs = List(*(TaskRef(key) for key in records))
        summary = SharedTask(name, function, refs, self._sealed_facts())
        return Delayed(name, self._extended(name, {**records, name: summary}))

    def _sealed_facts(self) -> Sealed:
        return Sealed(self._facts, alive=runs.get(self._facts["token"]))

    def _per_tile(self, name: str, function: Callable[..., Any], *args: Any) -> dict[Any, Task]:
        run = TaskRef(self._run)
        tasks: dict[Any, Task] = {}
        for tile in flatten(self._keys()):
            key = name, *tile[1:]
            tasks[key] = SharedTask(key, function, TaskRef(tile), *args, run)
        return tasks

    def _keys(self) -> list[list[tuple[str, int, int]]]:
        rows, columns = map(len, self._chunks)
        return [[(self._name, row, column) for column in range(columns)] for row in range(rows)]

    def _extended(self, name: str, layer: Mapping[Any, Task]) -> HighLevelGraph:
        graph = self._graph
        return HighLevelGraph(
            {**graph.layers, name: MaterializedLayer(layer)},
            {**graph.dependencies, name: {self._name, self._run}},
        )

    # The dask collection protocol

    def _part_keys(self) -> tuple[str | None, ...]:
        """Return the parts' keys in the graph: an array that is assigned into gets another."""
        planes = (self._image, self._variance, self._mask)
        arrays = (plane.name if isinstance(plane, da.Array) else None for plane in planes)
        facts = (
            fact.key if isinstance(fact, Delayed) else None for fact in (self.psf, self.report)
        )
        return *arrays, *facts

    def _is_as_made(self) -> bool:
        return self._part_keys() == self._as_made

    def __dask_graph__(self) -> HighLevelGraph | None:
        return self._graph if self._is_as_made() else super().__dask_graph__()

    def __dask_keys__(self) -> list[Any]:
        return self._keys() if self._is_as_made() else super().__dask_keys__()

    def __dask_layers__(self) -> tuple[str, ...]:
        return (self._name,) if self._is_as_made() else super().__dask_layers__()

    def __dask_postcompute__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if not self._is_as_made():
            return super().__dask_postcompute__()
        return _finish, (self._shell(), self._sealed_facts(), self._stored)

    def __dask_postpersist__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if not self._is_as_made():
            return super().__dask_postpersist__()
        dtypes = {name: plane.dtype for name, plane in self.planes.items()}
        state = (self._shell(), self._name, self._run, self._chunks, dtypes, self._facts)
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
        shell.psf = shell.report = None
        return shell


class Collected(Delayed):
    """The lazy result of a run whose reducer collects: a Delayed of what it makes.

    Parameters
    ----------
    key : str
        Of the value.
    graph : HighLevelGraph
    report_key : str
    """

    __slots__ = ("_outcome", "_report_key")

    def __init__(self, key: str, graph: Any, report_key: str, layer: str | None = None) -> None:
        super().__init__(key, graph, layer=layer)  # type: ignore[no-untyped-call]  # dask's own
        self._report_key = report_key
        self._outcome = Outcome()

    @property
    def report(self) -> Any:
        """The run's Report once the result was computed; before, a Delayed of it.

        ``dask.compute(result)`` on a cluster leaves it with the workers: it stays a Delayed then.
        """
        known = self._outcome.report
        return self._part(self._report_key) if known is None else known

    def compute(self, **options: Any) -> Any:
        """Compute the value, with ``dask.compute``'s options; the report is known then.

        Warns
        -----
        UserWarning
            If cells failed.
        """
        # Apart, as dask's own last step may be a worker's, from where the report would not return.
        both = compute(self._part(self._key), self._part(self._report_key), **options)
        return _collected(list(both), self._outcome)

    def _part(self, key: str) -> Delayed:
        return Delayed(key, self._dask, layer=self._layer)

    def __dask_keys__(self) -> list[Any]:
        return [self._key, self._report_key]

    def __dask_postcompute__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _collected, (self._outcome,)

    def __dask_postpersist__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _recollected, (self._key, self._report_key)


class Outcome:
    """Where a result that was computed leaves its report; another process has a new one."""

    __slots__ = ("report",)

    def __init__(self) -> None:
        self.report: Report | None = None

    def __reduce__(self) -> tuple[type[Outcome], tuple[()]]:
        return Outcome, ()


def _collected(parts: list[Any], outcome: Outcome) -> Any:
    """Take the value, leave the report, and say what is missing."""
    value, outcome.report = parts
    warn_of_failures(outcome.report)
    return value


def _recollected(
    graph: Any, key: str, report_key: str, *, rename: Mapping[str, str] | None = None
) -> Collected:
    """Make a Collected of a value that was computed, of a future of it, or of another graph."""
    if rename:
        key, report_key = rename.get(key, key), rename.get(report_key, report_key)
    layer = key if not isinstance(graph, HighLevelGraph) or key in graph.layers else None
    return Collected(key, graph, report_key, layer or next(iter(graph.layers)))


def _with_canvas(task: Task) -> Task:
    sealed, _, psf = task.args
    return SharedTask(task.key, start_run, sealed, True, psf)


def _rebuilt(
    graph: Mapping[Any, Any],
    shell: Exposure,
    name: str,
    run: str,
    chunks: tuple[tuple[int, ...], tuple[int, ...]],
    dtypes: Mapping[str, np.dtype[Any]],
    facts: Mapping[str, Any],
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
    tiles: list[list[TileResult]], shell: Exposure, facts: Sealed, stored: bool
) -> Exposure:
    """Make the result of its finished tiles."""
    planes = {
        name: _joined([[tile.planes[name] for tile in line] for line in tiles], shell.bbox.shape)
        for name in tiles[0][0].planes
    }
    if stored:
        planes = {name: plane.copy() for name, plane in planes.items()}
    exposure = shell._variation(shell.bbox, **planes)
    summaries = [tile.without_pixels() for line in tiles for tile in line]
    exposure.psf = _psf_of(summaries, facts)
    exposure.report = _report_of(summaries, facts)
    exposure.meta["MRFAILED"] = len(exposure.report.failures)
    return exposure


def _joined(blocks: list[list[np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Return the whole plane: the canvas that all blocks are views of, or a copy."""
    whole = blocks[0][0].base
    if blocks[0][0].shape == shape:
        return blocks[0][0]
    if whole is not None and whole.shape == shape:
        if all(block.base is whole for line in blocks for block in line):
            return whole
    return np.block(blocks)


def _psf_of(summaries: list[TileResult], sealed: Sealed) -> Any:
    facts = sealed.open()
    known = [facts["input_psf"], *(summary.input_psf for summary in summaries)]
    input_psf = next((psf for psf in known if psf is not None), None)
    records = [summary.records for summary in summaries]
    if facts["keeps_psf"] and not any(part.psfs for part in records):
        return input_psf
    components = [PsfComponent(*found) for part in records for found in part.components(input_psf)]
    components.sort(key=lambda component: component.index)
    return CellPsf(components) if components else None


def _report_of(summaries: list[TileResult], sealed: Sealed) -> Report:
    facts = sealed.open()
    return Report.of(
        [summary.records for summary in summaries],
        token=facts["token"],
        n_tiles=len(summaries),
        predicted_bytes=facts["predicted_bytes"],
        peak_bytes=max(summary.peak_bytes for summary in summaries),
    )
