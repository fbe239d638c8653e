"""build_products(): photoCalibs and transmission curves visit by visit, offsets and stars.

Every visit's product is a Delayed of its own, made when it is asked for. What visits share enters
a graph once::

    run --> camera's pixel areas --> photoCalibs of visit 1, 2, ...
     |               offsets --------^
     +----> atmosphere table ------> transmission curve of visit 1, 2, ...
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from dask.base import tokenize
from dask.delayed import Delayed

from ..atmosphere.file import find_atmosphere
from ..atmosphere.table import AtmosphereTable
from ..atmosphere.transmission import TransmissionCurve
from ..config.config import ProductsConfig
from ..config.needs import needs_of
from ..photocalib.photocalib import VisitPhotoCalib
from ..photocalib.zeropoints import calibrate_visit
from ..reference.catalog import ReferenceCatalog
from ..reference.measure import reference_offsets
from ..run.problems import RunWarning
from ..run.run import FgcmRun
from ..sky.skymap import sky_map_of
from ..stars.tracts import TractStars, tract_stars
from ..tables.catalog import Catalog
from ..tables.parts import PartsTable
from ..tables.reader import InputFile
from ..texts import listed, plural
from .per_visit import PerVisit, node, task
from .store import Store
from .write import WriteReport, chosen_visits, write_offsets, write_stars, write_visits

__all__ = ["FgcmProducts", "build_products", "check_jacobian"]

_WITHOUT = "set atmosphere_table to its path, or do without: atmosphere_output=False"


def build_products(
    run: FgcmRun, config: ProductsConfig | None = None, *, reference: Any = None
) -> FgcmProducts:
    """Return the products of a run, all of them lazy.

    Parameters
    ----------
    run : FgcmRun
    config : ProductsConfig, optional
        What is made, and how.
    reference : ReferenceCatalog, path, astropy Table or mapping, optional
        The reference catalog; default the run's.

    Returns
    -------
    FgcmProducts

    Raises
    ------
    TypeError
        If these are not a run and a configuration.
    FileNotFoundError
        If there is no atmosphere table of the name that the look-up table or the configuration
        gives; it is looked for once, now.
    ValueError
        If the run lacks what the configuration asks for, the stars were built without the WCS
        Jacobian that is to be composed, or a physical filter has no band that is needed.

    Examples
    --------
    >>> run = FgcmRun.open("fgcm_run")  # doctest: +SKIP
    >>> products = build_products(run, ProductsConfig(tract_stars=False))  # doctest: +SKIP
    >>> products.photo_calibs[60600001].compute()[3].mean  # doctest: +SKIP
    104.2
    """
    if not isinstance(run, FgcmRun):
        raise TypeError(f"products are built of an FgcmRun, got {type(run).__name__}")
    config = ProductsConfig() if config is None else config
    if not isinstance(config, ProductsConfig):
        raise TypeError(f"config must be a ProductsConfig, got {type(config).__name__}")
    if reference is None:
        reference = run.reference_catalog
    _check(run, config, reference)
    if not config.reference_calibration:
        reference = None
    elif not isinstance(reference, ReferenceCatalog):
        reference = ReferenceCatalog.open(
            reference,
            flux=config.reference_flux,
            error=config.reference_flux_error,
            unit=config.reference_unit,
        )
    return FgcmProducts(run, config, reference)


class FgcmProducts:
    """The products of an FGCM run; see `build_products`, which makes it.

    Attributes
    ----------
    run : FgcmRun
    config : ProductsConfig
    offsets : Delayed
        Of a mapping from band to mag: what is added to magnitudes for the reference catalog's
        level; zeros without reference calibration.
    photo_calibs : mapping of int to Delayed
        `VisitPhotoCalib` by visit; empty if not asked for.
    atmospheres : mapping of int to Delayed
        `TransmissionCurve` by visit; empty if not asked for.
    tract_stars : mapping of int to Delayed
        Table of standard stars by tract, a `TractStars`; empty if not asked for.
    """

    def __init__(
        self,
        run: FgcmRun,
        config: ProductsConfig,
        reference: ReferenceCatalog | None = None,
        offsets: Mapping[str, float] | None = None,
        atmosphere: InputFile | None = None,
    ) -> None:
        self.run = run
        self.config = config
        self.reference = reference
        if atmosphere is None and config.atmosphere_output:
            atmosphere = _atmosphere_file(run, config)
        self._atmosphere_file = atmosphere
        token = tokenize(run, config.to_dict(), reference, offsets, self._atmosphere_file)
        shared = node(f"run-{token}", run)
        if offsets is not None:
            self.offsets = node(f"offsets-{token}", dict(offsets))
        elif reference is not None:
            self.offsets = reference_offsets(run, config, reference)
        else:
            self.offsets = task(f"offsets-{token}", zero_offsets, shared)
        ids = {"photo_calibs": config.zeropoint_output, "atmospheres": config.atmosphere_output}
        visits = {
            name: run.visit_ids if asked else run.visit_ids[:0] for name, asked in ids.items()
        }
        setup = task(f"photo-calib-setup-{token}", Setup.of, shared, config)
        table = task(f"atmosphere-table-{token}", open_atmosphere, self._atmosphere_file)
        self.photo_calibs = PerVisit(
            f"photo-calib-{token}", visits["photo_calibs"], make_photo_calib, setup, self.offsets
        )
        self.atmospheres = PerVisit(
            f"atmosphere-{token}", visits["atmospheres"], make_atmosphere, shared, table
        )
        shifts = self.offsets if config.reference_calibration else None
        self.tract_stars: Mapping[int, Delayed] = (
            tract_stars(run, sky_map_of(config), shifts) if config.tract_stars else {}
        )

    def with_offsets(self, offsets: Mapping[str, float]) -> FgcmProducts:
        """Return the products with offsets that are known already, mag by band."""
        return FgcmProducts(self.run, self.config, self.reference, offsets, self._atmosphere_file)

    def inputs(self) -> dict[str, str]:
        """Return checksums of all that the products are made of; the files are read for it now.

        Raises
        ------
        OSError
            If a file was changed since it was opened.
        """
        # That of the files of a survey would take hours; if it is used, its own checksum follows.
        large = isinstance(getattr(self.run.reference_catalog, "reader", None), PartsTable)
        checksums = self.run.fingerprints(without=["reference_catalog"] if large else [])
        if self.run.camera is not None:
            checksums.setdefault("camera", f"tokenize:{tokenize(self.run.camera)}")
        if self.reference is not None:
            checksums["reference_catalog"] = self.reference.fingerprint()
        if self._atmosphere_file is not None:
            open_atmosphere(self._atmosphere_file)  # one that is damaged is no input
            checksums["atmosphere_table"] = self._atmosphere_file.fingerprint()
        return checksums

    def write(
        self,
        directory: str | os.PathLike[str],
        *,
        visits: Iterable[int] | None = None,
        overwrite: bool = False,
        progress: Callable[[int], Any] | None = None,
    ) -> WriteReport:
        """Compute the products and write them to a directory; see `calibration.products.store`.

        On the scheduler that dask is set to, some hundred visits at a time. What is there and
        complete is kept, so that a run that was broken off can be taken up again. A visit without
        a product is skipped and the others are not; the report says why.

        Parameters
        ----------
        directory : path
            New, empty, or one of products of this run and configuration.
        visits : iterable of int, optional
            Default all; stars by tract are written with all of them only.
        overwrite : bool, optional
            Whether products of another run or configuration, which lie there, may be replaced.
        progress : function of an int, optional
            Called now and then with the number of visits that were done since.

        Raises
        ------
        FileExistsError
            If the directory holds something else.
        KeyError
            If there is no such visit.
        OSError
            If an input is missing or was changed since it was opened, before anything is written;
            or if a product cannot be written: those that are complete stay.
        """
        chosen = chosen_visits(self.run.visit_ids.tolist(), visits)
        store = Store.open(
            directory, self.config, self.inputs(), run=self.run.directory, overwrite=overwrite
        )
        report = WriteReport(directory)
        products = self
        if self.config.reference_calibration:
            products = self.with_offsets(write_offsets(self.offsets, store, report))
        by_visit = {"photo_calibs": products.photo_calibs, "atmospheres": products.atmospheres}
        write_visits(by_visit, chosen, store, report, progress)
        if isinstance(products.tract_stars, TractStars) and visits is None:
            write_stars(products.tract_stars, store, report)
        examples = dict(report.examples)
        if "offsets" in examples:
            examples["offset_pixels"] = None
        for product, number in examples.items():
            store.describe(product, number)
        return report

    def __repr__(self) -> str:
        return (
            f"<FgcmProducts of {len(self.run.visit_ids)} visits: {len(self.photo_calibs)} "
            f"photo_calibs, {len(self.atmospheres)} atmospheres>"
        )


def _check(run: FgcmRun, config: ProductsConfig, reference: Any) -> None:
    """Refuse what the run cannot give."""
    missing: dict[str, list[str]] = {}
    for field, name, columns in needs_of(config):
        part = getattr(run, name)
        if part is None and not (name == "reference_catalog" and reference is not None):
            missing.setdefault(field, []).append(name)
        elif isinstance(part, Catalog) and (absent := part.lacks(columns)):
            what = f"{listed(absent, noun='column')} of {name} ({part.where})"
            missing.setdefault(field, []).append(what)
    if missing:
        texts = (f"{field} needs {' and '.join(names)}" for field, names in missing.items())
        raise ValueError(f"{run!r} lacks what is asked for: {'; '.join(texts)}")
    if config.reference_calibration and config.zeropoint_output:
        used = run.visit_rows(run.usable("zeropoints"), ["physicalFilter"])["physicalFilter"]
        if unknown := sorted(set(used.tolist()) - set(config.physical_filter_map)):
            raise ValueError(
                f"reference calibration needs the band of every physical filter; "
                f"physical_filter_map lacks {', '.join(unknown)}"
            )
        check_bands(used, run.bands, config)
    check_jacobian(run, config)


def check_bands(used: np.ndarray, bands: tuple[str, ...], config: ProductsConfig) -> None:
    """Check that standard stars have the bands of the visits' physical filters.

    Visits of others get no photoCalib, of which a warning tells; if there are no more, an error.
    """
    filters, counts = np.unique(used, return_counts=True)
    lost = {str(f): n for f, n in zip(filters, counts.tolist(), strict=True)}
    lost = {name: n for name, n in lost.items() if config.band(name) not in bands}
    if not lost:
        return
    each = listed(f"{name} ({config.band(name)}, {plural(n, 'visit')})" for name, n in lost.items())
    text = (
        f"physical_filter_map names bands that no star has: {each}; the stars have "
        f"{', '.join(bands)}"
    )
    if len(lost) == len(filters):
        raise ValueError(f"{text}, so that no visit can be calibrated")
    warnings.warn(f"{text}. These visits get no photoCalib", RunWarning, stacklevel=4)


def check_jacobian(run: FgcmRun, config: ProductsConfig) -> None:
    """Check that the WCS Jacobian is composed if, and only if, the stars were built with it.

    Nothing is known, and nothing checked, where ``run.jacobian_applied`` is None.
    """
    stars = "the run" if run.tract is None else f"tract {run.tract}"
    if config.compose_wcs_jacobian and run.jacobian_applied is False:
        raise ValueError(
            f"the stars of {stars} were built without the WCS Jacobian, so photoCalibs can't "
            "include it; set compose_wcs_jacobian=False, or build the stars with it"
        )
    if run.jacobian_applied and not config.compose_wcs_jacobian:
        warnings.warn(
            f"the stars of {stars} were built with the WCS Jacobian, but photoCalibs will not "
            "include it (compose_wcs_jacobian=False)",
            RunWarning,
            stacklevel=2,
        )


def _atmosphere_file(run: FgcmRun, config: ProductsConfig) -> InputFile:
    """Find the atmosphere table: the configuration's, or else the one the look-up table names.

    A file that the configuration names is looked for where the user is, a name beside the run.
    """
    name = config.atmosphere_table or run.lookup.get("tablename")
    where = "the look-up table" if run.lookup_table is None else run.lookup_table.where
    if not name:
        raise ValueError(f"{where} names no atmosphere table; set atmosphere_table")
    if config.atmosphere_table and os.path.isfile(name):
        return InputFile.found(name)
    beside = run.lookup_table and run.lookup_table.path
    try:
        return InputFile.found(find_atmosphere(name, [os.path.dirname(beside)] if beside else []))
    except FileNotFoundError as error:
        by = "" if config.atmosphere_table else f"; {where} names it"
        raise FileNotFoundError(f"{error}{by}; {_WITHOUT}") from None


# What the tasks do


class Setup(NamedTuple):
    """What the photoCalibs of all visits share."""

    run: FgcmRun
    config: ProductsConfig
    area: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, run: FgcmRun, config: ProductsConfig) -> Setup:
        """Compute the pixel areas of the camera, if they are to be composed."""
        if not config.compose_wcs_jacobian:
            return cls(run, config, None)
        assert run.camera is not None  # zeropoint_output needs it
        boxes = np.array([detector.box for detector in run.camera.values()])
        return cls(run, config, (run.camera.ids, boxes, run.camera.area_coefficients()))


def make_photo_calib(
    setup: Setup, offsets: Mapping[str, float], visit: int
) -> tuple[VisitPhotoCalib, str]:
    """Make the calibrations of a visit's detectors."""
    run, config = setup.run, setup.config
    row, zeropoints = run.visit_row(visit), run.zeropoint_rows(visit)
    assert run.detector_ids is not None  # as there is a camera
    offset = 0.0
    if config.reference_calibration:
        band = config.band(row["physicalFilter"])
        if band not in offsets:
            raise ValueError(
                f"visit {visit}: no star has the band {band!r} of its physical filter "
                f"{row['physicalFilter']!r}; there are offsets of {', '.join(offsets)}"
            )
        offset = offsets[band]
    return calibrate_visit(
        visit,
        zeropoints,
        (run.detector_ids, row["scaling"]),
        offset=offset,
        area=setup.area,
        apply_mean_chromatic_correction=config.apply_mean_chromatic_correction,
    )


def open_atmosphere(file: InputFile) -> AtmosphereTable:
    """Read the atmosphere table."""
    try:
        return AtmosphereTable.open(file.check())
    except (OSError, ValueError) as error:
        error.add_note(_WITHOUT)
        raise


def make_atmosphere(
    run: FgcmRun, table: AtmosphereTable, visit: int
) -> tuple[TransmissionCurve, str]:
    """Make the transmission curve of a visit."""
    parameters = run.atmosphere_rows(visit)
    return table.curve({name: values[0] for name, values in parameters.items()}), ""


def zero_offsets(run: FgcmRun) -> dict[str, float]:
    """Return the offsets of a run that is not tied to a reference catalog."""
    return dict.fromkeys(run.bands, 0.0)
