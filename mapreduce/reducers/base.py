"""What a reducer is, the reducers that make an exposure and those that collect results.

A `PixelReducer` folds the cells' results into planes, one *patch* after the other in the order of
the cells' indices, over a region of the output: ``begin``, ``fold`` for every patch, ``finish``.
It never sees more than the region, so the same three functions serve any tile size.

A `Collector` gets all results at once.

Variance of overlaps. Where n results cover a pixel, with weights w (1 in an average), variances v
and sigma = sqrt(v), the reducers that combine offer three rules by name:

- ``"mean"``: sum(w v) / sum(w), the rule of LSST's task;
- ``"correlated"``: (sum(w sigma) / sum(w))**2, exact where the results are made from the same input
  pixels, as those of overlapping cells are;
- ``"independent"``: sum(w**2 v) / sum(w)**2, for results with noise of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
from astropy.table import Table, vstack

from ..exposure.box import Box
from ..exposure.cell_psf import CellPsf, PsfComponent
from ..exposure.exposure import Exposure
from ..exposure.wcs import same_wcs
from ..grid.grid import Cell
from ..report import CellFailure

__all__ = [
    "REDUCERS",
    "Average",
    "CellResult",
    "Coadd",
    "Collector",
    "Concatenate",
    "Copy",
    "Feather",
    "Keep",
    "Median",
    "Patch",
    "PixelReducer",
    "Sum",
    "WeightedAverage",
    "get_reducer",
]

_VARIANCE_RULES = ("mean", "correlated", "independent")
_MASK_RULES = ("or", "valid", "replace")
_MANY = 64  # places that are compared one by one
_Slices = tuple[slice, slice]


class Patch(NamedTuple):
    """The part of a cell's result that falls on a region.

    Attributes
    ----------
    box : Box
        Box of the whole result.
    part : Box
        Box of the arrays here.
    image : (ny, nx) array
    variance : (ny, nx) array or None
    valid : (ny, nx) bool array or None
        Where the result has a value; None where it has one everywhere.
    """

    box: Box
    part: Box
    image: np.ndarray
    variance: np.ndarray | None
    valid: np.ndarray | None


class CellResult(NamedTuple):
    """What a collector gets of a cell.

    Attributes
    ----------
    cell : Cell
    value : object
        What the mapper returned; a `CellFailure` where it failed.
    sub, expanded : Exposure or None
        The mapper's input, with ``return_sub_exposures``.
    """

    cell: Cell
    value: Any
    sub: Exposure | None = None
    expanded: Exposure | None = None


@dataclass(frozen=True)
class PixelReducer:
    """Base of the reducers that make an exposure; derive from it to write one's own.

    Parameters
    ----------
    mask : {"or", "valid", "replace"}, optional
        Rule of the output mask. "or": the input's bits and the results' bits; "valid": the
        results' bits only where they have a value; "replace": the results' bits instead of the
        input's wherever a result lies.
    bad : sequence of str, optional
        Planes that are set where the output is NaN, added where they do not exist.

    Notes
    -----
    ``begin(image, variance)`` gets the region's output planes, of the output's dtypes and with
    undefined values, and returns whatever ``fold`` and ``finish`` need.
    ``fold(state, where, patch)`` adds one patch, whose place in the region is ``where``.
    A reducer with ``joins = True`` may get the results of several cells that lie side by side as
    one patch, whose ``box`` is that of all of them. With ``keeps_single = True`` a valid value that
    is alone at its pixel comes out as it is, whatever is beside it: where cells tile the output,
    the engine then takes their results for it, and folds nothing.
    With ``looks_for_nan = False`` every pixel of a patch counts as valid, and nobody looks.
    ``finish(state)`` must leave the result in the planes that ``begin`` got, NaN where there is
    none; it may return True where every pixel has a single valid value as it was given, which
    spares a look for NaN. ``variance`` is None throughout for an exposure without it. An attribute
    ``variance_rule`` is recorded in the output's header.

    Examples
    --------
    >>> class Maximum(PixelReducer):
    ...     name = "maximum"
    ...
    ...     def begin(self, image, variance):
    ...         image[...] = np.nan
    ...         if variance is not None:
    ...             variance[...] = np.nan
    ...         return image, variance
    ...
    ...     def fold(self, state, where, patch):
    ...         image, variance = state
    ...         higher = ~(patch.image <= image[where])
    ...         np.copyto(image[where], patch.image, where=higher)
    ...         if variance is not None:
    ...             np.copyto(variance[where], patch.variance, where=higher)
    ...
    ...     def finish(self, state):
    ...         pass
    >>> get_reducer(Maximum()).name
    'maximum'
    """

    mask: str = "or"
    bad: tuple[str, ...] = ("INVALID_MAPREDUCE", "BAD", "NO_DATA")

    name: ClassVar[str] = ""
    variance_rule: ClassVar[str] = "none"
    needs_variance: ClassVar[bool] = False
    holds_nan: ClassVar[bool] = True
    keeps_psf: ClassVar[bool] = False
    joins: ClassVar[bool] = False
    keeps_single: ClassVar[bool] = False
    looks_for_nan: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a class that folds in its own way not inherit the short cut of another."""
        super().__init_subclass__(**kwargs)
        if {"begin", "fold", "finish"} & vars(cls).keys() and "keeps_single" not in vars(cls):
            cls.keeps_single = False

    def __post_init__(self) -> None:
        bad = (self.bad,) if isinstance(self.bad, str) else tuple(self.bad)
        object.__setattr__(self, "bad", bad)
        _choice("mask", self.mask, _MASK_RULES)
        if any(f.name == "variance_rule" for f in fields(self)):
            _choice("variance_rule", self.variance_rule, _VARIANCE_RULES)

    def begin(self, image: np.ndarray, variance: np.ndarray | None) -> Any:
        """Prepare a region; return the state that `fold` adds to."""
        raise NotImplementedError(f"{type(self).__name__} must define begin, fold and finish")

    def fold(self, state: Any, where: _Slices, patch: Patch) -> None:
        """Add a patch."""
        raise NotImplementedError(f"{type(self).__name__} must define begin, fold and finish")

    def finish(self, state: Any) -> bool | None:
        """Leave the result in the planes."""
        raise NotImplementedError(f"{type(self).__name__} must define begin, fold and finish")

    def check(self, exposure: Exposure) -> None:
        """Raise ValueError where the reducer cannot work on the exposure."""
        kind = np.dtype(exposure.image.dtype)
        if self.holds_nan and kind.kind != "f":
            raise ValueError(
                f"reducer {self.name!r} marks missing pixels as NaN, which an image of {kind} "
                "cannot hold; convert it with exposure.astype('float32')"
            )
        if self.needs_variance and exposure.planes.get("variance") is None:
            raise ValueError(f"reducer {self.name!r} needs an exposure with a variance plane")


@dataclass(frozen=True)
class Copy(PixelReducer):
    """Keep the last valid value of each pixel, in the order of the cells."""

    name: ClassVar[str] = "copy"
    joins: ClassVar[bool] = True
    keeps_single: ClassVar[bool] = True
    keeps_psf: ClassVar[bool] = True

    def begin(self, image, variance):
        """Start with nothing covered; the planes are undefined there."""
        planes = (image,) if variance is None else (image, variance)
        return planes, _Cover(image.shape)

    def fold(self, state, where, patch):
        """Overwrite where the patch has a value."""
        planes, cover = state
        cover.add(where, patch.valid)
        for plane, values in zip(planes, (patch.image, patch.variance), strict=False):
            if patch.valid is None:
                plane[where] = values
            else:
                np.copyto(plane[where], values, where=patch.valid, casting="same_kind")

    def finish(self, state):
        """Leave NaN where nothing is covered."""
        planes, cover = state
        return cover.fill(planes, np.nan)


class _Cover:
    """How many values the pixels of a region have.

    Where results lie side by side, each valid everywhere, their places tell. Only when one lies
    over another, or lacks values, are they counted pixel by pixel.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._places: list[_Slices] | None = []
        self._count: np.ndarray | None = None

    def add(self, where: _Slices, valid: np.ndarray | None) -> np.ndarray | None:
        """Add values; return how many there were before, or None if there were none at all."""
        if self._count is None and valid is None and self._is_free(where):
            self._places.append(where)
            return None
        count = self.count[where]
        if count.max(initial=0) == np.iinfo(count.dtype).max:
            self._count = self._count.astype(np.uint32)
            count = self._count[where]
        before = count.copy()
        count += True if valid is None else valid
        return before

    def _is_free(self, where: _Slices) -> bool:
        if len(self._places) == _MANY:
            return False
        y, x = where
        return not any(
            y.start < rows.stop and rows.start < y.stop
            and x.start < columns.stop and columns.start < x.stop
            for rows, columns in self._places
        )  # fmt: skip

    @property
    def count(self) -> np.ndarray:
        """The number of values of each pixel; an unsigned integer array."""
        if self._count is None:
            self._count = np.zeros(self.shape, np.uint8)
            for where in self._places:
                self._count[where] = 1
        return self._count

    @property
    def is_single(self) -> bool:
        """Whether no pixel can have more than one value."""
        return self._count is None

    def fill(self, planes: Sequence[np.ndarray], value: float) -> bool:
        """Set pixels without a value; return whether all have a single one."""
        if self._count is None:
            height, width = self.shape
            areas = ((y.stop - y.start) * (x.stop - x.start) for y, x in self._places)
            if sum(areas) == height * width:
                return True
        if not self.count.all():
            missing = self.count == 0
            for plane in planes:
                plane[missing] = value
        return False


class _Totals:
    """Sums of the valid values of a region; undefined where there is none."""

    def __init__(self, image: np.ndarray, variance: np.ndarray | None) -> None:
        self.planes = (image,) if variance is None else (image, variance)
        self.cover = _Cover(image.shape)

    def add(self, where: _Slices, values: Sequence[np.ndarray], valid: np.ndarray | None) -> None:
        """Add values where they are valid, in the dtypes of the planes; the first as it is."""
        before = self.cover.add(where, valid)
        for plane, terms in zip(self.planes, values, strict=True):
            total = plane[where]
            if before is None:
                np.copyto(total, terms)
                continue
            first = before == 0
            further = ~first if valid is None else valid & ~first
            np.copyto(total, terms, where=first)
            np.add(total, terms, out=total, where=further, casting="same_kind")


@dataclass(frozen=True)
class Sum(PixelReducer):
    """Sum of the valid values, and of their variances; 0 and not flagged where there is none."""

    name: ClassVar[str] = "sum"
    joins: ClassVar[bool] = True
    keeps_single: ClassVar[bool] = True
    variance_rule: ClassVar[str] = "sum"
    holds_nan: ClassVar[bool] = False

    def begin(self, image, variance):
        """Start without values."""
        return _Totals(image, variance)

    def fold(self, state, where, patch):
        """Add where the patch has a value, in the output's dtype."""
        values = (patch.image,) if patch.variance is None else (patch.image, patch.variance)
        state.add(where, values, patch.valid)

    def finish(self, state):
        """Leave zero where no value came."""
        return state.cover.fill(state.planes, 0)


@dataclass(frozen=True)
class Average(PixelReducer):
    """Mean of the valid values.

    Sums are in the output's dtype, the division is in float64.

    Parameters
    ----------
    variance_rule : {"mean", "correlated", "independent"}, optional
        See the module's documentation.
    """

    variance_rule: str = "mean"
    name: ClassVar[str] = "average"
    joins: ClassVar[bool] = True

    @property
    def keeps_single(self) -> bool:
        """The square of a root is not to the last bit what it was made of."""
        return self.variance_rule != "correlated"

    def begin(self, image, variance):
        """Start without values."""
        return _Totals(image, variance)

    def fold(self, state, where, patch):
        """Add where the patch has a value, and count."""
        values = (patch.image,)
        if patch.variance is not None:
            correlated = self.variance_rule == "correlated"
            values += (np.sqrt(patch.variance) if correlated else patch.variance,)
        state.add(where, values, patch.valid)

    def finish(self, state):
        """Divide by the count; NaN where it is zero."""
        planes, cover = state.planes, state.cover
        if not cover.is_single and cover.count.max(initial=0) > 1:
            covered = cover.count > 0
            for plane in planes:
                _divide(plane, cover.count, covered)
            for variance in planes[1:]:
                if self.variance_rule == "independent":
                    _divide(variance, cover.count, covered)
        for variance in planes[1:]:
            if self.variance_rule == "correlated":
                np.multiply(variance, variance, out=variance)
        return cover.fill(planes, np.nan) and self.keeps_single


class _Weighted(NamedTuple):
    image: np.ndarray
    variance: np.ndarray | None
    total: np.ndarray  # sum of weight * value
    spread: np.ndarray | None  # what the variance is made of
    weight: np.ndarray


@dataclass(frozen=True)
class _WeightedMean(PixelReducer):
    """sum(w x) / sum(w), in float64."""

    variance_rule: str = "correlated"

    def weight(self, patch: Patch) -> np.ndarray:
        """Return the weight of each pixel of the patch; 0 where it has none."""
        raise NotImplementedError

    def begin(self, image, variance):
        """Start from zero weight."""
        total, weight = np.zeros(image.shape), np.zeros(image.shape)
        spread = None if variance is None else np.zeros(image.shape)
        return _Weighted(image, variance, total, spread, weight)

    def fold(self, state, where, patch):
        """Add the weighted values, the weights, and what the variance rule needs."""
        weight = self.weight(patch)
        valid = np.broadcast_to(_where(patch) & (weight > 0), weight.shape)
        state.weight[where] += np.where(valid, weight, 0)
        total = state.total[where]
        np.add(total, weight * patch.image, out=total, where=valid)
        if state.spread is not None:
            values = patch.variance.astype(np.float64)
            term = {
                "mean": lambda: weight * values,
                "correlated": lambda: weight * np.sqrt(values),
                "independent": lambda: weight**2 * values,
            }[self.variance_rule]()
            spread = state.spread[where]
            np.add(spread, term, out=spread, where=valid)

    def finish(self, state):
        """Divide by the sum of the weights; NaN where it is zero."""
        weight = np.where(state.weight > 0, state.weight, np.nan)
        state.image[...] = state.total / weight
        if state.variance is not None:
            variance = state.spread / weight
            if self.variance_rule == "correlated":
                variance *= variance
            elif self.variance_rule == "independent":
                variance /= weight
            state.variance[...] = variance


@dataclass(frozen=True)
class WeightedAverage(_WeightedMean):
    """Mean of the valid values, weighted by inverse variance; values without variance do not count.

    Parameters
    ----------
    variance_rule : {"correlated", "independent", "mean"}, optional
        See the module's documentation.
    """

    name: ClassVar[str] = "weighted_average"
    joins: ClassVar[bool] = True
    needs_variance: ClassVar[bool] = True

    def weight(self, patch):
        """Return 1 / variance where it is above zero and finite."""
        usable = (patch.variance > 0) & np.isfinite(patch.variance)
        weight = np.zeros(patch.image.shape)
        return np.divide(1.0, patch.variance, out=weight, where=usable, dtype=np.float64)


@dataclass(frozen=True)
class Feather(_WeightedMean):
    """Blend overlapping results without a seam.

    The weight of a result falls linearly in x and in y from its middle to its edge, so that in an
    overlap one result fades out while the other fades in. It needs overlaps to work on: a mapper
    that returns its expanded box, or cells that overlap.

    Parameters
    ----------
    variance_rule : {"correlated", "independent", "mean"}, optional
        See the module's documentation.
    """

    name: ClassVar[str] = "feather"

    def weight(self, patch):
        """Return the product of the distances from the nearest edges in x and in y."""
        rows, columns = patch.part.slices(patch.box)
        return np.multiply.outer(_tent(patch.box.height)[rows], _tent(patch.box.width)[columns])


class _Stack(NamedTuple):
    image: np.ndarray
    variance: np.ndarray | None
    count: np.ndarray
    layers: list[np.ndarray]
    spread: np.ndarray | None


@dataclass(frozen=True)
class Median(PixelReducer):
    """Median of the valid values; the mean of the middle two where their number is even.

    Parameters
    ----------
    variance_rule : {"correlated", "independent", "mean"}, optional
        See the module's documentation, with weights 1. For three and more results the
        "independent" rule is multiplied by pi / 2, the median's variance over the mean's for many
        normal deviates.
    """

    variance_rule: str = "correlated"
    name: ClassVar[str] = "median"
    joins: ClassVar[bool] = True

    def begin(self, image, variance):
        """Start with an empty stack."""
        spread = None if variance is None else np.zeros(image.shape)
        return _Stack(image, variance, np.zeros(image.shape, np.intp), [], spread)

    def fold(self, state, where, patch):
        """Put each value on top of its pixel's stack."""
        valid = np.broadcast_to(_where(patch), patch.image.shape)
        count = state.count[where]
        if not state.layers or count.max() >= len(state.layers):
            state.layers.append(np.full(state.image.shape, np.nan, state.image.dtype))
        for depth, layer in enumerate(state.layers):
            on_top = valid & (count == depth)
            np.copyto(layer[where], patch.image, where=on_top, casting="same_kind")
        count += valid
        if state.spread is not None:
            spread = state.spread[where]
            values = patch.variance.astype(np.float64)
            if self.variance_rule == "correlated":
                values = np.sqrt(values)
            np.add(spread, values, out=spread, where=valid)

    def finish(self, state):
        """Take the middle of every stack; NaN where it is empty."""
        count = np.where(state.count > 0, state.count, 1)
        if not state.layers:
            state.layers.append(np.full(state.image.shape, np.nan, state.image.dtype))
        stack = np.sort(np.stack(state.layers), axis=0)  # NaN sorts last
        low = np.take_along_axis(stack, (count - 1)[None] // 2, axis=0)[0]
        high = np.take_along_axis(stack, count[None] // 2, axis=0)[0]
        state.image[...] = (low.astype(np.float64) + high) / 2
        if state.variance is not None:
            number = np.where(state.count > 0, state.count, np.nan)
            variance = state.spread / number
            if self.variance_rule == "correlated":
                variance *= variance
            elif self.variance_rule == "independent":
                variance *= np.where(number > 2, np.pi / 2, 1) / number
            state.variance[...] = variance


@dataclass(frozen=True)
class Collector:
    """Base of the reducers that collect results; derive from it to write one's own.

    Notes
    -----
    ``collect(results)`` gets a list of `CellResult` in the order of the cells' indices, and what
    it returns is the result of the run. The value of a failed cell is a `CellFailure`.
    """

    name: ClassVar[str] = ""

    def check(self, exposure: Exposure) -> None:
        """Raise ValueError where the reducer cannot work on the exposure."""

    def check_value(self, value: Any, sub: Exposure) -> None:
        """Raise where a mapper's result will not do; the cell has failed then."""

    def collect(self, results: list[CellResult]) -> Any:
        """Return the result of the run."""
        raise NotImplementedError(f"{type(self).__name__} must define collect")


@dataclass(frozen=True)
class Keep(Collector):
    """The list of what the mapper returned, in the order of the cells."""

    name: ClassVar[str] = "none"

    def collect(self, results):
        """Return the values, or whole `CellResult` records where the inputs were asked for."""
        if any(result.sub is not None for result in results):
            return results
        return [result.value for result in results]


@dataclass(frozen=True)
class Coadd(Collector):
    """The PSF of the stitched exposure: a `CellPsf` of the PSFs of the cells' results.

    The mapper returns an Exposure, or a (psf, box) pair.
    """

    name: ClassVar[str] = "coadd_psf"

    def check_value(self, value, sub):
        """Refuse what has no PSF, or is on other pixels."""
        psf, _ = _psf_and_box(value)
        if psf is None:
            raise ValueError("reducer 'coadd_psf' needs a PSF, which the mapper's result has not")
        if isinstance(value, Exposure) and value.wcs is not None:
            if not same_wcs(value.wcs, sub.wcs):
                raise ValueError("the mapper returned an exposure with another WCS than its input")

    def collect(self, results):
        """Return the combined PSF."""
        return CellPsf(
            [
                PsfComponent(result.cell.index, box, psf)
                for result in _succeeded(results)
                for psf, box in [_psf_and_box(result.value)]
            ]
        )


@dataclass(frozen=True)
class Concatenate(Collector):
    """The rows of all cells' tables in one, in the order of the cells.

    The mapper returns astropy Tables, NumPy arrays, lists, mappings from column name to array, or
    pandas DataFrames, the same kind for every cell; None is an empty one. A column ``cell`` with
    the cell's index is added to tables, mappings and DataFrames.

    Parameters
    ----------
    cell_column : str or None, optional
        Name of that column; None for no such column.
    """

    cell_column: str | None = "cell"
    name: ClassVar[str] = "concatenate"

    def collect(self, results):
        """Return the concatenation; an empty list where there was nothing."""
        pieces = [(r.cell.index, r.value) for r in _succeeded(results) if r.value is not None]
        if not pieces:
            return []
        kinds = {type(value).__name__ for _, value in pieces}
        if len(kinds) > 1:
            raise TypeError(f"cannot concatenate results of different types: {sorted(kinds)}")
        first = pieces[0][1]
        if isinstance(first, np.ndarray):
            return np.concatenate([value for _, value in pieces])
        if isinstance(first, list):
            return [row for _, value in pieces for row in value]
        if isinstance(first, Mapping):
            return self._mappings(pieces)
        if isinstance(first, Table):
            tables = [self._labelled(value.copy(), index) for index, value in pieces]
            return vstack(tables, metadata_conflicts="silent")
        if type(first).__name__ == "DataFrame":
            import pandas as pd

            frames = [self._labelled(value.copy(), index) for index, value in pieces]
            return pd.concat(frames, ignore_index=True)
        raise TypeError(
            f"cannot concatenate {type(first).__name__}; the mapper must return tables, arrays, "
            "lists or mappings of columns"
        )

    def _labelled(self, table: Any, index: int) -> Any:
        if self.cell_column is not None:
            self._check_free(table.columns, index)
            table[self.cell_column] = np.full(len(table), index)
        return table

    def _check_free(self, columns: Any, index: int) -> None:
        if self.cell_column in columns:
            raise ValueError(
                f"cell {index}: the mapper's own column {self.cell_column!r} is in the way of the "
                "cell's index; choose Concatenate(cell_column=...)"
            )

    def _mappings(self, pieces: Sequence[tuple[int, Mapping]]) -> dict[str, np.ndarray]:
        columns = list(pieces[0][1])
        for index, value in pieces:
            if list(value) != columns:
                raise ValueError(f"cell {index} has columns {list(value)}, the first {columns}")
        joined = {c: np.concatenate([np.atleast_1d(v[c]) for _, v in pieces]) for c in columns}
        if self.cell_column is not None and columns:
            self._check_free(columns, pieces[0][0])
            lengths = [len(np.atleast_1d(v[columns[0]])) for _, v in pieces]
            joined[self.cell_column] = np.repeat([index for index, _ in pieces], lengths)
        return joined


#: The reducers that have a name, by name.
REDUCERS = {
    reducer.name: reducer
    for reducer in (
        *(Keep, Copy, Sum, Average, Coadd),
        *(WeightedAverage, Median, Feather, Concatenate),
    )
}


def get_reducer(reducer: str | PixelReducer | Collector) -> PixelReducer | Collector:
    """Return a reducer by its name, or the reducer itself.

    Raises
    ------
    ValueError
        If there is none of that name.
    TypeError
        If it is neither a name nor a reducer.

    Examples
    --------
    >>> get_reducer("average")
    Average(mask='or', bad=('INVALID_MAPREDUCE', 'BAD', 'NO_DATA'), variance_rule='mean')
    """
    if isinstance(reducer, str):
        if reducer not in REDUCERS:
            raise ValueError(f"no reducer {reducer!r}; choose from {', '.join(REDUCERS)}")
        return REDUCERS[reducer]()
    if not isinstance(reducer, PixelReducer | Collector):
        raise TypeError(
            f"reducer must be a name, a PixelReducer or a Collector, got {reducer!r}; "
            f"names are {', '.join(REDUCERS)}"
        )
    return reducer


def _where(patch: Patch) -> np.ndarray | bool:
    return True if patch.valid is None else patch.valid


def _divide(plane: np.ndarray, count: np.ndarray, covered: np.ndarray) -> None:
    """Divide in float64, store in the plane's dtype."""
    np.divide(plane, count, out=plane, where=covered, casting="same_kind", dtype=np.float64)


def _tent(length: int) -> np.ndarray:
    """Return each pixel's distance from the nearer edge, in pixels."""
    pixels = np.arange(length) + 0.5
    return np.minimum(pixels, length - pixels)


def _psf_and_box(value: Any) -> tuple[Any, Box]:
    if isinstance(value, Exposure):
        return value.psf, value.bbox
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Box):
        return value
    raise TypeError(
        "reducer 'coadd_psf' takes an Exposure or a (psf, box) pair from the mapper, "
        f"which returned {type(value).__name__}"
    )


def _succeeded(results: list[CellResult]) -> list[CellResult]:
    return [result for result in results if not isinstance(result.value, CellFailure)]


def _choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose from {', '.join(choices)}")
