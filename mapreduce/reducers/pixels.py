"""The reducers that make an exposure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from .base import Patch, PixelReducer
from .sums import Cover, Totals, divide

__all__ = ["Average", "Copy", "Feather", "Median", "Sum", "WeightedAverage"]


@dataclass(frozen=True)
class Copy(PixelReducer):
    """Keep the last valid value of each pixel, in the order of the cells."""

    name: ClassVar[str] = "copy"
    keeps_psf: ClassVar[bool] = True

    def begin(self, image, variance):
        """Start with nothing covered; the planes are undefined there."""
        planes = (image,) if variance is None else (image, variance)
        return planes, Cover(image.shape)

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
        cover.fill(planes, np.nan)


@dataclass(frozen=True)
class Sum(PixelReducer):
    """Sum of the valid values, and of their variances; 0 and not flagged where there is none."""

    name: ClassVar[str] = "sum"
    variance_rule: ClassVar[str] = "sum"
    holds_nan: ClassVar[bool] = False

    def begin(self, image, variance):
        """Start without values."""
        return Totals(image, variance)

    def fold(self, state, where, patch):
        """Add where the patch has a value, in the output's dtype."""
        values = (patch.image,) if patch.variance is None else (patch.image, patch.variance)
        state.add(where, values, patch.valid)

    def finish(self, state):
        """Leave zero where no value came."""
        state.cover.fill(state.planes, 0)


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

    def begin(self, image, variance):
        """Start without values."""
        return Totals(image, variance)

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
                divide(plane, cover.count, covered)
            for variance in planes[1:]:
                if self.variance_rule == "independent":
                    divide(variance, cover.count, covered)
        for variance in planes[1:]:
            if self.variance_rule == "correlated":
                np.multiply(variance, variance, out=variance)
        cover.fill(planes, np.nan)


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
        See `mapreduce.reducers`.
    """

    name: ClassVar[str] = "weighted_average"
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
        See `mapreduce.reducers`.
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
        See `mapreduce.reducers`, with weights 1. For three and more results the
        "independent" rule is multiplied by pi / 2, the median's variance over the mean's for many
        normal deviates.
    """

    variance_rule: str = "correlated"
    name: ClassVar[str] = "median"

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


def _where(patch: Patch) -> np.ndarray | bool:
    return True if patch.valid is None else patch.valid


def _tent(length: int) -> np.ndarray:
    """Return each pixel's distance from the nearer edge, in pixels."""
    pixels = np.arange(length) + 0.5
    return np.minimum(pixels, length - pixels)
