"""How many rows of a catalog are calibrated in a second, and how many get their tracts?

A visit of 189 detectors, sources on mixed detectors in no order, 6 x 6 coefficients each. One core:
nothing here shares its work out. The evaluation itself; with fluxes, magnitudes and their errors,
from a table in memory to one in memory; and from a Parquet file to a Parquet file. The loop takes
detector after detector, and evaluates with numpy's `chebval2d`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import dask
import numpy as np
from astropy.table import Table
from numpy.polynomial.chebyshev import chebval2d

import calibration as cal
from calibration.fields.series import unit
from calibration.tables.files import write_table

from .helpers import (
    Verdict,
    add_repeat,
    alone,
    conclude,
    count,
    environment,
    make_parser,
    race,
    table,
)

__all__ = ["main"]

MINUTES = 3
SMOKE = ["--rows", "2000", "--positions", "2000", "--repeat", "1"]

EVALUATED_LIMIT, TRACTS_LIMIT = 5.0, 10.0  # millions in a second
VISIT, DETECTORS, ORDER = 42, 189, 6
WIDTH, HEIGHT = 4072, 4000
NUM_RINGS = 120
EVALUATION, LOOP = "skyfold, evaluation", "loop over detectors, evaluation"
TABLES, FILES = "skyfold, fluxes and magnitudes", "skyfold, Parquet to Parquet"

Sources = dict[str, np.ndarray]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    with dask.config.set(scheduler="synchronous"):
        report["rows"] = time_rows(options.rows, options.repeat)
    report["positions"] = time_tracts(options.positions, options.repeat)
    rates = {
        **_rates(report["rows"], options.rows),
        **_rates(report["positions"], options.positions),
    }
    print(table(("on one core", "runs", "median", "million a second"), _rows(report, rates)))
    report["verdicts"] = [
        Verdict(
            f"evaluating {options.rows} rows of {ORDER} x {ORDER} coefficients",
            rates[EVALUATION],
            ">=",
            EVALUATED_LIMIT,
            "million/s",
        ),
        Verdict(
            f"tracts of {options.positions} positions, {NUM_RINGS} rings",
            rates[_tracts_name()],
            ">=",
            TRACTS_LIMIT,
            "million/s",
        ),
    ]
    return conclude(report, options.json)


# Calibrations


def time_rows(number: int, repeat: int | None) -> dict[str, list[float]]:
    """Time all ways side by side, after a look at whether they agree."""
    photo_calib, sources = make_visit(), make_sources(number)
    place = [sources[name] for name in ("detector", "x", "y")]
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "sources.parquet"), Path(folder, "calibrated")
        write_table(path, Table(sources))
        functions: dict[str, Callable[[], Any]] = {
            EVALUATION: partial(photo_calib.calibration, *place),
            LOOP: partial(loop, photo_calib, *place),
            TABLES: partial(as_tables, photo_calib, sources),
            FILES: partial(as_files, photo_calib, path, out),
        }
        return race(functions, repeat=repeat, check=partial(_check, photo_calib, sources))


def make_visit() -> cal.VisitPhotoCalib:
    """Return calibrations that vary by some per cent over each detector."""
    coefficients = 0.01 * np.random.default_rng(1).standard_normal((DETECTORS, ORDER, ORDER))
    coefficients[:, 0, 0] = 2
    boxes = np.tile([0, 0, WIDTH, HEIGHT], (DETECTORS, 1))
    mean = np.full(DETECTORS, 2.0)
    ids = np.arange(DETECTORS)
    return cal.VisitPhotoCalib(VISIT, ids, boxes, coefficients, mean, 0.001 * mean)


def make_sources(number: int) -> Sources:
    """Return sources at random places."""
    rng = np.random.default_rng(2)
    flux = rng.lognormal(6, 1, number)
    return {
        "visit": np.full(number, VISIT),
        "detector": rng.integers(0, DETECTORS, number, np.int32),
        "x": rng.uniform(0, WIDTH - 1, number),
        "y": rng.uniform(0, HEIGHT - 1, number),
        "instFlux": flux,
        "instFluxErr": np.sqrt(flux),
    }


def loop(
    photo_calib: cal.VisitPhotoCalib, detector: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Evaluate detector by detector, as one would."""
    result = np.empty(len(x))
    for number, single in photo_calib.items():
        here = detector == number
        box = single.box
        at = unit(y[here], box.y0, box.height), unit(x[here], box.x0, box.width)
        result[here] = chebval2d(*at, single.field.coefficients)
    return result


def as_tables(photo_calib: cal.VisitPhotoCalib, sources: Sources) -> list:
    """Return calibrated tables of what is in memory."""
    lazy = cal.calibrate_sources(sources, photo_calib, keep=())
    return [part.compute()["flux", "fluxErr", "mag", "magErr"] for part in lazy]


def as_files(photo_calib: cal.VisitPhotoCalib, path: Path, out: Path) -> cal.SourcesReport:
    """Write the calibrated table of a file, anew each time."""
    for file in out.glob("*.parquet"):
        file.unlink()
    return cal.calibrate_sources(path, photo_calib, rows=2**20).write(out)


def _check(photo_calib: cal.VisitPhotoCalib, sources: Sources, name: str, result: Any) -> None:
    """Refuse to time what gives something else."""
    if name == FILES:
        if result.tally.calibrated != len(sources["x"]):
            raise RuntimeError(f"{name} leaves sources without a calibration: {result}")
        return
    some = slice(0, 10_000)
    expected = np.empty(len(sources["x"][some]))
    detector, x, y, flux = (sources[n][some] for n in ("detector", "x", "y", "instFlux"))
    for number, single in photo_calib.items():
        here = detector == number
        expected[here] = single.calibration(x[here], y[here])
    if name == TABLES:
        expected, result = flux * expected, result[0]["flux"]
    tolerance = 1e-13 if name == LOOP else 0
    if not np.allclose(result[some], expected, rtol=tolerance, atol=0):
        raise RuntimeError(f"{name} gives other values than PhotoCalib for each detector")


# Tracts


def time_tracts(number: int, repeat: int | None) -> dict[str, list[float]]:
    """Time the assignment of positions all over the sky to tracts."""
    rng = np.random.default_rng(3)
    ra = rng.uniform(0, 360, number)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, number)))
    sky_map = cal.RingsSkyMap(NUM_RINGS)
    return race({_tracts_name(): partial(sky_map.tract, ra, dec)}, repeat=repeat)


def _tracts_name() -> str:
    return f"tracts of {NUM_RINGS} rings"


def _rates(seconds: Mapping[str, Sequence[float]], number: int) -> dict[str, float]:
    return {name: 1e-6 * number / median(times) for name, times in seconds.items()}


def _rows(report: Mapping[str, Any], rates: Mapping[str, float]) -> list[tuple]:
    seconds = {**report["rows"], **report["positions"]}
    return [
        (name, len(times), f"{median(times):.3f} s", f"{rates[name]:.1f}")
        for name, times in seconds.items()
    ]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_sources", __doc__)
    parser.add_argument(
        "--rows", type=count, default=10_000_000, help="rows of the catalog (%(default)s)"
    )
    parser.add_argument(
        "--positions", type=count, default=10_000_000, help="to find tracts of (%(default)s)"
    )
    add_repeat(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    alone(main)
