"""Where the calibrations of visits come from: products in files, in memory, or yet to be made.

A visit's is loaded when sources of it are met, and kept for a while.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from dask.base import tokenize
from dask.delayed import Delayed, delayed

from ..photocalib.photocalib import VisitPhotoCalib
from ..photocalib.stack import PhotoCalibStack
from ..photocalib.zeropoints import NoZeropointError
from ..products.build import FgcmProducts
from ..products.per_visit import PerVisit
from ..products.store import Store

__all__ = ["Calibrations", "calibrations_of", "stack_of"]

_KEPT = 512  # visits; of 189 detectors with 36 coefficients, 30 MB
_PRODUCT = "photo_calibs"


class Calibrations(Protocol):
    """The calibrations of visits.

    Attributes
    ----------
    token : str
        Of others that may give other calibrations, another one.
    """

    token: str

    def stamp(self, visit: int) -> tuple | None:
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
        return delayed(ToBeMade.of)(
            name, photo_calibs.visits, photo_calibs.make, *shared, dask_key_name=key
        )
    if isinstance(photo_calibs, VisitPhotoCalib):
        photo_calibs = {photo_calibs.visit: photo_calibs}
    if not isinstance(photo_calibs, Mapping):
        raise TypeError(
            "photo_calibs are FgcmProducts, a directory of products, or a mapping from visits to "
            f"VisitPhotoCalibs, got {type(photo_calibs).__name__}"
        )
    return _shared(InMemory(dict(photo_calibs)))


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
def _loaded(calibrations: Calibrations, visit: int, stamp: tuple) -> VisitPhotoCalib | None:
    return calibrations.load(visit)


@dataclass(frozen=True)
class InFiles:
    """The calibrations in a directory of products."""

    store: Store

    @property
    def token(self) -> str:
        """That of the store."""
        return self.store.token

    def stamp(self, visit: int) -> tuple | None:
        """Return size and time of the visit's file."""
        try:
            status = os.stat(self.store.path(_PRODUCT, visit))
        except FileNotFoundError:
            return None
        return status.st_size, status.st_mtime_ns

    def load(self, visit: int) -> VisitPhotoCalib:
        """Read the visit's file."""
        return VisitPhotoCalib.from_table(self.store.read(_PRODUCT, visit))


class _ByToken:
    """Calibrations that are the same if their tokens are."""

    token: str

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.token == self.token

    def __hash__(self) -> int:
        return hash(self.token)


class InMemory(_ByToken):
    """A mapping from visits to calibrations."""

    def __init__(self, photo_calibs: Mapping[int, VisitPhotoCalib]) -> None:
        for visit, photo_calib in photo_calibs.items():
            if not isinstance(photo_calib, VisitPhotoCalib):
                lazy = isinstance(photo_calib, Delayed)
                kind = "a Delayed; compute it first" if lazy else type(photo_calib).__name__
                raise TypeError(f"photo_calibs[{visit!r}] is a VisitPhotoCalib, got {kind}")
            if photo_calib.visit != visit:
                raise ValueError(f"photo_calibs[{visit!r}] is of visit {photo_calib.visit}")
        self._photo_calibs = photo_calibs
        self.token = tokenize(sorted(photo_calibs.items(), key=lambda pair: pair[0]))

    def stamp(self, visit: int) -> tuple | None:
        """Return an empty one if there is the visit."""
        return () if visit in self._photo_calibs else None

    def load(self, visit: int) -> VisitPhotoCalib:
        """Return the visit's."""
        return self._photo_calibs[visit]


class ToBeMade(_ByToken):
    """Calibrations that are made of what all visits share."""

    def __init__(self, token: str, visits: np.ndarray, make: Callable, shared: tuple) -> None:
        self.token = token
        self._visits, self._make, self._shared = frozenset(visits.tolist()), make, shared

    @classmethod
    def of(cls, name: str, visits: np.ndarray, make: Callable, *shared: Any) -> ToBeMade:
        """Make them of the parts of a `PerVisit`, once these are computed."""
        # The name is that of the first, a large one; offsets may be measured.
        return cls(tokenize(name, shared[1:]), visits, make, shared)

    def stamp(self, visit: int) -> tuple | None:
        """Return an empty one if there is the visit."""
        return () if visit in self._visits else None

    def load(self, visit: int) -> VisitPhotoCalib | None:
        """Make the visit's; what is to be said of its detectors is said of their sources."""
        try:
            return self._make(*self._shared, visit)[0]
        except NoZeropointError:
            return None
