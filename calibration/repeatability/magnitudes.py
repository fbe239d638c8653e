"""The magnitudes of a run's star observations, before and after calibration, some at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..config.config import ProductsConfig
from ..photocalib.flux import AB_MAGNITUDE, MAG
from ..photocalib.photocalib import VisitPhotoCalib
from ..photocalib.stack import PhotoCalibStack
from ..photocalib.zeropoints import CalibrationWarning
from ..products.build import FgcmProducts
from ..products.store import Store
from ..run.observations import Observed, StarObservations
from ..run.run import FgcmRun
from ..search import find

__all__ = ["Magnitudes", "StarMagnitudes"]

_PHOTOMETRIC = 3  # bits of fgcmFlag
_MADE_OF = ("visits", "zeropoints")


class Magnitudes(NamedTuple):
    """Magnitudes of some observations, (n,) arrays.

    Parameters
    ----------
    group : int array
        ``star * n_bands + band``.
    photometric : bool array
        Whether the fit took the visit and detector for photometric.
    error : float64 array
        Of the fluxes and the calibration together, mag.
    before, after : float64 arrays
        AB mag.
    """

    group: np.ndarray
    photometric: np.ndarray
    error: np.ndarray
    before: np.ndarray
    after: np.ndarray


class StarMagnitudes:
    """The magnitudes of a run's star observations.

    Parameters
    ----------
    run : FgcmRun
    config : ProductsConfig
        That of the photoCalibs.
    stack : PhotoCalibStack
    observations : StarObservations

    Attributes
    ----------
    bands : tuple of str
        A physical filter that ``physical_filter_map`` does not have is a band of its own.
    n_stars, n_observations : int
    """

    def __init__(
        self,
        run: FgcmRun,
        config: ProductsConfig,
        stack: PhotoCalibStack,
        observations: StarObservations,
    ) -> None:
        self._run, self._stack, self._observations = run, stack, observations
        self.n_stars, self.n_observations = observations.n_stars, len(observations)
        if "exptime" not in run.visits.columns:
            raise ValueError(f"{run.visits.where} has no exposure times: no column exptime")
        visits = np.unique(stack.visits)
        rows = run.visit_rows(visits.tolist(), ["physicalFilter", "exptime", "scaling"])
        place = np.searchsorted(visits, stack.visits)
        filters = rows["physicalFilter"][place]
        names = {name: config.physical_filter_map.get(name, name) for name in np.unique(filters)}
        self.bands = _in_order(names.values(), run.bands)
        self._band = np.array([self.bands.index(names[name]) for name in filters.tolist()])
        exptime = np.where(rows["exptime"] > 0, rows["exptime"], np.nan)[place]
        self._before = _typical(stack.mean * exptime, filters) / exptime
        # What was taken out of normalized fluxes is put back: photoCalibs take it out themselves.
        self._factor = exptime
        if "scaling" in rows:
            if (ids := run.detector_ids) is None:
                raise ValueError(f"{run!r} does not say whose scaling it has; it needs a camera")
            detector, _ = find(ids, stack.detectors, np.argsort(ids, kind="stable"))
            self._factor = exptime / rows["scaling"][place, detector]
        self._composed = config.compose_wcs_jacobian and run.jacobian_applied is not False

    @classmethod
    def of_products(cls, products: FgcmProducts, observations: Any = None) -> StarMagnitudes:
        """Compute the photoCalibs of products, and take them and their run."""
        run = products.run
        stack = PhotoCalibStack(_computed(products))
        return cls(run, products.config, stack, _open_observations(observations, run))

    @classmethod
    def of_store(cls, store: Store, run: Any = None, observations: Any = None) -> StarMagnitudes:
        """Take the photoCalibs of a store, and the run they were made of."""
        provenance = store.provenance()
        visits = store.numbers("photo_calibs")
        if not visits:
            raise FileNotFoundError(f"{store.directory} holds no photo_calibs")
        config = ProductsConfig.from_dict(provenance["config"], where=str(store.directory))
        if not isinstance(run, FgcmRun):
            run = _open_run(store, run or provenance.get("run"), config)
        for name in _MADE_OF:
            catalog = getattr(run, name)
            if catalog is None or catalog.fingerprint() != provenance["inputs"].get(name):
                raise ValueError(
                    f"the products in {store.directory} were not made of {run!r} in "
                    f"{run.directory}: the {name} differ"
                )
        tables = (store.read("photo_calibs", visit) for visit in visits)
        stack = PhotoCalibStack(VisitPhotoCalib.from_table(table) for table in tables)
        return cls(run, config, stack, _open_observations(observations, run))

    def blocks(self) -> Iterator[Magnitudes]:
        """Yield the magnitudes of all observations that have a flux and a calibration.

        And a pixel area, where that is to be taken out of the fluxes.
        """
        for block in self._observations.blocks():
            rows, found = self._stack.rows(block.visit, block.detector)
            found &= np.isfinite(block.flux)
            yield self._magnitudes(_chosen(block, found), rows[found])

    def _magnitudes(self, block: Observed, rows: np.ndarray) -> Magnitudes:
        flux = block.flux
        if self._observations.normalized:
            flux = flux * self._factor[rows]
            if self._composed and block.jacobian is not None:
                flux = flux / np.where(block.jacobian > 0, block.jacobian, np.nan)
        calibration = self._stack.calibration(rows, block.x, block.y)
        # A field may end badly; a scaling, a jacobian or an exposure time be no number.
        positive = (flux, calibration, self._before[rows])
        good = np.all([(0 < values) & (values < np.inf) for values in positive], axis=0)
        flux, rows = flux[good], rows[good]
        return Magnitudes(
            block.star[good] * len(self.bands) + self._band[rows],
            self._photometric[rows],
            np.hypot(block.error[good], MAG * self._stack.relative_err[rows]),
            AB_MAGNITUDE - 2.5 * np.log10(flux * self._before[rows]),
            AB_MAGNITUDE - 2.5 * np.log10(flux * calibration[good]),
        )

    @cached_property
    def _photometric(self) -> np.ndarray:
        """Whether each row of the stack is photometric."""
        photometric = np.zeros(len(self._stack), bool)
        for block in self._run.catalogs["zeropoints"].blocks(["visit", "detector", "fgcmFlag"]):
            rows, found = self._stack.rows(block["visit"], block["detector"])
            photometric[rows[found]] = (block["fgcmFlag"][found] & _PHOTOMETRIC) > 0
        return photometric


def _chosen(block: Observed, rows: np.ndarray) -> Observed:
    return Observed._make(None if values is None else values[rows] for values in block)


def _in_order(bands: Any, order: tuple[str, ...]) -> tuple[str, ...]:
    """Return bands once each, those of an order first."""
    bands = set(bands)
    return (*(band for band in order if band in bands), *sorted(bands - set(order)))


def _typical(values: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Return for each value the median of those of its kind, NaN where all are."""
    good = np.isfinite(values)
    medians = {kind: np.median(values[good & (kinds == kind)]) for kind in np.unique(kinds[good])}
    return np.array([medians.get(kind, np.nan) for kind in kinds])


def _computed(products: FgcmProducts) -> Iterator[VisitPhotoCalib]:
    """Yield the photoCalibs of all visits that have some."""
    lazy = products.photo_calibs.persisted()
    for visit in lazy:
        with suppress(ValueError), warnings.catch_warnings():  # others are not to suffer from one
            warnings.simplefilter("ignore", CalibrationWarning)
            yield lazy[visit].compute()


def _open_run(store: Store, path: Any, config: ProductsConfig) -> FgcmRun:
    if path is None or not os.path.isdir(path):
        where = f"is not in {path}" if path else "was not in files"
        raise FileNotFoundError(
            f"the run that the products in {store.directory} were made of {where}; say where it "
            "is: run=... (--run)"
        )
    needed = config.replace(
        atmosphere_output=False,
        reference_calibration=False,
        tract_stars=False,
        zeropoint_output=True,
    )
    return FgcmRun.open(path, cycle=config.cycle_number, needed=needed)


def _open_observations(observations: Any, run: FgcmRun) -> StarObservations:
    if isinstance(observations, StarObservations):
        return observations
    place = run.directory if observations is None else observations
    if place is None:
        raise ValueError(f"{run!r} is in memory; say where its star observations are")
    return StarObservations.open(place)
