"""FgcmRun: the catalogs of one FGCM fit, checked against each other, and read visit by visit."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from dask.base import normalize_token

from ..config.config import ProductsConfig
from ..config.needs import columns_needed
from ..photocalib.zeropoints import NoZeropointError
from ..tables.catalog import Catalog
from ..tables.reader import InputFile
from .checks import check_keys, check_layout
from .find import CATALOGS, find_catalogs, missing_files
from .opened import OpenedRun, names_in
from .problems import Problems
from .scan import scan_run
from .zeropoint_fields import Fields

__all__ = ["FgcmRun"]

_NEEDED = tuple(name for name in CATALOGS if name != "reference_catalog")
_Visits = Sequence[int] | np.ndarray


class FgcmRun:
    """The catalogs of one FGCM fit.

    Opening reads headers and the columns that say which row is of which visit and detector, and
    checks them: all that makes the run meaningless is one error; what concerns some visits is a
    warning each, and an error of those visits when their rows are asked for. Everything else is
    read when it is needed. A run is small and picklable (tables in memory travel with it), and safe
    to share between threads.

    Parameters
    ----------
    visits, zeropoints, atmosphere_parameters, standard_stars, lookup_table, reference_catalog
        Each a path (FITS or Parquet, also a directory or a list of parts), an astropy Table, a
        mapping of arrays or a structured array, by LSST's column names or the stand-alone
        package's; None for what there is not.
    camera : Camera or path, optional
    tract : int, optional
        For the fit of a single tract. Default what the zeropoints' header says (card ``TRACT``).
    jacobian_applied : bool, optional
        Whether the stars were built with the WCS Jacobian, that is, with relative pixel areas
        taken out of their fluxes. Default what a header says (logical card ``WCSJACOB`` of
        the zeropoints, standard stars or visits); None if nobody says. See
        `calibration.products.build.check_jacobian`.
    needed : ProductsConfig, optional
        What will be made of the run. Errors are then of what that needs, see
        `calibration.config.needs`; what is wrong with the rest is a warning. Default all.

    Attributes
    ----------
    visits, zeropoints, atmosphere_parameters, standard_stars, lookup_table, reference_catalog
        Each a `Catalog`, or None.
    camera : Camera or None
    visit_ids : (n,) int64 array
        In ascending order; of the visit catalog.
    detector_ids : (m,) int array or None
        The detectors that ``scaling`` is of, in its order; None without a camera.
    bands : tuple of str
        The bands of the standard stars, in the order of their columns.
    physical_filters : tuple of str
        Of the look-up table.
    tract : int or None
    jacobian_applied : bool or None
    warnings : tuple of str

    Raises
    ------
    FileNotFoundError, OSError
        If a file is missing, or can't be read.
    ValueError
        If a catalog's columns are missing or wrong, or no visit is left. Either way the message
        has a line for all that is wrong.

    Warns
    -----
    RunWarning
        If a part of the run can't be used.

    Examples
    --------
    >>> visits = {"visit": [8, 5], "physicalFilter": ["SIM-R", "SIM-G"], "scaling": np.ones((2, 3))}
    >>> atmosphere = {"visit": [5, 8], "pmb": [750.0, 751.0], "secZenith": [1.0, 1.1]}
    >>> atmosphere |= dict.fromkeys("pwv tau alpha o3 cTrans lamStd".split(), [1.0, 1.0])
    >>> run = FgcmRun(visits=visits, atmosphere_parameters=atmosphere)
    >>> run
    <FgcmRun of 2 visits: visits, atmosphere_parameters>
    >>> run.visit_row(8)["physicalFilter"], run.atmosphere_rows([8, 5])["pmb"]
    ('SIM-R', array([751., 750.]))
    """

    def __init__(
        self,
        *,
        visits: Any,
        zeropoints: Any = None,
        atmosphere_parameters: Any = None,
        standard_stars: Any = None,
        lookup_table: Any = None,
        camera: Any = None,
        reference_catalog: Any = None,
        tract: int | None = None,
        jacobian_applied: bool | None = None,
        needed: ProductsConfig | None = None,
    ) -> None:
        if visits is None:
            raise ValueError("a run needs a visit catalog: visits=...")
        problems = Problems(needed=None if needed is None else columns_needed(needed))
        is_file = isinstance(camera, str | os.PathLike) and os.path.isfile(camera)
        camera_file = InputFile.found(camera) if is_file else None  # before it is read
        opened = OpenedRun.of(
            problems,
            visits=visits,
            zeropoints=zeropoints,
            atmosphere_parameters=atmosphere_parameters,
            standard_stars=standard_stars,
            lookup_table=lookup_table,
            camera=camera,
            reference_catalog=reference_catalog,
            tract=tract,
            jacobian_applied=jacobian_applied,
        )
        self.detector_ids = check_layout(opened, problems)
        self._index, self.physical_filters = check_keys(opened, self.detector_ids, problems)
        problems.raise_errors(opened.where)
        by_visit = ("zeropoints", "atmosphere_parameters")
        opened = opened.without(name for name in by_visit if name not in self._index)
        self._opened = opened
        self.visits = cast("Catalog", opened.visits)  # or else there was an error
        self.zeropoints = opened.zeropoints
        self.atmosphere_parameters = opened.atmosphere_parameters
        self.standard_stars = opened.standard_stars
        self.lookup_table = opened.lookup_table
        self.reference_catalog = opened.reference_catalog
        self.camera = opened.camera
        self.bands = opened.bands
        self._camera_file = camera_file
        self._problems = problems.visits
        self.visit_ids = self._index["visits"].visits
        self.tract = opened.tract
        self.jacobian_applied = opened.jacobian_applied
        self.warnings = tuple(problems.warnings)
        problems.warn(stacklevel=3)

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        *,
        cycle: int | None = None,
        needed: ProductsConfig | None = None,
        **parts: Any,
    ) -> FgcmRun:
        """Open the run whose files lie in a directory.

        They are found by LSST's names (``fgcmVisitCatalog.fits``, ``fgcmZeropoints.fits``,
        ``fgcmAtmosphereParameters.fits``, ``fgcmStandardStars.fits``, ``fgcmLookUpTable.fits``;
        also with the fit cycle and what the butler adds), or those of a stand-alone fit
        (``BASE_cycleNN_zpt.fits``, ``_atm.fits``, ``_stdstars.fits``, and the exposures and look-up
        table that its configuration names); FITS, gzipped or not, or Parquet, also directories of
        parts. Files of a cycle beside others that do not say theirs are refused. The geometry is
        ``camera.ecsv``, a reference catalog, if there is one, ``refcat.fits``.

        Parameters
        ----------
        directory : path
        cycle : int, optional
            The fit cycle, where names have one; default the last there is. With it, files that do
            not say theirs are left where others do.
        needed : ProductsConfig, optional
            What will be made of the run: what that does not need may be missing. Default all.
        **parts
            Parameters of the constructor, instead of what is there; None for doing without.

        Raises
        ------
        FileNotFoundError
            If the directory or a catalog is missing; the message names all.
        OSError, ValueError
            As the constructor; or if several files could be the same catalog.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise FileNotFoundError(f"there is no directory {directory}")
        found = find_catalogs(directory, [n for n in CATALOGS if n not in parts], cycle)
        wanted = _NEEDED if needed is None else columns_needed(needed)
        absent = [n for n in wanted if n in _NEEDED and n not in found and n not in parts]
        return cls(
            **{"visits": None, **missing_files(directory, absent), **found, **parts}, needed=needed
        )

    # What was found

    @property
    def directory(self) -> str | None:
        """The folder of the visit catalog; None if that is in memory."""
        return None if self.visits.path is None else os.path.dirname(self.visits.path)

    @property
    def catalogs(self) -> dict[str, Catalog]:
        """The catalogs that there are, by name."""
        return self._opened.catalogs

    def __repr__(self) -> str:
        parts = [*self.catalogs, *(["camera"] if self.camera is not None else [])]
        tract = "" if self.tract is None else f" of tract {self.tract}"
        return f"<FgcmRun of {len(self.visit_ids)} visits{tract}: {', '.join(parts)}>"

    def __dask_tokenize__(self) -> tuple[object, ...]:
        catalogs = {n: catalog.__dask_tokenize__() for n, catalog in self.catalogs.items()}
        return "FgcmRun", catalogs, normalize_token(self.camera), self.tract, self.jacobian_applied

    def problems(self, visit: int) -> dict[str, str]:
        """Return what is wrong with a visit, by catalog; empty if it can be used."""
        found = {name: texts[visit] for name, texts in self._problems.items() if visit in texts}
        for name in self._index:
            if visit not in self._index[name]:
                found.setdefault(name, "there are no rows")
        return found

    def usable(self, catalog: str = "zeropoints") -> np.ndarray:
        """Return the visits whose rows of a catalog can be read, in ascending order."""
        visits = np.intersect1d(self.visit_ids, self._index[catalog].visits)
        bad = {v for name in ("visits", catalog) for v in self._problems.get(name, ())}
        return visits[~np.isin(visits, list(bad))] if bad else visits

    def check(self) -> tuple[str, ...]:
        """Read all catalogs, a few megabytes at a time, and return all that is wrong with values.

        A line each: numbers that are NaN where they are used, filters, and boxes of detectors that
        contradict other catalogs, coordinates that can't be in their unit, repeated stars.
        """
        return tuple(scan_run(self._opened))

    def fingerprints(self, without: Collection[str] = ()) -> dict[str, str]:
        """Return a checksum of every catalog, ``sha256:...`` of its file, which is read for it now.

        But for some. The camera is among them if it was given as a file.

        Raises
        ------
        OSError
            If a file was changed since it was opened.
        """
        kept = {n: catalog for n, catalog in self.catalogs.items() if n not in without}
        checksums = {name: catalog.fingerprint() for name, catalog in kept.items()}
        if self._camera_file is not None:
            checksums["camera"] = self._camera_file.fingerprint()
        return checksums

    # Rows

    def visit_row(self, visit: int) -> dict[str, Any]:
        """Return what the visit catalog says of a visit.

        Returns
        -------
        dict
            Numbers and texts, and the array ``scaling``.

        Raises
        ------
        KeyError
            If it has no such visit.
        ValueError
            If it has the visit twice.
        """
        rows = {name: values[0] for name, values in self.visit_rows([visit]).items()}
        return {name: v if np.ndim(v) else v.item() for name, v in rows.items()}

    def visit_rows(
        self, visits: _Visits | None = None, columns: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return what the visit catalog says of visits, in their order; default all that it can.

        ``scaling`` is 1 where the catalog of a stand-alone fit has none.
        """
        visits = self.usable("visits") if visits is None else visits
        rows = self._rows("visits", visits, columns)
        wanted = columns is None or "scaling" in columns
        if wanted and "scaling" not in rows and self.detector_ids is not None:
            rows["scaling"] = np.ones((len(visits), len(self.detector_ids)))
        return rows

    def zeropoint_rows(
        self, visits: int | _Visits, columns: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the zeropoints of a visit, or of several one after the other: a row per detector.

        Parameters
        ----------
        visits : int or sequence of int
        columns : iterable of str, optional
            Default all.

        Returns
        -------
        dict of str to (n, ...) array
            By canonical name; in the file's order within a visit. Where a stand-alone fit has no
            fields, those of its zeropoints, which are constant, over the camera's boxes;
            ``fgcmfZptChebXyMax`` is the last pixel, also where the fit has the size.

        Raises
        ------
        KeyError
            If a visit is not in the visit catalog.
        NoZeropointError
            If a visit has no row.
        ValueError
            If a detector has two rows, is not known, or the physical filter is not known.
        """
        catalog, visits = self._catalog("zeropoints"), np.atleast_1d(visits)
        if columns is None:
            return self._fields.completed(self._rows("zeropoints", visits, None))
        wanted = list(columns)
        needed = self._fields.needs(wanted, catalog.columns)
        rows = self._fields.completed(self._rows("zeropoints", visits, needed))
        return {name: rows[name] for name in wanted}

    def atmosphere_rows(
        self, visits: int | _Visits, columns: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the atmosphere parameters of visits, in their order, (n,) arrays.

        Raises
        ------
        KeyError
            If a visit is not in the visit catalog.
        ValueError
            If a visit has no row, or several.
        """
        return self._rows("atmosphere_parameters", np.atleast_1d(visits), columns)

    @cached_property
    def lookup(self) -> dict[str, Any]:
        """The first row of the look-up table without the table itself; read on first use.

        tablename (absent in a stand-alone fit's), elevation, physicalFilters and stdPhysicalFilters
        (tuples of str), atmLambda (Angstrom), atmStdTrans, ...
        """
        catalog = self._catalog("lookup_table")
        row = {name: values[0] for name, values in catalog.read(rows=slice(0, 1)).items()}
        for name, value in row.items():
            if name.lower().endswith("physicalfilters"):
                row[name] = names_in(value)
            else:
                row[name] = value if np.ndim(value) else value.item()
        return row

    # What that takes

    @cached_property
    def _fields(self) -> Fields:
        return Fields.of(self._catalog("zeropoints"), self.camera)

    def _catalog(self, name: str) -> Catalog:
        catalog = getattr(self, name)
        if catalog is None:
            raise ValueError(f"{self!r} has no {name}; open it with {name}=...")
        return catalog

    def _rows(
        self, name: str, visits: Iterable[int], columns: Iterable[str] | None
    ) -> dict[str, np.ndarray]:
        catalog = self._catalog(name)
        if columns is not None:
            columns = [c for c in columns if c != "scaling" or c in catalog.columns]
        for visit in visits:
            if visit not in self._index["visits"]:
                raise KeyError(f"{self.visits.where} has no visit {visit}")
            for of in dict.fromkeys(("visits", name)):
                if text := self._problems.get(of, {}).get(visit):
                    raise ValueError(f"visit {visit} of {catalog.where} can't be used: {text}")
        try:
            rows = self._index[name].rows(visits)
        except KeyError as error:
            kind = NoZeropointError if name == "zeropoints" else ValueError
            raise kind(f"{catalog.where} has no rows of visit {error.args[0]}") from None
        return catalog.read(columns, rows)
