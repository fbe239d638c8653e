"""What is the same for all tasks of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..exposure.mask import MaskPlanes
from ..reducers.base import Collector, PixelReducer

__all__ = ["MAIN", "Planes", "RunSpec"]

MAIN = ""  # the name of the gridded exposure, beside the aligned ones

Planes = dict[str, NDArray[Any]]

Reducer = TypeVar("Reducer", bound=PixelReducer | Collector, covariant=True)


@dataclass(frozen=True)
class RunSpec(Generic[Reducer]):
    """What to do with which exposures: mapper, reducer, options, and all but the pixels.

    Attributes
    ----------
    mapper : callable
    extras : frozenset of str
        What the engine adds to the mapper's keyword arguments.
    kwargs : mapping of str to object
        The user's.
    reducer : PixelReducer or Collector
    on_error : {"raise", "mask"}
    seed, reach : int
        As of `map_reduce`.
    box : Box
        Of the gridded exposure.
    dtypes : mapping of str to numpy.dtype
        Of the result's planes.
    mask_planes : MaskPlanes
        Of the result.
    shells : mapping of str to Exposure
        Every exposure without its planes, by name.
    return_sub_exposures : bool
    """

    mapper: Callable[..., Any]
    extras: frozenset[str]
    kwargs: Mapping[str, Any]
    reducer: Reducer
    on_error: str
    seed: int
    reach: int
    box: Box
    dtypes: Mapping[str, np.dtype[Any]]
    mask_planes: MaskPlanes
    shells: Mapping[str, Exposure]
    return_sub_exposures: bool = False

    def with_psf(self, psf: Any) -> RunSpec[Reducer]:
        """Return the same with another PSF of the gridded exposure."""
        shell = self.shells[MAIN].replace()
        shell.psf = psf
        return replace(self, shells={**self.shells, MAIN: shell})

    def exposures(
        self, planes: Mapping[str, Planes], box: Box, cells: NDArray[Any]
    ) -> dict[str, Exposure]:
        """Return the exposures over a box, of which cells are read-only views.

        Parameters
        ----------
        planes : mapping of str to dict of arrays
            The planes of each exposure, over the box.
        box : Box
        cells : (n,) array
            The cells, rows of `Grid.table`.
        """
        widths = {width for part in ("core", "expanded") for width in cells[part]["width"].tolist()}
        return {
            name: self._over(box, name, {n: _read_only(p, widths) for n, p in each.items()})
            for name, each in planes.items()
        }

    def _over(self, box: Box, name: str, planes: Planes) -> Exposure:
        exposure = self.shells[name]._variation(box, **planes)
        # A copy: astropy does not promise that threads may share a WCS (astropy/astropy#19174).
        exposure.wcs = None if exposure.wcs is None else exposure.wcs.deepcopy()
        return exposure


def _read_only(block: NDArray[Any], widths: set[int]) -> NDArray[Any]:
    """Return a read-only view, row by row in memory, in which no cell is contiguous.

    NumPy sums a contiguous array in another order than the rows of a larger one. Were a cell
    contiguous in a tile of its own and not in another, the last bits of a mean would tell.
    """
    height, width = block.shape
    row, pixel = block.strides
    if height > 1 and (pixel != block.itemsize or row // block.itemsize in widths):
        padding = next(n for n in range(1, len(widths) + 2) if width + n not in widths)
        padded = np.empty((height, width + padding), block.dtype)
        padded[:, :width] = block
        block = padded[:, :width]
    view = block.view()
    view.flags.writeable = False
    return view
