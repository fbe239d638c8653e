"""What a reducer is: the bases of those that make an exposure and of those that collect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..grid.grid import Cell

__all__ = ["CellResult", "Collector", "Patch", "PixelReducer"]

_VARIANCE_RULES = ("mean", "correlated", "independent")
_MASK_RULES = ("or", "valid", "replace")


class Patch(NamedTuple):
    """A cell's result, or the part of it that falls on a region.

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
    mask : (ny, nx) int32 array or None
        Its mask bits; None where the output has them already. Not the reducer's concern.
    cell : int
        The cell's index.
    """

    box: Box
    part: Box
    image: NDArray[Any]
    variance: NDArray[Any] | None = None
    valid: NDArray[np.bool_] | None = None
    mask: NDArray[np.int32] | None = None
    cell: int = 0

    @property
    def planes(self) -> tuple[NDArray[Any], ...]:
        """The image, and the variance if there is one."""
        return (self.image,) if self.variance is None else (self.image, self.variance)

    def cut(self, box: Box) -> Patch:
        """Return the part inside of a box; its arrays are views."""
        if box.contains(self.part):
            return self
        part = self.part.clip(box)
        where = part.slices(self.part)
        return self._with(part, lambda plane: plane[where])

    def copy(self) -> Patch:
        """Return the patch with arrays of its own, which do not keep the whole result alive."""
        return self._with(self.part, lambda plane: plane.copy())

    def _with(self, part: Box, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Patch:
        others = self.variance, self.valid, self.mask
        variance, valid, mask = (None if plane is None else change(plane) for plane in others)
        return Patch(self.box, part, change(self.image), variance, valid, mask, self.cell)


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
    ``finish(state)`` must leave the result in the planes that ``begin`` got, NaN where there is
    none. ``variance`` is None throughout for an exposure without it. An attribute
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
    ...         if patch.valid is not None:  # where the result has a value
    ...             higher &= patch.valid
    ...         np.copyto(image[where], patch.image, where=higher)
    ...         if variance is not None:
    ...             np.copyto(variance[where], patch.variance, where=higher)
    ...
    ...     def finish(self, state):
    ...         pass
    >>> Maximum().name
    'maximum'
    """

    mask: str = "or"
    bad: tuple[str, ...] = ("INVALID_MAPREDUCE", "BAD", "NO_DATA")

    variance_rule: str = field(default="none", init=False, repr=False, compare=False)

    name: ClassVar[str] = ""
    needs_variance: ClassVar[bool] = False
    holds_nan: ClassVar[bool] = True
    keeps_psf: ClassVar[bool] = False

    def __post_init__(self) -> None:
        bad = (self.bad,) if isinstance(self.bad, str) else tuple(self.bad)
        object.__setattr__(self, "bad", bad)
        _choice("mask", self.mask, _MASK_RULES)
        if any(f.name == "variance_rule" and f.init for f in fields(self)):
            _choice("variance_rule", self.variance_rule, _VARIANCE_RULES)

    def begin(self, image: NDArray[Any], variance: NDArray[Any] | None) -> Any:
        """Prepare a region; return the state that `fold` adds to."""
        raise NotImplementedError(f"{type(self).__name__} must define begin, fold and finish")

    def fold(self, state: Any, where: tuple[slice, slice], patch: Patch) -> None:
        """Add a patch."""
        raise NotImplementedError(f"{type(self).__name__} must define begin, fold and finish")

    def finish(self, state: Any) -> None:
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


def _choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose from {', '.join(choices)}")
