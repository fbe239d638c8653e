"""CellPsf: the PSF of an exposure put together from cells that each have their own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ..units import plain
from .box import Box
from .psf import _ONE, Image, Psf, _hashable, _positive, _set

__all__ = ["CellPsf", "PsfComponent"]


@dataclass(frozen=True)
class PsfComponent:
    """One cell of a `CellPsf`.

    Parameters
    ----------
    index : int
        Number of the cell in its grid.
    box : Box
        Where the PSF holds; not empty.
    psf : Psf
        The PSF of the cell.
    weight : float
        Weight in the mean where cells overlap; positive.

    Examples
    --------
    >>> from mapreduce import GaussianPsf
    >>> PsfComponent(3, Box(0, 0, 10, 10), GaussianPsf(2.0)).weight
    1.0
    """

    index: int
    box: Box
    psf: Psf
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.psf, Psf):
            raise TypeError(f"cell {self.index}: expected a Psf, got {self.psf!r}")
        if not self.box.area:
            raise ValueError(f"cell {self.index} has an empty box, {self.box}")
        _set(self, weight=_positive(f"weight of cell {self.index}", self.weight, _ONE))


@dataclass(frozen=True, eq=False)
class CellPsf(Psf):
    """PSF of an exposure made of cells: the weighted mean over the cells that cover the position.

    A cell covers the pixels of its box, each from its lower edge up to, not including, its upper
    edge. The PSFs of the covering cells are drawn at the pixel of the position, normalized, padded
    with zeros to the largest of them, and averaged. So the PSF steps at the edges of cells. Equal
    PSFs are drawn once, and cells are found through spatial indices, so the cost of a
    position does not depend on the number of cells.

    Parameters
    ----------
    components : iterable of PsfComponent
        At least one.

    Attributes
    ----------
    components : tuple of PsfComponent
    bbox : Box
        Smallest box that contains all cells; it may have holes.
    average_position : (float, float)
        Weighted mean of the cells' centers; if no cell covers that, the center nearest to it.

    Raises
    ------
    ValueError
        If there is no component; from every evaluation, if no cell covers the position.

    Examples
    --------
    >>> from mapreduce import GaussianPsf
    >>> left = PsfComponent(0, Box(0, 0, 60, 50), GaussianPsf(1.5))
    >>> right = PsfComponent(1, Box(50, 0, 50, 50), GaussianPsf(2.0))
    >>> psf = CellPsf([left, right])
    >>> psf.sigma(x=10, y=10), psf.sigma(x=80, y=10)
    (1.5, 2.0)
    >>> [component.index for component in psf.components_at(x=55, y=10)]
    [0, 1]
    """

    components: tuple[PsfComponent, ...]

    def __init__(self, components: Iterable[PsfComponent]) -> None:
        components = tuple(components)
        if not components:
            raise ValueError("a CellPsf needs at least one component")
        _set(self, components=components)

    def __len__(self) -> int:
        return len(self.components)

    def components_at(self, *, x: float, y: float) -> tuple[PsfComponent, ...]:
        """Components whose boxes cover the position, in their order; empty if none does."""
        x, y = plain(x, u.pix, "x"), plain(y, u.pix, "y")
        found = []
        for size, tree, members in self._trees:
            # Half of the (scaled) largest size, and a little against rounding.
            near = tree.query_ball_point((x / size[0], y / size[1]), 0.501, p=np.inf)
            found.extend(members[near])
        components = (self.components[i] for i in sorted(found))
        return tuple(c for c in components if c.box.covers(x=x, y=y))

    def draw(self, x: float, y: float, dx: float, dy: float) -> Image:
        """Draw the mean over the cells that cover (x, y)."""
        weights, x, y = self._covering(x, y)
        images = [psf._draw_normalized(x, y, dx, dy) for psf in weights]
        if len(images) == 1:
            return images[0]
        shape = np.max([image.shape for image in images], axis=0)
        mean = np.zeros(shape)
        for image, weight in zip(images, weights.values(), strict=True):
            margin = (shape - image.shape) // 2
            inner = mean[tuple(slice(m, m + n) for m, n in zip(margin, image.shape, strict=True))]
            inner += weight * image
        return mean / sum(weights.values())

    def _draw_normalized(self, x: float, y: float, dx: float, dy: float) -> Image:
        # A second normalization would only change the last bits.
        return self.draw(x, y, dx, dy)

    def sigma(self, x: float | None = None, y: float | None = None) -> float:
        """Return the radius at a position in pixels: the PSF's own word, where there is but one."""
        weights, *pixel = self._covering(*self._position(x, y))
        if len(weights) == 1:
            return next(iter(weights)).sigma(*pixel)
        return super().sigma(x, y)

    @cached_property
    def bbox(self) -> Box:
        """Smallest box that contains all cells."""
        return Box.union(component.box for component in self.components)

    @cached_property
    def average_position(self) -> tuple[float, float]:  # type: ignore[override]  # cached, read-only
        """Weighted mean of the cells' centers, or the cell center nearest to that."""
        centers = np.array([component.box.center for component in self.components])
        x, y = np.average(centers, axis=0, weights=[c.weight for c in self.components])
        if not self.components_at(x=x, y=y):
            x, y = centers[np.argmin(np.hypot(*(centers - (x, y)).T))]
        return float(x), float(y)

    def _covering(self, x: float, y: float) -> tuple[dict[Psf, float], float, float]:
        """Weight of each distinct PSF that covers (x, y), and the pixel that (x, y) is on."""
        weights: dict[Psf, float] = {}
        for component in self.components_at(x=x, y=y):
            weights[component.psf] = weights.get(component.psf, 0.0) + component.weight
        if not weights:
            raise ValueError(
                f"position ({x:g}, {y:g}) is in none of the {len(self)} cells, "
                f"which lie within {self.bbox}"
            )
        return weights, math.floor(x + 0.5), math.floor(y + 0.5)

    @cached_property
    def _trees(self) -> list[tuple[NDArray[np.float64], KDTree, NDArray[np.intp]]]:
        """One index of box centers per class of sizes: (largest size (x, y), tree, members).

        Sizes in a class agree within a factor of two on each axis, so one large cell does not
        widen the search among small ones.
        """
        boxes = np.array([component.box for component in self.components])
        classes, member_of = np.unique(
            2.0 ** np.ceil(np.log2(boxes[:, 2:])), axis=0, return_inverse=True
        )
        centers = boxes[:, :2] + (boxes[:, 2:] - 1) / 2
        members = [np.flatnonzero(member_of.ravel() == i) for i in range(len(classes))]
        return [
            (size, KDTree(centers[i] / size), i) for size, i in zip(classes, members, strict=True)
        ]

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        numbers: dict[Psf, int] = {}
        rows = [(c.index, *c.box, numbers.setdefault(c.psf, len(numbers))) for c in self.components]
        weights = np.array([c.weight for c in self.components], dtype=float)
        psfs = tuple((type(psf).__qualname__, psf._key) for psf in numbers)
        return _hashable(np.array(rows, dtype=np.int64)), _hashable(weights), psfs

    def __repr__(self) -> str:
        return f"CellPsf(<{len(self)} cells in {self.bbox}>)"
