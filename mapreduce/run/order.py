"""Few tiles at a time: the order in which a result is made that is written as it comes.

Left alone, dask begins in the middle and works outwards, and the results of many tiles wait for
their neighbors, and to be used. Here the map task of a tile also waits for what is done with an
earlier one, ``reach + ahead`` tiles before it (here 2), whose planes can be forgotten then::

    map 0 ──▶ reduce 0 ──▶ written 0 ─┐
    map 1 ──▶ reduce 1 ──▶ written 1  │ ─┐
    map 2 ◀───────────────────────────┘  │        a reduce task needs the map tasks of
    map 3 ◀──────────────────────────────┘        its neighbors, up to ``reach`` later
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dask.base import optimize, tokenize
from dask.core import flatten
from dask.delayed import Delayed
from dask.task_spec import List, TaskRef

from .tasks import SharedTask, map_cells

__all__ = ["in_order"]

Index = tuple[int, int]


def in_order(collections: Sequence[Any], ahead: int) -> Delayed:
    """Return what is to be computed such that few tiles are in work at the same time.

    Parameters
    ----------
    collections : sequence of dask collections
        Arrays first. Where they are made of the tiles of one run, or of one that others come
        before, a tile is begun only when an earlier one is done, and all that needs none beyond it.
    ahead : int
        How many tiles may be in work beyond those that the next one to be done waits for.

    Returns
    -------
    Delayed
        Of the results, a list for each collection: an array's blocks, nested.
    """
    collections = optimize(*collections)
    graph: dict[Any, Any] = {}
    for part in reversed(collections):  # of arrays, which come first, tasks have been fused
        graph.update(part.__dask_graph__())
    keys = [part.__dask_keys__() for part in collections]
    last = _last_run(graph)
    if last is not None:
        _let_wait(graph, *last, list(flatten(keys)), ahead)
    name = f"in-order-{tokenize(keys)}"
    return Delayed(name, {**graph, name: SharedTask(name, list, _refs(keys))})


def _last_run(graph: dict[Any, Any]) -> tuple[str, list[Index]] | None:
    """Return token and tiles of the run that no other needs, if there is one."""
    found: dict[str, list[Index]] = {}
    for key, task in graph.items():
        if isinstance(task, SharedTask) and task.func is map_cells:
            found.setdefault(key[0].removeprefix("map-"), []).append(key[1:])
    last = [token for token in found if len(found) == 1 or not _is_needed(token, found, graph)]
    return (last[0], found[last[0]]) if len(last) == 1 else None


def _is_needed(token: str, found: dict[str, list[Index]], graph: dict[Any, Any]) -> bool:
    places = {(f"reduce-{token}", *tile): 0 for tile in found[token]}
    others = ((f"map-{t}", *tile) for t, tiles in found.items() if t != token for tile in tiles)
    return any(_latest(key, graph, places) >= 0 for key in others)


def _let_wait(
    graph: dict[Any, Any], token: str, tiles: list[Index], ends: list[Any], ahead: int
) -> None:
    """Make the map task of every tile depend on what ends with an earlier tile."""
    rows, columns = ({tile[axis] for tile in tiles} for axis in (0, 1))
    tiles = sorted(tiles, key=None if len(rows) >= len(columns) else lambda tile: tile[::-1])
    place = {tile: n for n, tile in enumerate(tiles)}
    finished = {(f"reduce-{token}", *tile): n for tile, n in place.items()}
    reach = max(
        place[need[1:]] - n
        for key, n in finished.items()
        if key in graph
        for need in graph[key].dependencies
        if isinstance(need, tuple)  # not the run itself
    )
    done: list[list[TaskRef]] = [[] for _ in tiles]
    for end in [*ends, *((f"records-{token}", *tile) for tile in tiles)]:
        if isinstance(end, tuple) and end in graph:  # not of the exposure as a whole
            done[_latest(end, graph, finished)].append(TaskRef(end))
    for tile, before in zip(tiles[reach + ahead :], done, strict=False):
        key = (f"map-{token}", *tile)
        old = graph[key]
        graph[key] = SharedTask(key, _after, List(*before), old.func, *old.args)


def _latest(key: Any, graph: dict[Any, Any], places: dict[Any, int]) -> int:
    """Return the highest place of what a task needs; -1 where it needs nothing that has one."""
    if key not in places:
        needs = graph[key].dependencies
        places[key] = max((_latest(need, graph, places) for need in needs), default=-1)
    return places[key]


def _after(done: Any, function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _refs(keys: Any) -> Any:
    return List(*map(_refs, keys)) if isinstance(keys, list) else TaskRef(keys)
