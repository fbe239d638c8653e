"""map_reduce(): the front door. Checks, plan, graph, result."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypedDict, Unpack, cast, overload

import numpy as np
from dask.base import is_dask_collection, tokenize
from dask.delayed import Delayed
from dask.utils import funcname

from ..exposure.box import whole_pixels
from ..exposure.exposure import Exposure
from ..exposure.mask import MaskPlanes
from ..exposure.psf import Psf
from ..exposure.wcs import same_wcs
from ..grid.config import GridConfig
from ..grid.grid import Grid, cells_of
from ..mappers.mapper import Mapper, check_arguments, declared, extras, name_of, reach_of
from ..reducers.base import Collector, PixelReducer
from ..reducers.collect import Concatenate
from ..reducers.names import CollectorName, PixelName, get_reducer
from ..report import runs
from . import graph
from .lazy import Collected, MappedExposure
from .plan import make_plan
from .spec import MAIN, Planes, RunSpec
from .tile import replay_cell

__all__ = ["map_reduce", "split"]


class Options(TypedDict, total=False):
    """The options of `map_reduce` but for the reducer, for its signatures."""

    grid: GridConfig | Grid | None
    aligned: Mapping[str, Exposure] | None
    mapper_kwargs: Mapping[str, Any] | None
    tile: int | tuple[int, int] | None
    on_error: Literal["raise", "mask"]
    return_sub_exposures: bool
    seed: int
    reach: int


@overload
def map_reduce(
    exposure: Exposure,
    mapper: Mapper,
    *,
    reducer: PixelName | PixelReducer = "average",
    **options: Unpack[Options],
) -> MappedExposure: ...


@overload
def map_reduce(
    exposure: Exposure,
    mapper: Mapper,
    *,
    reducer: CollectorName | Collector,
    **options: Unpack[Options],
) -> Collected: ...


@overload
def map_reduce(
    exposure: Exposure,
    mapper: Mapper,
    *,
    reducer: str | PixelReducer | Collector,
    **options: Unpack[Options],
) -> MappedExposure | Collected: ...


def map_reduce(
    exposure: Exposure,
    mapper: Mapper,
    *,
    grid: GridConfig | Grid | None = None,
    reducer: str | PixelReducer | Collector = "average",
    aligned: Mapping[str, Exposure] | None = None,
    mapper_kwargs: Mapping[str, Any] | None = None,
    tile: int | tuple[int, int] | None = None,
    on_error: Literal["raise", "mask"] = "raise",
    return_sub_exposures: bool = False,
    seed: int = 0,
    reach: int = 0,
) -> MappedExposure | Collected:
    """Cut an exposure into cells, run a function on each, and put the results together.

    Lazy: nothing is read or run before the result is computed, on threads by default, or on the
    current `distributed.Client`. The result is the same to the last bit whatever the scheduler,
    the number of workers and the tile size.

    Parameters
    ----------
    exposure : Exposure
        What is cut. Its planes may be in memory, in files, or dask arrays.
    mapper : callable
        ``mapper(sub, expanded, full_bbox, **mapper_kwargs)``, called once per cell with read-only
        exposures over the core and the expanded box; see `mapreduce.mappers.mapper`.
    grid : GridConfig or Grid, optional
        The cells; default ``GridConfig()``.
    reducer : str, PixelReducer or Collector, optional
        "copy", "sum", "average", "weighted_average", "median" and "feather" make an exposure,
        "none", "concatenate" and "coadd_psf" collect; see `mapreduce.reducers`.
    aligned : mapping of str to Exposure, optional
        Further exposures on the same pixels, covering the box of ``exposure``; the mapper gets
        each, cut to the cell's expanded box, as an argument of that name.
    mapper_kwargs : mapping, optional
        Further arguments of the mapper, the same for every cell.
    tile : int or (int, int), optional
        Size in pixels, a number or an (x, y) pair, of the blocks of the output that are worked on
        as one task. By default about a quarter of the longer side, from 512 to 1024.
    on_error : {"raise", "mask"}, optional
        What a failing cell does: end the run with its error, which names the cell, or leave NaN in
        its core, with the reducer's ``bad`` mask planes set, and a line in the report.
    return_sub_exposures : bool, optional
        With reducer "none": return `CellResult` records, which hold the mapper's input too.
    seed : int, optional
        For a mapper that names ``rng`` among its parameters: the run's seed.
    reach : int, optional
        How far beyond its expanded box, in pixels, a cell's result may lie.

    Returns
    -------
    Exposure or Collected
        A lazy Exposure for reducers that make one, over the box of ``exposure``; computed, it has
        a ``report``. Otherwise a dask Delayed of what the reducer makes, which itself has the
        ``report`` once it was computed.

    Raises
    ------
    TypeError, ValueError
        For arguments that cannot be right; nothing has been run then.

    Notes
    -----
    Computing the result twice runs the mapper twice; compute it once with whatever else is wanted
    of it, or persist it.

    A file that cannot be read at some place costs only the cells that need it, with
    ``on_error="mask"``. The tasks of a dask array are not ours: where one of them fails, the run
    ends.

    Examples
    --------
    >>> import numpy as np
    >>> import mapreduce as mr
    >>> def brighten(sub, expanded, full_bbox, by):
    ...     return sub.replace(image=sub.image + by)
    >>> exposure = mr.Exposure(np.zeros((100, 100)))
    >>> result = mr.map_reduce(
    ...     exposure, brighten, grid=mr.GridConfig(50, border=5), mapper_kwargs={"by": 3}
    ... )
    >>> float(result.compute().image.mean())
    3.0
    """
    if not isinstance(exposure, Exposure):
        raise TypeError(f"map_reduce works on an Exposure, got {type(exposure).__name__}")
    if on_error not in ("raise", "mask"):
        raise ValueError(f"on_error is {on_error!r}; choose 'raise' or 'mask'")
    reducer = _collecting(get_reducer(reducer), mapper)
    reducer.check(exposure)
    if return_sub_exposures and reducer.name != "none":
        raise ValueError("return_sub_exposures goes with reducer='none', which returns a list")
    if exposure.psf is not None and not isinstance(exposure.psf, Psf | Delayed):
        raise TypeError(f"the exposure's psf is a {type(exposure.psf).__name__}, not a Psf")
    named = extras(mapper)
    others = _checked_aligned(aligned, exposure)
    kwargs = _checked_kwargs(mapper_kwargs, aligned)
    check_arguments(mapper, [*kwargs, *(aligned or {}), *named])
    cells = _built(grid, exposure)
    reach = _checked_count("reach", whole_pixels("reach", reach))
    _check_border(cells, mapper, kwargs)
    plan = make_plan(cells, tile, reach)

    if isinstance(reducer, PixelReducer):
        exposure = exposure.with_mask_planes(*reducer.bad)
    spec = RunSpec(
        mapper=mapper,
        extras=named,
        kwargs=kwargs,
        reducer=reducer,
        on_error=on_error,
        seed=_checked_count("seed", seed),
        reach=reach,
        box=exposure.bbox,
        dtypes=_dtypes(exposure),
        mask_planes=exposure.mask_planes,
        shells={MAIN: _shell(exposure, exposure.mask_planes)}
        | {name: _shell(other, other.mask_planes) for name, other in others.items()},
        return_sub_exposures=return_sub_exposures,
    )
    exposures = {MAIN: exposure, **others}
    token = _token(spec, plan, exposures)
    replay = runs.setdefault(token, partial(_replayed, spec, cells, exposures))
    if isinstance(reducer, Collector):
        return graph.collected(spec, plan, exposures, token, replay)
    return graph.mapped(spec, plan, exposures, token, _described(exposure, spec), replay)


def split(exposure: Exposure, grid: GridConfig | Grid | None = None) -> dict[int, Exposure]:
    """Return the overlapping chunks themselves, for one's own dask code.

    Parameters
    ----------
    exposure : Exposure
    grid : GridConfig or Grid, optional
        The cells; default ``GridConfig()``.

    Returns
    -------
    dict of int to Exposure
        For every cell's index the exposure over its expanded box, as lazy as ``exposure`` is.

    Examples
    --------
    >>> import dask
    >>> import numpy as np
    >>> from mapreduce import Exposure, GridConfig
    >>> chunks = split(Exposure(np.ones((100, 100))).chunk(50), GridConfig(50, border=10))
    >>> chunks[0].bbox
    Box(x0=0, y0=0, width=60, height=60)
    >>> dask.compute([chunk.image.sum() for chunk in chunks.values()])[0][0]
    np.float64(3600.0)
    """
    if not isinstance(exposure, Exposure):
        raise TypeError(f"split works on an Exposure, got {type(exposure).__name__}")
    return {cell.index: exposure.cutout(cell.expanded) for cell in _built(grid, exposure)}


def _replayed(spec: RunSpec[Any], grid: Grid, exposures: Mapping[str, Exposure], index: int) -> Any:
    """Run the mapper on a cell again."""
    table = grid.table
    cell = next(cells_of(table[table["index"] == index]), None)
    if cell is None:
        raise IndexError(f"there is no cell {index}; the run had {len(grid)}")
    cutouts = {name: each.cutout(cell.expanded) for name, each in exposures.items()}
    loaded = {name: cutout.compute(scheduler="synchronous") for name, cutout in cutouts.items()}
    planes = cast(dict[str, Planes], {name: each.planes for name, each in loaded.items()})
    return replay_cell(spec.with_psf(loaded[MAIN].psf), cell, planes)


def _collecting(reducer: PixelReducer | Collector, mapper: Mapper) -> PixelReducer | Collector:
    """Return the reducer, which knows what columns of a catalog are positions."""
    position = declared(mapper, "position")
    if position is None:
        return reducer
    if isinstance(reducer, PixelReducer):
        raise ValueError(
            f"{name_of(mapper)} makes catalogs, of which {reducer.name!r} makes no exposure: "
            "reducer='concatenate'"
        )
    if isinstance(reducer, Concatenate) and reducer.position is None:
        return replace(reducer, position=position)
    return reducer


def _built(grid: GridConfig | Grid | None, exposure: Exposure) -> Grid:
    if grid is None:
        grid = GridConfig()
    if isinstance(grid, GridConfig):
        return grid.build(exposure)
    if not isinstance(grid, Grid):
        raise TypeError(f"grid must be a GridConfig or a Grid, got {type(grid).__name__}")
    if grid.box != exposure.bbox:
        raise ValueError(f"the grid was built over {grid.box}, the exposure covers {exposure.bbox}")
    return grid


def _check_border(cells: Grid, mapper: Mapper, kwargs: Mapping[str, Any]) -> None:
    """Refuse a border that is narrower than the mapper's reach, which would leave seams."""
    reach = reach_of(mapper, kwargs)
    if reach is None or not len(cells):
        return
    core, expanded = cells.table["core"], cells.table["expanded"]
    margins = []  # of every cell on each side, at the edges of the exposure as wide as need be
    for first, size, low, high in (
        ("x0", "width", cells.box.x0, cells.box.x1),
        ("y0", "height", cells.box.y0, cells.box.y1),
    ):
        before = np.where(expanded[first] <= low, reach, core[first] - expanded[first])
        end, edge = core[first] + core[size], expanded[first] + expanded[size]
        margins += [before, np.where(edge >= high, reach, edge - end)]
    narrow = np.min(margins, axis=0)
    if narrow.min() < reach:
        raise ValueError(
            f"mapper {name_of(mapper)} looks {reach} pixels around, and cell "
            f"{cells.table['index'][narrow.argmin()]} has a border of {narrow.min()}: there would "
            f"be seams; make the border of the grid {reach}"
        )


def _checked_kwargs(
    kwargs: Mapping[str, Any] | None, aligned: Mapping[str, Exposure] | None
) -> dict[str, Any]:
    if not isinstance(kwargs, Mapping | None):
        raise TypeError(f"mapper_kwargs must be a mapping, got {type(kwargs).__name__}")
    kwargs = dict(kwargs or {})
    if others := [name for name in kwargs if not isinstance(name, str)]:
        raise TypeError(f"mapper_kwargs has names that are not strings: {others}")
    for name, value in kwargs.items():
        if is_dask_collection(value):
            raise TypeError(
                f"mapper_kwargs[{name!r}] is lazy ({type(value).__name__}); compute it first, "
                "or pass an exposure on the same pixels as aligned="
            )
    if both := kwargs.keys() & (aligned or {}).keys():
        raise ValueError(f"{sorted(both)} are named in both mapper_kwargs and aligned")
    if taken := {"cell", "rng"} & {*kwargs, *(aligned or {})}:
        raise ValueError(f"the engine itself gives the mapper {sorted(taken)}; use other names")
    return kwargs


def _checked_aligned(
    aligned: Mapping[str, Exposure] | None, exposure: Exposure
) -> dict[str, Exposure]:
    if not isinstance(aligned, Mapping | None):
        raise TypeError(f"aligned must be a mapping, got {type(aligned).__name__}")
    for name, other in (aligned or {}).items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"aligned name {name!r} cannot be an argument of the mapper")
        if not isinstance(other, Exposure):
            raise TypeError(f"aligned[{name!r}] is a {type(other).__name__}, not an Exposure")
        if not other.bbox.contains(exposure.bbox):
            raise ValueError(
                f"aligned[{name!r}] covers {other.bbox}, not all of the exposure's {exposure.bbox}"
            )
        if other.wcs is not None and exposure.wcs is not None:
            if not same_wcs(other.wcs, exposure.wcs):
                warnings.warn(f"aligned[{name!r}] has another WCS", stacklevel=3)
        if isinstance(other.psf, Delayed):
            raise TypeError(f"aligned[{name!r}] has a lazy PSF; compute or replace it first")
    return dict(aligned or {})


def _checked_count(name: str, value: Any) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return int(value)


def _dtypes(exposure: Exposure) -> dict[str, np.dtype]:
    """Return the dtypes of the result's planes; there is always a mask."""
    planes = {name: plane for name, plane in exposure.planes.items() if name != "mask"}
    dtypes = {name: np.dtype(plane.dtype).newbyteorder("=") for name, plane in planes.items()}
    return {**dtypes, "mask": np.dtype(np.int32)}


def _shell(exposure: Exposure, mask_planes: MaskPlanes) -> Exposure:
    """Return all but the pixels, as every task needs it."""
    shell = exposure._variation(exposure.bbox)
    shell.mask_planes = mask_planes
    shell.report = None
    if isinstance(shell.psf, Delayed):  # it is known when the run begins
        shell.psf = None
    if shell.wcs is not None:
        shell.wcs = shell.wcs.deepcopy()
        shell.wcs.wcs.set()  # so that copying it again is safe in threads
    return shell


def _described(exposure: Exposure, spec: RunSpec[Any]) -> Exposure:
    """Return the result but for its planes, PSF and report; the header says how it was made."""
    shell = exposure._variation(exposure.bbox)
    shell.mask_planes = spec.mask_planes
    shell.meta["MRMAPPER"] = funcname(spec.mapper)[:68]
    shell.meta["MRREDUCE"] = spec.reducer.name
    shell.meta["MRVARRUL"] = spec.reducer.variance_rule
    shell.meta["MRMSKRUL"] = spec.reducer.mask
    return shell


def _token(spec: RunSpec[Any], plan: Any, exposures: Mapping[str, Exposure]) -> str:
    """Return the run's name: the same for the same work, unless planes are in memory."""
    if any(isinstance(p, np.ndarray) for e in exposures.values() for p in e.planes.values()):
        return uuid.uuid4().hex  # as `plane_token` for each of them
    return tokenize(
        spec.mapper,
        spec.kwargs,
        spec.reducer,
        (spec.on_error, spec.seed, spec.reach, spec.return_sub_exposures),
        plan.grid.table,
        (plan.grid.box, plan.x_edges, plan.y_edges),
        dict(exposures),
    )
