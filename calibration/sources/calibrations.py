"""Where the calibrations of visits come from: products in files, in memory, or yet to be made.

A visit's is loaded when sources of it are met, and kept for a while.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from dask.base import tokenize
from dask.delayed import Delayed, delayed

from ..photocalib.photocalib import VisitPhotoCalib
from ..photocalib.stack import PhotoCalibStack
from ..photocalib.zeropoints import NoZeropointError
from ..products.build import FgcmProducts
from ..products.per_visit import Make, PerVisit
from ..products.store import Store

__all__ = ["Calibrations", "calibrations_of", "stack_of"]

_KEPT = 512  # visits; of 189 detectors with 36 coefficients, 30 MB
_PRODUCT = "photo_calibs"


class Calibrations(Protocol):
    """The calibrations of visits."""

    @property
    def token(self) -> str:
        """Of others that may give other calibrations, another one."""

    def __hash__(self) -> int:
        """Return the same for those that give the same."""

    def stamp(self, visit: int) -> tuple[object, ...] | None:
        """Return what tells a visit's calibration from what it was before; None if none."""

    def load(self, visit: int) -> VisitPhotoCalib | None:
        """Return the calibration of a visit that has a stamp; None if it has none."""


def calibrations_of(photo_calibs: Any) -> Delayed:
    """Return, as a Delayed, the calibrations of what users give; see `calibrate_sources`."""
    if isinstance(photo_calibs, str | os.PathLike):
        return _shared(InFiles(Store.reopen(photo_calibs)))
    if isinstance(photo_calibs, FgcmProducts):
        photo_calibs = photo_calibs.photo_calibs
        if not len(photo_calibs):
            raise ValueError("the products are without photo_calibs: zeropoint_output is false")
    if isinstance(photo_calibs, PerVisit):
        name, shared = photo_calibs.name, photo_calibs.shared
        key = f"calibrations-{tokenize(name, [part.key for part in shared])}"
        return delayed(to_be_made)(
            name, photo_calibs.visits, photo_calibs.make, *shared, dask_key_name=key
        )
    if isinstance(photo_calibs, VisitPhotoCalib):
        photo_calibs = {photo_calibs.visit: photo_calibs}
    if not isinstance(photo_calibs, Mapping):
        raise TypeError(
            "photo_calibs are FgcmProducts, a directory of products, or a mapping from visits to "
            f"VisitPhotoCalibs, got {type(photo_calibs).__name__}"
        )
    return _shared(in_memory(dict(photo_calibs)))


def _shared(calibrations: Calibrations) -> Delayed:
    name = f"calibrations-{calibrations.token}"
    return delayed(calibrations, name=name, traverse=False)


def stack_of(calibrations: Calibrations, visits: np.ndarray) -> PhotoCalibStack | None:
    """Return the calibrations of those visits that have one; None if none has."""
    found = []
    for visit in visits.tolist():
        stamp = calibrations.stamp(visit)
        photo_calib = None if stamp is None else _loaded(calibrations, visit, stamp)
        if photo_calib is not None and len(photo_calib):
            found.append(photo_calib)
    return PhotoCalibStack(found) if found else None


@lru_cache(maxsize=_KEPT)
def _loaded(
    calibrations: Calibrations, visit: int, stamp: tuple[object, ...]
) -> VisitPhotoCalib | None:
    return calibrations.load(visit)


@dataclass(frozen=True)
class InFiles:
    """The calibrations in a directory of products."""

    store: Store

    @property
    def token(self) -> str:
        """That of the store."""
        return self.store.token

    def stamp(self, visit: int) -> tuple[object, ...] | None:
        """Return size and time of the visit's file."""
        try:
            status = os.stat(self.store.path(_PRODUCT, visit))
        except FileNotFoundError:
            return None
        return status.st_size, status.st_mtime_ns

    def load(self, visit: int) -> VisitPhotoCalib:
        """Read the visit's file."""
        return VisitPhotoCalib.from_table(self.store.read(_PRODUCT, visit))


class Loadable:
    """The calibrations of some visits, each loaded by a function; the same if their tokens are."""

    def __init__(
        self, token: str, visits: Iterable[int], load: Callable[[int], VisitPhotoCalib | None]
    ) -> None:
        self.token, self._visits, self.load = token, frozenset(visits), load

    def stamp(self, visit: int) -> tuple[object, ...] | None:
        """Return an empty one if there is the visit."""
        return () if visit in self._visits else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loadable) and other.token == self.token

    def __hash__(self) -> int:
        return hash(self.token)


def in_memory(photo_calibs: Mapping[int, VisitPhotoCalib]) -> Loadable:
    """Return the calibrations that a mapping from visits holds."""
    for visit, photo_calib in photo_calibs.items():
        if not isinstance(photo_calib, VisitPhotoCalib):
            lazy = isinstance(photo_calib, Delayed)
            kind = "a Delayed; compute it first" if lazy else type(photo_calib).__name__
            raise TypeError(f"photo_calibs[{visit!r}] is a VisitPhotoCalib, got {kind}")
        if photo_calib.visit != visit:
            raise ValueError(f"photo_calibs[{visit!r}] is of visit {photo_calib.visit}")
    token = tokenize(sorted(photo_calibs.items(), key=lambda pair: pair[0]))
    return Loadable(token, photo_calibs, photo_calibs.__getitem__)


def to_be_made(name: str, visits: np.ndarray, make: Make, *shared: Any) -> Loadable:
    """Return the calibrations that are made of the parts of a `PerVisit`, which are computed."""
    # The name is that of the first, a large one; offsets may be measured.
    return Loadable(tokenize(name, shared[1:]), visits.tolist(), partial(_made, make, shared))


def _made(make: Make, shared: tuple[Any, ...], visit: int) -> VisitPhotoCalib | None:
    """Make a visit's; what is to be said of its detectors is said of their sources."""
    try:
        return make(*shared, visit)[0]
    except NoZeropointError:
        return None
