"""The reducers that make an exposure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Patch, PixelReducer
from .sums import Totals, divide

__all__ = ["Average", "Copy", "Feather", "Median", "Sum", "WeightedAverage"]

Image = NDArray[Any]
Where = tuple[slice, slice]
Region = tuple[Image, Image | None]  # the image and the variance that a reducer fills
Sums = tuple[  # of the weights, of the weighted values, and of what the variance is made of
    NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None
]
Stack = tuple[  # values by depth, how many there are, and the sum that the variance is made of
    list[Image], NDArray[np.intp], NDArray[np.float64] | None
]


@dataclass(frozen=True)
class Copy(PixelReducer):
    """Keep the last valid value of each pixel, in the order of the cells."""

    name: ClassVar[str] = "copy"
    keeps_psf: ClassVar[bool] = True

    def begin(self, image: Image, variance: Image | None) -> Totals:
        """Start with nothing covered; the planes are undefined there."""
        return Totals(image, variance)

    def fold(self, state: Totals, where: Where, patch: Patch) -> None:
        """Overwrite where the patch has a value."""
        state.cover(where, patch.valid)
        for plane, values in zip(state.planes, patch.planes, strict=True):
            if patch.valid is None:
                plane[where] = values
            else:
                np.copyto(plane[where], values, where=patch.valid, casting="same_kind")

    def finish(self, state: Totals) -> None:
        """Leave NaN where nothing is covered."""
        state.fill(np.nan)


@dataclass(frozen=True)
class Sum(PixelReducer):
    """Sum of the valid values, and of their variances; 0 and not flagged where there is none."""

    variance_rule: str = field(default="sum", init=False, repr=False, compare=False)
    name: ClassVar[str] = "sum"
    holds_nan: ClassVar[bool] = False

    def begin(self, image: Image, variance: Image | None) -> Totals:
        """Start without values."""
        return Totals(image, variance)

    def fold(self, state: Totals, where: Where, patch: Patch) -> None:
        """Add where the patch has a value, in the output's dtype."""
        state.add(where, patch.planes, patch.valid)

    def finish(self, state: Totals) -> None:
        """Leave zero where no value came."""
        state.fill(0)


@dataclass(frozen=True)
class Average(PixelReducer):
    """Mean of the valid values.

    Sums are in the output's dtype, the division is in float64.

    Parameters
    ----------
    variance_rule : {"mean", "correlated", "independent"}, optional
        See `mapreduce.reducers`.
    """

    variance_rule: str = "mean"
    name: ClassVar[str] = "average"

    def begin(self, image: Image, variance: Image | None) -> Totals:
        """Start without values."""
        return Totals(image, variance)

    def fold(self, state: Totals, where: Where, patch: Patch) -> None:
        """Add where the patch has a value, and count."""
        values = [patch.image]
        if patch.variance is not None:
            correlated = self.variance_rule == "correlated"
            values.append(np.sqrt(patch.variance) if correlated else patch.variance)
        state.add(where, values, patch.valid)

    def finish(self, state: Totals) -> None:
        """Divide by the count; NaN where it is zero."""
        variances = state.planes[1:]
        if not state.is_single and state.count.max(initial=0) > 1:
            covered = state.count > 0
            for plane in state.planes:
                divide(plane, state.count, covered)
            for variance in variances:
                if self.variance_rule == "independent":
                    divide(variance, state.count, covered)
        for variance in variances:
            if self.variance_rule == "correlated":
                np.multiply(variance, variance, out=variance)
        state.fill(np.nan)


@dataclass(frozen=True)
class WeightedAverage(PixelReducer):
    """Mean of the valid values, weighted by inverse variance; values without variance do not count.

    It is sum(w x) / sum(w), in float64.

    Parameters
    ----------
    variance_rule : {"correlated", "independent", "mean"}, optional
        See `mapreduce.reducers`.
    """

    variance_rule: str = "correlated"
    name: ClassVar[str] = "weighted_average"
    needs_variance: ClassVar[bool] = True

    def weight(self, patch: Patch) -> NDArray[np.float64]:
        """Return the weight of each pixel: 1 / variance where that is above zero and finite."""
        weight = np.zeros(patch.image.shape)
        if patch.variance is not None:  # there is one, as `check` has seen
            usable = (patch.variance > 0) & np.isfinite(patch.variance)
            np.divide(1.0, patch.variance, out=weight, where=usable, dtype=np.float64)
        return weight

    def begin(self, image: Image, variance: Image | None) -> tuple[Region, Sums]:
        """Start from zero weight."""
        spread = None if variance is None else np.zeros(image.shape)
        return (image, variance), (np.zeros(image.shape), np.zeros(image.shape), spread)

    def fold(self, state: tuple[Region, Sums], where: Where, patch: Patch) -> None:
        """Add the weighted values, the weights, and what the variance rule needs."""
        _, (weights, total, spread) = state
        weight = self.weight(patch)
        valid = np.broadcast_to(_where(patch) & (weight > 0), weight.shape)
        weights[where] += np.where(valid, weight, 0)
        np.add(total[where], weight * patch.image, out=total[where], where=valid)
        if spread is not None and patch.variance is not None:
            values = patch.variance.astype(np.float64)
            if self.variance_rule == "mean":
                term = weight * values
            elif self.variance_rule == "correlated":
                term = weight * np.sqrt(values)
            else:
                term = weight**2 * values
            np.add(spread[where], term, out=spread[where], where=valid)

    def finish(self, state: tuple[Region, Sums]) -> None:
        """Divide by the sum of the weights; NaN where it is zero."""
        (image, variance), (weights, total, spread) = state
        weight = np.where(weights > 0, weights, np.nan)
        image[...] = total / weight
        if variance is not None and spread is not None:
            mean = spread / weight
            if self.variance_rule == "correlated":
                mean *= mean
            elif self.variance_rule == "independent":
                mean /= weight
            variance[...] = mean


@dataclass(frozen=True)
class Feather(WeightedAverage):
    """Blend overlapping results without a seam.

    The weight of a result falls linearly in x and in y from its middle to its edge, so that in an
    overlap one result fades out while the other fades in. It needs overlaps to work on: a mapper
    that returns its expanded box, or cells that overlap.

    Parameters
    ----------
    variance_rule : {"correlated", "independent", "mean"}, optional
        See `mapreduce.reducers`.
    """

    name: ClassVar[str] = "feather"
    needs_variance: ClassVar[bool] = False

    def weight(self, patch: Patch) -> NDArray[np.float64]:
        """Return the product of the distances from the nearest edges in x and in y."""
        rows, columns = patch.part.slices(patch.box)
        return np.multiply.outer(_tent(patch.box.height)[rows], _tent(patch.box.width)[columns])


@dataclass(frozen=True)
class Median(PixelReducer):
    """Median of the valid values; the mean of the middle two where their number is even.

    Parameters
    ----------
    variance_rule : {"correlated", "independent", "mean"}, optional
        See `mapreduce.reducers`, with weights 1. For three and more results the
        "independent" rule is multiplied by pi / 2, the median's variance over the mean's for many
        normal deviates.
    """

    variance_rule: str = "correlated"
    name: ClassVar[str] = "median"

    def begin(self, image: Image, variance: Image | None) -> tuple[Region, Stack]:
        """Start with an empty stack."""
        spread = None if variance is None else np.zeros(image.shape)
        return (image, variance), ([], np.zeros(image.shape, np.intp), spread)

    def fold(self, state: tuple[Region, Stack], where: Where, patch: Patch) -> None:
        """Put each value on top of its pixel's stack."""
        (image, _), (layers, counts, spread) = state
        valid = np.broadcast_to(_where(patch), patch.image.shape)
        count = counts[where]
        if not layers or count.max() >= len(layers):
            layers.append(np.full(image.shape, np.nan, image.dtype))
        for depth, layer in enumerate(layers):
            on_top = valid & (count == depth)
            np.copyto(layer[where], patch.image, where=on_top, casting="same_kind")
        count += valid
        if spread is not None and patch.variance is not None:
            values = patch.variance.astype(np.float64)
            if self.variance_rule == "correlated":
                values = np.sqrt(values)
            np.add(spread[where], values, out=spread[where], where=valid)

    def finish(self, state: tuple[Region, Stack]) -> None:
        """Take the middle of every stack; NaN where it is empty."""
        (image, variance), (layers, counts, spread) = state
        count = np.where(counts > 0, counts, 1)
        stack = np.sort(np.stack(layers or [np.full_like(image, np.nan)]), axis=0)  # NaN is last
        low = np.take_along_axis(stack, (count - 1)[None] // 2, axis=0)[0]
        high = np.take_along_axis(stack, count[None] // 2, axis=0)[0]
        image[...] = (low.astype(np.float64) + high) / 2
        if variance is not None and spread is not None:
            number = np.where(counts > 0, counts, np.nan)
            mean = spread / number
            if self.variance_rule == "correlated":
                mean *= mean
            elif self.variance_rule == "independent":
                mean *= np.where(number > 2, np.pi / 2, 1) / number
            variance[...] = mean


def _where(patch: Patch) -> NDArray[np.bool_] | bool:
    return True if patch.valid is None else patch.valid


def _tent(length: int) -> NDArray[np.float64]:
    """Return each pixel's distance from the nearer edge, in pixels."""
    pixels = np.arange(length) + 0.5
    return np.minimum(pixels, length - pixels)
