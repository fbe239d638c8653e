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
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from ..camera.camera import Camera
from ..config.config import ProductsConfig
from ..run.run import FgcmRun
from ..tables.fits_write import FitsRows, write_fits_rows
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

    Simplifications: zeropoints and atmosphere parameters are the true ones; what the colour of a
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
        If the directory holds files, unless they are to be overwritten.
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
    with _complete_folder(Path(directory).resolve(), overwrite) as folder:
        _Simulation(camera, n_visits, n_stars, seed).write(folder, observations)
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
        write_fits_rows(folder / "fgcmLookUpTable.fits", columns.LOOKUP, lookup, name="LUT")
        names, rows = columns.passband_columns([*FILTERS]), passband_rows(instrument)
        write_fits_rows(folder / "fgcmStandardPassbands.fits", names, rows, name="PASSBANDS")
        instrument.atmosphere.write(folder / f"{_ATMOSPHERE}.fits")
        config = ProductsConfig(physical_filter_map=FILTERS).to_yaml()
        (folder / "products.yaml").write_text(config, encoding="utf-8")

    def _write_stars(self, folder: Path, good: np.ndarray, total: np.ndarray) -> None:
        rows = star_rows(self._stars, good, total, self._rng(4))
        meta = _META | _BANDS
        write_fits_rows(folder / "fgcmStandardStars.fits", columns.STARS, rows, meta, name="STARS")
        names, rows = columns.reference_columns(BANDS), reference_rows(self._stars, self._rng(5))
        write_fits_rows(folder / "refcat.fits", names, rows, name="REFCAT")
        path = folder / "truth_stars.fits"
        write_fits_rows(path, columns.TRUE_STARS, self._stars, _BANDS, name="TRUTHSTAR")
        rows = {"band": np.array(BANDS, "S"), "offset": OFFSETS}
        write_fits_rows(folder / "truth_offsets.fits", columns.TRUE_OFFSETS, rows, name="TRUTHOFF")

    def _write_visits(self, folder: Path, observer: Observer | None) -> None:
        """Write the tables that grow with the visits, some of them at a time."""
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(FitsRows(folder / name, table, _META, extension))
                for name, (extension, table) in _BY_VISIT.items()
                if observer is not None or name != _OBSERVATIONS
            }
            slopes = color_slopes(self._instrument)
            for first, visits in self._blocks():
                zeropoints = true_zeropoints(self._instrument, visits, slopes)
                for name, rows in self._rows(visits, zeropoints).items():
                    writers[name].write(rows)
                if observer is None:
                    continue
                for i in range(len(visits["visit"])):
                    rows = observer.observe(visits, zeropoints, i, self._rng(6, first + i))
                    writers[_OBSERVATIONS].write(rows)

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


@contextmanager
def _complete_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give out a temporary folder beside a folder; it takes its place when all is done."""
    _check_free(path, overwrite)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    old = temporary.with_suffix(".old")
    try:
        temporary.mkdir()
        yield temporary
        _check_free(path, overwrite)
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_free(path: Path, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file; choose another name for the run's directory")
    names = sorted(entry.name for entry in path.iterdir())
    if names and not overwrite:
        raise FileExistsError(
            f"{path} is not empty; overwrite=True (--overwrite) replaces a simulated run"
        )
    if strange := [name for name in names if name not in FILES]:
        raise FileExistsError(
            f"{path} holds more than a simulated run: {listed(strange)}; move that, or choose "
            "another directory"
        )
