"""The full scan of an FGCM run: all values that are used, a few megabytes at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np

from ..camera.camera import Camera
from ..photocalib.zeropoints import has_zeropoint
from ..search import find
from ..tables.catalog import MISSING, Catalog
from ..texts import listed
from .opened import OpenedRun
from .zeropoint_fields import Fields

__all__ = ["scan_run"]

_STAR_COLUMNS = ("coord_ra", "coord_dec")
_MAGNITUDES = ("mag_std_noabs", "magErr_std")


def scan_run(run: OpenedRun) -> Iterator[str]:
    """Yield all that is wrong with the values of a run, a line each; see `FgcmRun.check`."""
    if run.visits is not None:
        yield from _scan_visits(run.visits)
        if _is_whole(run.zeropoints) and _is_whole(run.visits):
            yield from _scan_zeropoints(run.visits, run.zeropoints, run.camera)
    if run.atmosphere_parameters is not None:
        yield from _scan_atmosphere(run.atmosphere_parameters)
    if _is_whole(run.standard_stars):
        yield from _scan_stars(run.standard_stars)
    if _is_whole(run.lookup_table):
        yield from _scan_lookup(run.lookup_table)


def _is_whole(catalog: Catalog | None) -> TypeGuard[Catalog]:
    """Whether a catalog has all columns that its schema requires; of others there was a warning."""
    if catalog is None:
        return False
    return not catalog.lacks(column.name for column in catalog.schema.columns if column.required)


class _Faults:
    """Faults, and the visits that have them."""

    def __init__(self) -> None:
        self._visits: dict[str, set[int]] = defaultdict(set)

    def add(self, text: str, visits: np.ndarray) -> None:
        visits = visits[visits != MISSING]  # of whose rows is said that they are not used
        if len(visits):
            self._visits[text].update(np.unique(visits).tolist())

    def lines(self, catalog: Catalog) -> Iterator[str]:
        for text, visits in self._visits.items():
            yield f"{catalog.where}: {text} for visits {listed(sorted(visits))}"


def _finite(values: np.ndarray) -> np.ndarray:
    return np.isfinite(values).reshape(len(values), -1).all(axis=1)


def _scan_visits(catalog: Catalog) -> Iterator[str]:
    faults = _Faults()
    columns = [n for n in ("visit", "physicalFilter", "scaling") if n in catalog.columns]
    for block in catalog.blocks(columns):
        if "physicalFilter" in block:
            faults.add("physicalFilter is empty", block["visit"][block["physicalFilter"] == ""])
        if "scaling" in block:
            with np.errstate(invalid="ignore"):
                bad = ~(_finite(block["scaling"]) & (block["scaling"] > 0).all(axis=1))
            faults.add("scaling is not above zero", block["visit"][bad])
    yield from faults.lines(catalog)


def _scan_zeropoints(
    of_visits: Catalog, zeropoints: Catalog, camera: Camera | None
) -> Iterator[str]:
    faults, boxes = _Faults(), _Boxes(camera)
    rows = of_visits.read(["visit", "physicalFilter"])
    known, first = np.unique(rows["visit"], return_index=True)
    filters = rows["physicalFilter"][first]
    fields = Fields.of(zeropoints, camera)
    for block in map(fields.completed, zeropoints.blocks()):
        visits = block["visit"]
        flag, variance, zpt = (block[name] for name in ("fgcmFlag", "fgcmZptVar", "fgcmZpt"))
        used = has_zeropoint(flag, variance, zpt, block["fgcmfZptCheb"][:, 0])
        for name in ("fgcmZpt", "fgcmZptVar", "fgcmfZptCheb", "fgcmfZptSstarCheb"):
            faults.add(f"{name} is NaN or infinite", visits[used & ~_finite(block[name])])
        if "fgcmDeltaChrom" in block:
            bad = ~(_finite(block["fgcmDeltaChrom"]) & (block["fgcmDeltaChrom"] > -9999))
            faults.add("fgcmDeltaChrom is NaN, infinite or missing", visits[used & bad])
        places, found = find(known, visits)
        other = found & (block["filtername"] != filters[places])
        faults.add("filtername is not that of the visit catalog", visits[other])
        boxes.add(block, used)
    yield from faults.lines(zeropoints)
    yield from boxes.lines(zeropoints)


class _Boxes:
    """Detectors whose zeropoints are over another box than the camera says."""

    def __init__(self, camera: Camera | None) -> None:
        self._sizes = {} if camera is None else {i: d.box for i, d in camera.items()}
        self._wrong: dict[int, Any] = {}

    def add(self, rows: dict[str, np.ndarray], used: np.ndarray) -> None:
        if not self._sizes:
            return
        last = np.column_stack([rows["detector"], rows["fgcmfZptChebXyMax"]])[used]
        for detector, x, y in np.unique(last, axis=0).tolist():
            box = self._sizes.get(int(detector))
            if box is not None and (x, y) != (box.width - 1, box.height - 1):
                self._wrong.setdefault(int(detector), (x, y, box.width - 1, box.height - 1))

    def lines(self, catalog: Catalog) -> Iterator[str]:
        if self._wrong:
            x, y, width, height = next(iter(self._wrong.values()))
            yield (
                f"{catalog.where}: fgcmfZptChebXyMax is not the last pixel of detectors "
                f"{listed(sorted(self._wrong))}: ({x:g}, {y:g}) and not ({width}, {height})"
            )


def _scan_atmosphere(catalog: Catalog) -> Iterator[str]:
    faults = _Faults()
    for block in catalog.blocks():
        for name, values in block.items():
            if name != "visit":
                faults.add(f"{name} is NaN or infinite", block["visit"][~np.isfinite(values)])
    yield from faults.lines(catalog)


def _scan_stars(catalog: Catalog) -> Iterator[str]:
    counts: dict[str, int] = defaultdict(int)
    parts = []
    for block in catalog.blocks():
        parts.append(block["id"][block["id"] != MISSING])
        counts["id that is missing"] += len(block["id"]) - len(parts[-1])
        for name in _STAR_COLUMNS:
            low, high = catalog.schema.by_name[name].limits or (-np.inf, np.inf)
            counts[f"{name} that is NaN or infinite"] += int(np.sum(~_finite(block[name])))
            with np.errstate(invalid="ignore"):
                beyond = (block[name] < low) | (block[name] > high)
            counts[f"{name} that can't be in rad"] += int(np.sum(beyond))
        for name in _MAGNITUDES:
            bad = ~np.isfinite(block[name]) & (block["ngood"] > 0)
            counts[f"{name} that is NaN or infinite"] += int(np.sum(bad.any(axis=1)))
    ids = np.concatenate(parts) if parts else np.empty(0, int)
    counts["id that another has, too"] = len(ids) - len(np.unique(ids))
    for text, count in counts.items():
        if count:
            yield f"{catalog.where}: {count} stars have a {text}"


def _scan_lookup(catalog: Catalog) -> Iterator[str]:
    row = catalog.read(["atmLambda", "atmStdTrans"], slice(0, 1))
    wavelengths, transmission = row["atmLambda"][0], row["atmStdTrans"][0]
    if not (np.isfinite(wavelengths).all() and np.all(np.diff(wavelengths) > 0)):
        yield f"{catalog.where}: atmLambda does not increase"
    if not np.isfinite(transmission).all():
        yield f"{catalog.where}: atmStdTrans is NaN or infinite"
