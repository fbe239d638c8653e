"""What can be wrong with the catalogs of an FGCM run, beyond what their headers say.

What makes the whole run meaningless is an error; what concerns some visits is a warning, and an
error of those visits when their rows are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from ..camera.camera import Camera
from ..photocalib.zeropoints import NO_ZEROPOINT
from ..tables.catalog import MISSING, Catalog
from ..tables.parts import PartsTable
from ..texts import listed, plural
from .opened import OpenedRun, names_in
from .problems import Problems
from .visit_index import VisitIndex
from .zeropoint_fields import PEEK, check_fields

__all__ = ["check_keys", "check_layout"]

_PRODUCTS = {"zeropoints": "photoCalib", "atmosphere_parameters": "transmission curve"}
_FEW = 0.1  # of values
_LARGE = 2**26  # bytes of a compressed file that is slow to read visit by visit


def check_layout(run: OpenedRun, problems: Problems) -> np.ndarray | None:
    """Check arrays' lengths against each other, and a few values against their units.

    Returns
    -------
    (n,) int array or None
        Ids of the detectors that ``scaling`` is of, in its order; None without a camera.
    """
    detectors = None if run.camera is None else run.camera.ids
    if run.visits is not None:
        detectors = check_scaling(run.visits, run.camera, problems)
    with_positions = (run.standard_stars, run.reference_catalog)
    for catalog in (c for c in with_positions if c is not None):
        for text in check_limits(catalog):
            problems.fault(text, catalog.schema.name)
    if run.zeropoints is not None:
        check_fields(run.zeropoints, run.camera, problems)
    by_visit = (run.visits, run.zeropoints, run.atmosphere_parameters)
    for catalog in (c for c in by_visit if c is not None):
        path = catalog.path or ""
        if path.lower().endswith(".gz") and (size := os.path.getsize(path)) > _LARGE:
            problems.warnings.append(
                f"{catalog.where} is compressed as a whole ({size / 2**20:.0f} MiB), so that every "
                "read starts at its beginning; gunzip it once"
            )
    return detectors


def check_keys(
    run: OpenedRun, detector_ids: np.ndarray | None, problems: Problems
) -> tuple[dict[str, VisitIndex], tuple[str, ...]]:
    """Read the columns that say what each row is of, and check them against each other.

    Returns
    -------
    dict of str to VisitIndex
        By name of the catalog.
    tuple of str
        Physical filters of the look-up table.
    """
    index = _indexed(run, detector_ids, problems)
    filters: tuple[str, ...] = ()
    if run.visits is None or "visits" not in index:
        return index, filters
    if not len(index["visits"]):
        problems.errors.append(f"{run.visits.where} has no rows")
        return index, filters
    if run.lookup_table is not None and "physicalFilters" in run.lookup_table.columns:
        filters = check_filters(run.visits, run.lookup_table, problems)
    for name in _PRODUCTS:
        if name in index:
            check_join(run.visits, index["visits"], getattr(run, name), index[name], problems)
    return index, filters


def _indexed(
    run: OpenedRun, detector_ids: np.ndarray | None, problems: Problems
) -> dict[str, VisitIndex]:
    """Return which rows are of which visit, of the catalogs of which that can be read."""
    index = {}
    for catalog in (run.visits, run.atmosphere_parameters, run.zeropoints):
        if catalog is None:
            continue
        second = "detector" if catalog is run.zeropoints else None
        name, strange = catalog.schema.name, Strange(detector_ids)
        if absent := {"visit", second} - {None, *catalog.columns}:
            if not problems.needs(name):  # or else it is an error already
                problems.warnings.append(
                    f"{catalog.where} can't be used, and need not: it has no column "
                    f"{' and '.join(sorted(map(str, absent)))}"
                )
            continue
        try:
            index[name] = VisitIndex.of(catalog, second, strange.look if second else None)
        except (OSError, ValueError) as error:
            problems.fault(str(error), name)
            continue
        what = "several rows of a detector" if second else "several rows"
        check_lost(catalog, index[name], "a visit or detector" if second else "a visit", problems)
        check_repeated(catalog, index[name], what, problems)
        if strange.seen and detector_ids is not None:
            check_detectors(catalog, detector_ids, problems)
    return index


def check_limits(catalog: Catalog) -> Iterator[str]:
    """Yield columns that seem to be in another unit: of the first and last values, many are beyond.

    A few values, and those that no angle could be in degrees either, such as -9999, are stars
    without a position, which are named where stars are used.
    """
    limits = {c.name: c for c in catalog.schema.columns if c.limits and c.name in catalog.columns}
    values = _ends(catalog, limits) if limits else {}
    for name, column in limits.items():
        _, high = column.limits or (-np.inf, np.inf)
        sizes = np.abs(values[name])
        beyond = sizes[(sizes > high) & (sizes <= np.degrees(high))]
        if len(beyond) > _FEW * np.count_nonzero(np.isfinite(sizes)):
            yield (
                f"{catalog.where}: {name} reaches {beyond.max():.6g} {column.unit}, which is "
                f"beyond {high:g}; is it in another unit?"
            )


def _ends(catalog: Catalog, columns: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the first and last values; the first alone of many files, not to open them all."""
    if isinstance(catalog.reader, PartsTable):
        return next(catalog.blocks(columns), {name: np.zeros(0) for name in columns})
    count = len(catalog)
    return catalog.read(columns, np.r_[: min(PEEK, count), max(PEEK, count - PEEK) : count])


def check_scaling(visits: Catalog, camera: Camera | None, problems: Problems) -> np.ndarray | None:
    """Return the ids of the detectors that ``scaling`` is of, in its order.

    Those are all of the camera's, or those of type SCIENCE, as there are values; or, where the
    camera lacks some, all numbers up to its last.
    """
    if camera is None or "scaling" not in visits.columns:
        return None if camera is None else camera.ids
    size = visits.shape("scaling")[0]
    science = np.array([id for id, detector in camera.items() if detector.type == "SCIENCE"], int)
    for ids in (camera.ids, science):
        if len(ids) == size:
            return ids
    if size == camera.ids.max() + 1:
        return np.arange(size)
    problems.fault(
        f"{visits.where}: column scaling has {size} values in each row; the camera has "
        f"{len(camera)} detectors, {len(science)} of them of type SCIENCE",
        "visits",
        visits.schema.by_name["scaling"],
    )
    return camera.ids


class Strange:
    """Sees whether there are other detectors than those that are known, in blocks of rows.

    Parameters
    ----------
    known : (n,) int array or None
        Ids of detectors; None if all will do.
    """

    def __init__(self, known: np.ndarray | None) -> None:
        self.known = known
        self.seen = False

    def look(self, visits: np.ndarray, detectors: np.ndarray) -> None:
        """Look at rows."""
        if self.known is not None and not self.seen:
            self.seen = not (np.isin(detectors, self.known) | (detectors == MISSING)).all()


def check_detectors(catalog: Catalog, known: np.ndarray, problems: Problems) -> None:
    """Say which detectors have zeropoints that can't be used, as neither camera nor scaling know.

    A dead one, which has none in any visit, is no matter.
    """
    columns = [n for n in ("visit", "detector", "fgcmFlag") if n in catalog.columns]
    visits: set[int] = set()
    detectors: set[int] = set()
    for block in catalog.blocks(columns):
        strange = ~np.isin(block["detector"], [MISSING, *known]) & (block["visit"] != MISSING)
        if "fgcmFlag" in block:
            strange &= (block["fgcmFlag"] & NO_ZEROPOINT) == 0
        visits.update(block["visit"][strange].tolist())
        detectors.update(block["detector"][strange].tolist())
    if detectors:
        problems.warnings.append(
            f"{catalog.where}: detectors {listed(sorted(detectors))} are not among the "
            f"{len(known)} of the camera that scaling is of, in visits {listed(sorted(visits))}; "
            "they get no photoCalib"
        )


def check_lost(catalog: Catalog, index: VisitIndex, what: str, problems: Problems) -> None:
    """Say which rows are of nothing that is known."""
    if index.n_lost:
        more = f" and {index.n_lost - len(index.lost)} more" * (index.n_lost > len(index.lost))
        problems.warnings.append(
            f"{catalog.where}: {plural(index.n_lost, 'row')} without {what}, "
            f"{listed(index.lost, noun='row')}{more}; they are not used"
        )


def check_repeated(catalog: Catalog, index: VisitIndex, what: str, problems: Problems) -> None:
    """Say which visits have rows that can't be told apart."""
    if len(index.repeated):
        problems.warnings.append(
            f"{catalog.where}: visits {listed(index.repeated)} have {what}; they can't be used"
        )
        problems.of_visits(catalog.schema.name, dict.fromkeys(index.repeated.tolist(), what))


def check_filters(visits: Catalog, lookup: Catalog, problems: Problems) -> tuple[str, ...]:
    """Say which visits have a physical filter that the look-up table doesn't have; return its."""
    known = names_in(lookup.read(["physicalFilters"], slice(0, 1))["physicalFilters"][0])
    strange: dict[int, str] = {}
    columns = ["visit", "physicalFilter"]
    for block in visits.blocks(columns) if set(columns) <= set(visits.columns) else ():
        bad = ~np.isin(block["physicalFilter"], known) & (block["visit"] != MISSING)
        names = block["physicalFilter"][bad].tolist()
        strange |= dict(zip(block["visit"][bad].tolist(), names, strict=True))
    if strange:
        problems.warnings.append(
            f"{visits.where}: physical filters {listed(sorted(set(strange.values())))} of visits "
            f"{listed(strange)} are not in {lookup.where}; it has {', '.join(known)}"
        )
        texts = {v: f"physical filter {name!r} is not known" for v, name in strange.items()}
        problems.of_visits("zeropoints", texts)
    return known


def check_join(
    visits: Catalog,
    index: VisitIndex,
    other: Catalog,
    other_index: VisitIndex,
    problems: Problems,
) -> None:
    """Say which visits are in one catalog alone, and whether any are left."""
    extra = np.setdiff1d(other_index.visits, index.visits)
    if len(extra):
        problems.warnings.append(
            f"{other.where}: visits {listed(extra)} are not in {visits.where}; they are not used"
        )
    missing = np.setdiff1d(index.visits, other_index.visits)
    if len(missing):
        problems.warnings.append(
            f"{visits.where}: visits {listed(missing)} are not in {other.where}; they get no "
            f"{_PRODUCTS[other.schema.name]}"
        )
    bad = {*problems.visits.get("visits", ()), *problems.visits.get(other.schema.name, ())}
    if len(index) - len(missing) <= sum(visit in index and visit in other_index for visit in bad):
        texts = dict.fromkeys(problems.visits.get(other.schema.name, {}).values())
        why = f": {listed(texts)}" if texts else ", or they have other visits"
        problems.fault(
            f"{other.where}: not one visit of {visits.where} has rows that can be used{why}",
            other.schema.name,
        )
