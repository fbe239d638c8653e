"""PerVisit: a product by visit, of which a Delayed is made when it is asked for.

What the visits share enters a graph once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from dask.base import persist
from dask.delayed import Delayed
from dask.task_spec import DataNode, Task, TaskRef

from ..photocalib.zeropoints import CalibrationWarning
from ..search import contains

__all__ = ["Make", "PerVisit", "node", "task", "warned"]

Make = Callable[..., tuple[Any, str]]
"""What makes a product of shared values and a visit: returns it and a remark, empty for none."""


class PerVisit(Mapping[int, Delayed]):
    """A product by visit: a Delayed is made when it is asked for.

    Parameters
    ----------
    name : str
        What the keys of its tasks begin with.
    visits : (n,) int64 array
        In ascending order.
    make : Make
    *shared : Delayed
        What all visits need.
    """

    def __init__(self, name: str, visits: np.ndarray, make: Make, *shared: Delayed) -> None:
        self.name = name
        self.visits = visits
        self.make = make
        self.shared = shared

    def __getitem__(self, visit: int) -> Delayed:
        if visit not in self:
            among = f"among the {len(self)} of the run" if len(self) else "as none was asked for"
            raise KeyError(f"there is no visit {visit} {among}")
        return self.put_to(f"{self.name}-{visit}", int(visit), warned)

    def put_to(self, key: str, visit: int, function: Callable[..., Any], *args: Any) -> Delayed:
        """Return the Delayed of ``function(*args, make, *shared, visit)``."""
        return task(key, function, *args, self.make, *self.shared, visit)

    def persisted(self) -> PerVisit:
        """Return the same with what all visits share computed."""
        return PerVisit(self.name, self.visits, self.make, *persist(*self.shared))

    def __contains__(self, visit: object) -> bool:
        return isinstance(visit, int | np.integer) and contains(self.visits, visit)

    def __iter__(self) -> Iterator[int]:
        return iter(self.visits.tolist())

    def __len__(self) -> int:
        return len(self.visits)

    def __repr__(self) -> str:
        return f"<{len(self)} lazy visits>"


def warned(make: Make, *args: Any) -> Any:
    """Return a product alone; what is to be said of it is a warning."""
    product, remark = make(*args)
    if remark:
        warnings.warn(remark, CalibrationWarning, stacklevel=2)
    return product


def node(key: str, value: Any) -> Delayed:
    """Return a value as a Delayed."""
    return Delayed(key, {key: DataNode(key, value)})


def task(key: str, function: Callable[..., Any], *args: Any) -> Delayed:
    """Return the Delayed of a function of other Delayeds and plain values."""
    graph: dict[Any, Any] = {}
    for arg in args:
        if isinstance(arg, Delayed):
            graph.update(arg.__dask_graph__())
    refs = [TaskRef(arg.key) if isinstance(arg, Delayed) else arg for arg in args]
    graph[key] = Task(key, function, *refs)
    return Delayed(key, graph)
