"""A simulated FGCM run whose truth is known: for tests, examples and benchmarks.

Stars seen by a camera through an atmosphere, some of it cloudy, and the catalogs that a perfect
FGCM fit of them would give, in LSST's names and columns. Nothing is fitted, and the atmosphere is
an approximation (see `calibration.simulate.atmosphere`), not radiative transfer.

All tables are FITS: the catalogs as `FgcmRun` finds them; ``fgcmStandardPassbands.fits``;
``fgcmStarObservations.fits``, what the detectors counted of each star; and the truth in
``truth_stars.fits``, ``truth_zeropoints.fits``, ``truth_atmosphere.fits`` and, for true minus
relative magnitudes, ``truth_offsets.fits``. `calibration.simulate.columns` has their columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from dask.base import tokenize

from mapreduce.io.stream import complete_first

from ..camera.camera import Camera
from ..config.config import ProductsConfig
from ..run.run import FgcmRun
from ..tables.directory import Directory
from ..tables.fields import fields_like
from ..tables.files import check_table
from ..tables.fits_writer import FitsWriter
from ..texts import listed
from . import columns
from .atmosphere import approximate_atmosphere
from .instrument import BANDS, FILTERS, Instrument, simulate_camera
from .observations import Observer, drawn_counts
from .survey import OFFSETS, Arrays, color_slopes, draw_stars, draw_visits, true_zeropoints
from .tables import (
    atmosphere_rows,
    lookup_row,
    passband_rows,
    reference_rows,
    star_rows,
    true_atmosphere_rows,
    true_zeropoint_rows,
    visit_rows,
    zeropoint_rows,
)

__all__ = ["FILES", "simulate_camera", "simulate_run"]

_MANIFEST, _KIND = "simulation.json", "tables of a simulated run"
_LAYOUT = 1  # of the files
_ATMOSPHERE = "skyfold_approximate_atmosphere"
_OBSERVATIONS = "fgcmStarObservations.fits"
_ROWS = 2**14  # zeropoints in memory
_BANDS = {"BANDS": ",".join(BANDS)}
_META = {"WCSJACOB": True}  # pixel areas were taken out of the stars' fluxes
_BY_VISIT = {
    "fgcmVisitCatalog.fits": ("VISITS", columns.VISITS),
    "fgcmZeropoints.fits": ("ZEROPOINTS", columns.ZEROPOINTS),
    "fgcmAtmosphereParameters.fits": ("ATMOSPHERE", columns.ATMOSPHERE),
    "truth_atmosphere.fits": ("TRUTHATM", columns.TRUE_ATMOSPHERE),
    "truth_zeropoints.fits": ("TRUTHZPT", columns.TRUE_ZEROPOINTS),
    _OBSERVATIONS: ("OBSERVATIONS", columns.OBSERVATIONS),
}

FILES = (
    *_BY_VISIT,
    "fgcmLookUpTable.fits",
    "fgcmStandardPassbands.fits",
    "fgcmStandardStars.fits",
    "refcat.fits",
    "truth_stars.fits",
    "truth_offsets.fits",
    f"{_ATMOSPHERE}.fits",
    "camera.ecsv",
    "products.yaml",
)
"""Names of the files of a simulated run."""

_TABLES = tuple(
    name for name in FILES if name.endswith(".fits") and not name.startswith(_ATMOSPHERE)
)


def simulate_run(
    directory: str | os.PathLike[str],
    *,
    n_visits: int = 24,
    n_stars: int = 2000,
    seed: int = 0,
    camera: Camera | None = None,
    observations: bool = True,
    overwrite: bool = False,
) -> FgcmRun:
    """Simulate an FGCM run and write it as the files that `FgcmRun.open` reads.

    The instrumental flux (adu) of a star of F nJy at (x, y) on a detector is drawn about

        F / (superstar(x, y) zeropoint(x, y) AB 10**(-0.4 (offset + deltaChrom))
             scaling area(x, y)),

    with AB the flux of AB magnitude 0 in nJy, so that the photoCalibs of the zeropoints, made with
    the band's ``offset`` of ``truth_offsets.fits``, give back F; without it, they give relative
    magnitudes, which are those of the standard stars, too. The area is that of the camera's pixels
    themselves. Errors are Gaussian, of photons and sky (``instFluxErr``) and a gray scatter, whose
    variance is ``fgcmZptVar``, from one observation to the next.

    Simplifications: zeropoints and atmosphere parameters are the true ones; what the color of a
    star does to its flux is the same for all stars of an exposure, that of the mean star, as
    FGCM computes it; stars do not vary, and there are no aperture effects. Standard and reference
    stars are drawn about the truth, with their own errors.

    Parameters
    ----------
    directory : path
        Made if it does not exist; it appears when all is complete.
    n_visits : int, optional
        In g, r, i and z by turns, on three nights or more, all of one field. The memory needed does
        not grow with them; without observations, 1000 visits of 189 detectors take a few seconds.
    n_stars : int, optional
        In the field, of i magnitude 15 to 20.
    seed : int, optional
        Everything random follows from it: the same arguments give the same bytes.
    camera : Camera, optional
        Default ``simulate_camera()``: 8 detectors of 2048 x 4096 pixels. Its detectors' boxes must
        start at (0, 0), and it must be one of a table, not of WCS.
    observations : bool, optional
        Whether the stars are observed, one by one, and ``fgcmStarObservations.fits`` written.
        Without it, the standard stars' counts of observations are drawn.
    overwrite : bool, optional
        Replace a directory that holds a simulated run, and nothing else.

    Returns
    -------
    FgcmRun
        Opened. ``products.yaml`` in the directory is a configuration for its products.

    Raises
    ------
    FileExistsError
        If the directory holds another run and that is not to be overwritten, or something else. The
        same run is kept, or made again where a file is missing or damaged.
    FileNotFoundError
        If the folder it is to lie in does not exist.
    ValueError
        If a number is not positive, the seed negative, or the camera can't be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     run = simulate_run(
    ...         f"{folder}/run", n_visits=8, n_stars=50, camera=simulate_camera(2, 1)
    ...     )
    ...     run.visit_ids[:2], run.visit_row(60600001)["physicalFilter"], run.bands
    (array([60600001, 60600002]), 'SIM-G', ('g', 'r', 'i', 'z'))
    """
    if n_visits < 1 or n_stars < 1 or seed < 0:
        raise ValueError(
            f"a run needs visits, stars and a seed of 0 or more, got n_visits={n_visits}, "
            f"n_stars={n_stars}, seed={seed}"
        )
    camera = simulate_camera() if camera is None else camera
    numbers = {"layout": _LAYOUT, "seed": seed, "n_visits": n_visits, "n_stars": n_stars}
    made_of = {**numbers, "observations": observations, "camera": tokenize(camera)}
    path = Path(directory).resolve()
    names = [name for name in FILES if observations or name != _OBSERVATIONS]
    found = Directory(path, _MANIFEST, _KIND).check(made_of, overwrite=overwrite)
    if found is None or not _is_complete(path, names):
        if path.is_dir() and (strange := _strangers(path)):
            raise FileExistsError(
                f"{path} holds more than a simulated run: {listed(strange)}; move that, or choose "
                "another directory"
            )
        with complete_first(path, overwrite=True, folder=_replaceable) as folder:
            folder.mkdir()
            _Simulation(camera, n_visits, n_stars, seed).write(folder, observations)
            Directory(folder, _MANIFEST, _KIND).write(made_of)
    return FgcmRun.open(directory)


class _Simulation:
    """What a run is made of; every part has a stream of random numbers of its own."""

    def __init__(self, camera: Camera, n_visits: int, n_stars: int, seed: int) -> None:
        self._seed = seed
        self._instrument = Instrument.draw(camera, approximate_atmosphere(), self._rng(0))
        self._visits = draw_visits(n_visits, self._instrument, self._rng(1))
        self._stars = draw_stars(n_stars, self._instrument, self._rng(2))

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, *stream))

    def write(self, folder: Path, observations: bool) -> None:
        """Write everything."""
        self._instrument.camera.write(folder / "camera.ecsv")
        self._write_instrument(folder)
        if observations:
            observer = Observer(self._instrument, self._stars)
            self._write_visits(folder, observer)
            counts = observer.good, observer.total
        else:
            self._write_visits(folder, None)
            n_stars = len(self._stars["ra"])
            counts = drawn_counts(self._visits, self._instrument, n_stars, self._rng(3))
        self._write_stars(folder, *counts)

    def _write_instrument(self, folder: Path) -> None:
        instrument = self._instrument
        lookup = lookup_row(instrument, _ATMOSPHERE)
        _write(folder / "fgcmLookUpTable.fits", columns.LOOKUP, lookup, name="LUT")
        names, rows = columns.passband_columns([*FILTERS]), passband_rows(instrument)
        _write(folder / "fgcmStandardPassbands.fits", names, rows, name="PASSBANDS")
        instrument.atmosphere.write(folder / f"{_ATMOSPHERE}.fits")
        config = ProductsConfig(physical_filter_map=FILTERS).to_yaml()
        (folder / "products.yaml").write_text(config, encoding="utf-8")

    def _write_stars(self, folder: Path, good: np.ndarray, total: np.ndarray) -> None:
        rows = star_rows(self._stars, good, total, self._rng(4))
        meta = _META | _BANDS
        _write(folder / "fgcmStandardStars.fits", columns.STARS, rows, meta, name="STARS")
        names, rows = columns.reference_columns(BANDS), reference_rows(self._stars, self._rng(5))
        _write(folder / "refcat.fits", names, rows, name="REFCAT")
        path = folder / "truth_stars.fits"
        _write(path, columns.TRUE_STARS, self._stars, _BANDS, name="TRUTHSTAR")
        rows = {"band": np.array(BANDS, "S"), "offset": OFFSETS}
        _write(folder / "truth_offsets.fits", columns.TRUE_OFFSETS, rows, name="TRUTHOFF")

    def _write_visits(self, folder: Path, observer: Observer | None) -> None:
        """Write the tables that grow with the visits, some of them at a time."""
        with ExitStack() as stack:
            writers: dict[str, FitsWriter] = {}

            def write(name: str, rows: Arrays) -> None:
                if name not in writers:
                    extension, texts = _BY_VISIT[name]
                    writer = FitsWriter(folder / name, fields_like(rows, texts), _META, extension)
                    writers[name] = stack.enter_context(writer)
                writers[name].write(rows)

            slopes = color_slopes(self._instrument)
            for first, visits in self._blocks():
                zeropoints = true_zeropoints(self._instrument, visits, slopes)
                for name, rows in self._rows(visits, zeropoints).items():
                    write(name, rows)
                if observer is None:
                    continue
                for i in range(len(visits["visit"])):
                    rows = observer.observe(visits, zeropoints, i, self._rng(6, first + i))
                    write(_OBSERVATIONS, rows)

    def _blocks(self) -> Iterator[tuple[int, Arrays]]:
        """Yield some visits at a time, with the number of the first."""
        step = max(1, _ROWS // len(self._instrument.camera))
        for first in range(0, len(self._visits["visit"]), step):
            rows = slice(first, first + step)
            yield first, {name: values[rows] for name, values in self._visits.items()}

    def _rows(self, visits: Arrays, zeropoints: Arrays) -> dict[str, Arrays]:
        """Return rows of the tables by visit, but for the observations."""
        parts = self._instrument, visits, zeropoints
        photometric = self._visits["filter"][self._visits["photometric"]]
        tilings = np.bincount(photometric, minlength=len(FILTERS))
        return {
            "fgcmVisitCatalog.fits": visit_rows(*parts),
            "fgcmZeropoints.fits": zeropoint_rows(*parts, tilings),
            "fgcmAtmosphereParameters.fits": atmosphere_rows(visits),
            "truth_atmosphere.fits": true_atmosphere_rows(visits),
            "truth_zeropoints.fits": true_zeropoint_rows(*parts),
        }


def _write(
    path: Path,
    texts: Mapping[str, tuple[str, str]],
    rows: Arrays,
    meta: Mapping[str, Any] | None = None,
    *,
    name: str,
) -> None:
    with FitsWriter(path, fields_like(rows, texts), meta, name) as file:
        file.write(rows)


def _replaceable(path: Path) -> bool:
    """Whether a directory holds a simulated run and nothing else, or nothing."""
    return not _strangers(path)


def _strangers(path: Path) -> list[str]:
    return sorted({entry.name for entry in path.iterdir()} - {*FILES, _MANIFEST})


def _is_complete(path: Path, names: Iterable[str]) -> bool:
    """Whether the files are there, and the tables among them undamaged."""
    try:
        for name in names:
            if name in _TABLES:
                check_table(path / name)
            (path / name).stat()
    except (OSError, ValueError):
        return False
    return True
