"""Photometric calibrations in files that LSST's afw wrote, without its code.

Such a file ends in an *archive*: an index, and tables with the parts of what is stored. The index
says in which rows of which table the object of a number is.
"""

from __future__ import annotations

import os
from functools import reduce
from typing import NamedTuple

import numpy as np

from mapreduce import Box
from mapreduce.io.hdu import Hdu, read_table, scan

from ..fields.chebyshev import ChebyshevField

__all__ = ["StoredPhotoCalib", "read_exposure_catalog", "read_photo_calib"]

_EVERYWHERE = Box(-(2**30), -(2**30), 2**31, 2**31)


class StoredPhotoCalib(NamedTuple):
    """What a PhotoCalib in a file says: a field in nJy per count, its mean, and its error."""

    field: ChebyshevField
    mean: float
    err: float


def read_photo_calib(path: str | os.PathLike[str]) -> StoredPhotoCalib:
    """Read the PhotoCalib of a file: one of its own, or that of an exposure; see `PhotoCalib.open`.

    A calibration that is the same everywhere, and has no box, gets one of 2**31 pixels about the
    origin.
    """
    archive = _Archive(path)
    primary = archive.hdus[0].header()
    number = primary.get("ARCHIVE_ID_PHOTOCALIB", primary.get("PHOTOCALIB_ID"))
    if number is None:
        number = 1  # of what a file is about
    return archive.photo_calib(number, _EVERYWHERE)


def read_exposure_catalog(
    path: str | os.PathLike[str],
) -> tuple[int, dict[int, StoredPhotoCalib]]:
    """Read the visit and, by detector, the PhotoCalibs of an exposure catalog.

    See `VisitPhotoCalib.open`, which says what box one gets that is the same everywhere. Detectors
    without one are left out.
    """
    archive = _Archive(path)
    catalog = read_table(archive.hdus[1])
    wanted = {"id", "visit", "photoCalib", "bbox_min_x", "bbox_min_y", "bbox_max_x", "bbox_max_y"}
    if missing := wanted - set(catalog.dtype.names or ()):
        raise ValueError(
            f"{path} is not a catalog of exposures with photoCalibs: its first table has no "
            f"{', '.join(sorted(missing))}"
        )
    visits = np.unique(catalog["visit"])
    if len(visits) != 1:
        raise ValueError(f"{path} has rows of {len(visits)} visits; a VisitPhotoCalib is of one")
    found = {
        int(row["id"]): archive.photo_calib(row["photoCalib"], _box(row) or _EVERYWHERE)
        for row in catalog
        if row["photoCalib"]
    }
    return int(visits[0]), found


class _Archive:
    """The objects of a file, by their numbers."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.hdus = scan(path)
        places = [i for i, h in enumerate(self.hdus) if h.facts.get("EXTTYPE") == "ARCHIVE_INDEX"]
        if not places:
            raise ValueError(f"{path} has no archive of LSST objects (EXTTYPE ARCHIVE_INDEX)")
        self._first = places[0]
        self._index = read_table(self.hdus[self._first])

    def _find(self, number: int) -> tuple[str, Hdu, np.ndarray]:
        """Return an object's class, and the HDU and rows of its first part."""
        parts = self._index[self._index["id"] == number]
        if not len(parts):
            raise ValueError(f"{self.path}: the archive has no object {number}")
        part = parts[np.argmin(parts["cat.persistable"])]
        hdu = self.hdus[self._first + int(part["cat.archive"])]
        start = int(part["row0"])
        return part["name"].decode().strip(), hdu, read_table(hdu)[start : start + part["nrows"]]

    def photo_calib(self, number: int, box: Box) -> StoredPhotoCalib:
        """Return a PhotoCalib; ``box`` is for one that has none."""
        name, hdu, rows = self._find(number)
        if name != "PhotoCalib":
            raise ValueError(f"{self.path} holds a {name}, not a PhotoCalib")
        (row,) = rows
        if "version" not in (rows.dtype.names or ()) or row["version"] < 1:
            raise ValueError(f"{self.path}: a PhotoCalib of version 0 is in maggies, not in nJy")
        mean, err = float(row["calibrationMean"]), float(row["calibrationErr"])
        if _flag(hdu, row, "isConstant"):
            field = ChebyshevField(self._box_of(row["field"]) or box, np.array([[mean]]))
        else:
            field = self._field(row["field"])
        return StoredPhotoCalib(field, mean, err)

    def _box_of(self, number: int) -> Box | None:
        """Return the box of a bounded field, if it has one that is not empty."""
        if not number:
            return None
        _, _, rows = self._find(number)
        return _box(rows[0]) if "bbox_min_x" in (rows.dtype.names or ()) else None

    def _field(self, number: int) -> ChebyshevField:
        name, _, rows = self._find(number)
        if name == "ProductBoundedField":
            return reduce(ChebyshevField.__mul__, (self._field(n) for n in rows["id"]))
        if name != "ChebyshevBoundedField":
            raise ValueError(
                f"{self.path}: the photoCalib is a {name}; only ChebyshevBoundedField, products "
                "of them and constants can be read without LSST's code"
            )
        (row,) = rows
        box = _box(row)
        if box is None:
            raise ValueError(f"{self.path}: the box of the photoCalib's field is empty")
        coefficients = np.atleast_1d(row["coefficients"])
        return ChebyshevField(box, coefficients.reshape(-1, int(row["order_x"]) + 1))


def _box(row: np.void) -> Box | None:
    """Return the box with these corner pixels; None if it is empty."""
    x0, y0, x1, y1 = (int(row[f"bbox_{edge}"]) for edge in ("min_x", "min_y", "max_x", "max_y"))
    return Box.from_edges(x0, y0, x1 + 1, y1 + 1) if x1 >= x0 and y1 >= y0 else None


def _flag(hdu: Hdu, row: np.void, name: str) -> bool:
    """Return one of the bits of the column that afw packs flags in."""
    header = hdu.header()
    bits = np.unpackbits(np.atleast_1d(row["flags"]).view(np.uint8))
    numbers = [n for n in range(1, bits.size + 1) if header.get(f"TFLAG{n}") == name]
    if not numbers:
        raise ValueError(f"{hdu.where} has no flag {name}")
    return bool(bits[numbers[0] - 1])
