"""Plan -> dask graph: which task gets what from which.

For every tile there are three tasks, however many cells it has::

    run ──▶ map ──▶ spill ──▶ (reduce of the neighbors)
             └────▶ reduce ◀── (spill of the neighbors)

and one more for each plane that is asked for alone. ``run`` is a single task that hands what is the
same for all (mapper, reducer, arguments) to each worker once.

The mapper runs once per cell, whatever is computed together. Dask optimizes collections of
different types apart and then merges their graphs by key, so tasks must keep their keys: nothing
here can be fused, because every task that dask could fuse depends on ``run`` as well, and a
`SharedTask` keeps its key where dask would make a copy under another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.task_spec import List, Task, TaskRef

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..exposure.plane import Plane, cut
from .input import Layout
from .lazy import Collected, MappedExposure
from .plan import Plan, Tile
from .spec import MAIN, RunSpec
from .tasks import (
    Sealed,
    SharedTask,
    assemble,
    collect_cells,
    gather,
    map_cells,
    reduce_strips,
    send_spill,
    start_run,
    take_part,
)

__all__ = ["collected", "mapped"]


def _block(plane: Plane, slices: tuple[slice, slice]) -> Any:
    """Return what a task gets for a block: a view, a section to read, or a dask array's chunks."""
    if not isinstance(plane, da.Array):
        return cut(plane, slices)
    rows, columns = (_overlaps(c, s) for c, s in zip(plane.chunks, slices, strict=True))
    chunks = List(*(List(*(TaskRef((plane.name, r, c)) for c, _ in columns)) for r, _ in rows))
    return Task(None, assemble, chunks, [cut for _, cut in rows], [cut for _, cut in columns])


def _overlaps(sizes: tuple[int, ...], wanted: slice) -> list[tuple[int, tuple[slice, slice]]]:
    """Return the chunks that hold a range: number, range within it, and where it goes."""
    edges = np.cumsum((0, *sizes)).tolist()
    found = []
    for number, (first, end) in enumerate(pairwise(edges)):
        low, high = max(first, wanted.start), min(end, wanted.stop)
        if low < high:
            inside = slice(low - first, high - first)
            found.append((number, (inside, slice(low - wanted.start, high - wanted.start))))
    return found


def _input(
    tile: Tile, exposures: Mapping[str, Exposure], whole_mask: bool
) -> tuple[Layout, list[Any]]:
    """Return the blocks that a tile's map task reads, one of each plane."""
    layout: Layout = []
    arrays = []
    for name, exposure in exposures.items():
        for plane_name, plane in exposure.planes.items():
            box = tile.reads
            if whole_mask and (name, plane_name) == (MAIN, "mask") and not box.contains(tile.box):
                box = Box.union((box, tile.box))
            if box.area:
                layout.append((name, plane_name, box))
                arrays.append(_block(plane, box.slices(exposure.bbox)))
    return layout, arrays


def _run_layer(
    spec: RunSpec[Any], token: str, exposures: Mapping[str, Exposure], replay: Any = None
) -> tuple[str, dict[str, Task]]:
    name = f"run-{token}"
    psf = exposures[MAIN].psf
    lazy_psf = TaskRef(psf.key) if isinstance(psf, Delayed) else None
    return name, {name: SharedTask(name, start_run, Sealed(spec, alive=replay), False, lazy_psf)}


def _graph(
    layers: Mapping[str, Mapping[Any, Task]],
    depends: dict[str, set[str]],
    exposures: Mapping[str, Exposure],
    on: str,
) -> HighLevelGraph:
    """Return the layers and the graphs of lazy exposures, which the layer ``on`` depends on."""
    lazy = [part for exposure in exposures.values() for part in _dask_parts(exposure)]
    graph = HighLevelGraph.merge(*(part.__dask_graph__() for part in lazy))
    upstream = {layer for part in lazy for layer in part.__dask_layers__()}
    depends = {**depends, on: depends[on] | upstream}
    run = next(name for name in layers if name.startswith("run-"))
    psf = exposures[MAIN].psf
    if isinstance(psf, Delayed):
        depends[run] = set(psf.__dask_layers__())
    return HighLevelGraph(
        {**graph.layers, **{name: MaterializedLayer(tasks) for name, tasks in layers.items()}},
        {**graph.dependencies, **depends},
    )


def _dask_parts(exposure: Exposure) -> list[Any]:
    """Return the dask collections among the planes as they are held, and the PSF if it is one."""
    parts = [plane for plane in exposure.planes.values() if isinstance(plane, da.Array)]
    return [*parts, exposure.psf] if isinstance(exposure.psf, Delayed) else parts


def mapped(
    spec: RunSpec[Any],
    plan: Plan,
    exposures: Mapping[str, Exposure],
    token: str,
    shell: Exposure,
    replay: Callable[[int], Any],
) -> MappedExposure:
    """Return the lazy result of a run with a `PixelReducer`, which keeps what a replay needs."""
    run, run_layer = _run_layer(spec, token, exposures, replay)
    names = {step: f"{step}-{token}" for step in ("map", "spill", "reduce")}
    maps, spills, reduces = {}, {}, {}
    for tile in plan.tiles:
        map_key, spill_key, key = ((name, *tile.index) for name in names.values())
        layout, arrays = _input(tile, exposures, whole_mask=True)
        maps[map_key] = SharedTask(map_key, map_cells, TaskRef(run), tile, layout, *arrays)
        if tile.sends:
            spills[spill_key] = SharedTask(spill_key, send_spill, TaskRef(map_key), TaskRef(run))
        received = List(*(TaskRef((names["spill"], *index)) for index in tile.receives))
        reduces[key] = SharedTask(
            key, reduce_strips, TaskRef(run), tile, TaskRef(map_key), received
        )
    graph = _graph(
        {run: run_layer, names["map"]: maps, names["spill"]: spills, names["reduce"]: reduces},
        {
            run: set(),
            names["map"]: {run},
            names["spill"]: {run, names["map"]},
            names["reduce"]: {run, names["map"], names["spill"]},
        },
        exposures,
        on=names["map"],
    )
    facts = {
        "token": token,
        "input_psf": None if isinstance(exposures[MAIN].psf, Delayed) else exposures[MAIN].psf,
        "keeps_psf": spec.reducer.keeps_psf,
        "predicted_bytes": _predicted_bytes(spec, plan, exposures),
    }
    return MappedExposure(shell, graph, names["reduce"], run, plan.chunks, spec.dtypes, facts)


def collected(
    spec: RunSpec[Any],
    plan: Plan,
    exposures: Mapping[str, Exposure],
    token: str,
    replay: Callable[[int], Any],
) -> Collected:
    """Return the lazy result of a run with a `Collector`, which keeps what a replay needs."""
    run, run_layer = _run_layer(spec, token, exposures, replay)
    name, result = f"map-{token}", f"{spec.reducer.name or 'collect'}-{token}"
    maps = {}
    for tile in plan.tiles:
        if len(tile.table):
            key = (name, *tile.index)
            layout, arrays = _input(tile, exposures, whole_mask=False)
            maps[key] = SharedTask(key, collect_cells, TaskRef(run), tile, layout, *arrays)
    facts = {"token": token, "predicted_bytes": _predicted_bytes(spec, plan, exposures)}
    tiles = List(*(TaskRef(key) for key in maps))
    gathered, report = f"gather-{token}", f"report-{token}"
    both = SharedTask(gathered, gather, TaskRef(run), tiles, Sealed(facts))
    layers: dict[str, Mapping[Any, Task]] = {run: run_layer, name: maps, gathered: {gathered: both}}
    depends: dict[str, set[str]] = {run: set(), name: {run}, gathered: {run, name}}
    for part, end in enumerate((result, report)):
        task = SharedTask(end, take_part, TaskRef(gathered), part, TaskRef(run))
        layers[end], depends[end] = {end: task}, {run, gathered}
    graph = _graph(layers, depends, exposures, on=name)
    return Collected(result, graph, report)


def _predicted_bytes(spec: RunSpec[Any], plan: Plan, exposures: Mapping[str, Exposure]) -> int:
    """Return the memory that the largest task holds: blocks read and planes written."""
    reads = sum(
        np.dtype(plane.dtype).itemsize
        for exposure in exposures.values()
        for plane in exposure.planes.values()
    )
    writes = sum(dtype.itemsize for dtype in spec.dtypes.values())
    return max(tile.reads.area * reads + tile.box.area * writes for tile in plan.tiles)
