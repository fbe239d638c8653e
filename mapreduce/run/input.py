"""What a tile's cells are cut from: blocks of pixels, read where the work is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ..exposure.box import Box
from ..exposure.plane import PlaneSource, cut, read
from .spec import MAIN, Planes

__all__ = ["Layout", "TileInput"]

Layout = list[tuple[str, str, Box]]  # exposure, plane and box of each block


class TileInput(NamedTuple):
    """A block of each plane of each exposure.

    All are over what the tile's cells look at, but for the gridded exposure's mask: where results
    become pixels, it is over the tile too, as it is what their mask starts from.

    Attributes
    ----------
    layout : list of (str, str, Box)
        Exposure, plane and box of each block.
    blocks : sequence of arrays and plane sources
        The pixels; those of sources are still unread.
    """

    layout: Layout
    blocks: Sequence[NDArray[Any] | PlaneSource]

    def read(self) -> TileInput:
        """Return the same in memory."""
        return self._replace(blocks=[read(block) for block in self.blocks])

    def planes(self, box: Box) -> dict[str, Planes]:
        """Return the planes of each exposure over a box, read if they are not."""
        planes: dict[str, Planes] = {}
        for (name, plane, whole), block in zip(self.layout, self.blocks, strict=True):
            planes.setdefault(name, {})[plane] = read(cut(block, box.slices(whole)))
        return planes

    def mask(self, box: Box) -> NDArray[Any] | int:
        """Return the gridded exposure's mask over a box; 0 where it has none."""
        for (name, plane, whole), block in zip(self.layout, self.blocks, strict=True):
            if (name, plane) == (MAIN, "mask"):
                return read(cut(block, box.slices(whole)))
        return 0
