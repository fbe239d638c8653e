"""How much faster are the atmospheres of many visits together than one by one?

The table is noise, on grids like those of FGCM's larger tables. The other contestant is the usual
way: four of scipy's `RegularGridInterpolator`, made once, called for every visit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from calibration import AtmosphereTable

from .helpers import (
    Verdict,
    add_repeat,
    alone,
    conclude,
    count,
    environment,
    make_parser,
    race,
    ratio,
    table,
)

__all__ = ["main"]

MINUTES = 1
SMOKE = ["--visits", "3", "--repeat", "1"]

LIMIT = 25.0
AGREEMENT = 1e-12
WAVELENGTHS = 1601
VISITS_A_NIGHT = 200
OURS, THEIRS, SINGLY = "skyfold", "RegularGridInterpolator", "skyfold, a call a visit"

Visits = dict[str, np.ndarray]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    atmosphere = make_table()
    nights = make_visits(options.visits)
    rng = np.random.default_rng(2)
    kinds = {
        "one alpha a night": nights,
        "one alpha a visit": nights | {"alpha": rng.uniform(0.5, 2, options.visits)},
        "a mirror term, too": nights | {"cTrans": rng.uniform(-0.05, 0.05, options.visits)},
    }
    report["runs"] = {
        kind: time_kind(atmosphere, visits, options.repeat) for kind, visits in kinds.items()
    }
    for kind, seconds in report["runs"].items():
        print(f"\n{options.visits} visits, {WAVELENGTHS} wavelengths, {kind}")
        print(table(("", "µs a visit", "times as fast"), _rows(seconds, options.visits)))
    report["verdicts"] = [
        Verdict(
            f"atmospheres of {options.visits} visits, {kind}: throughput over {THEIRS}",
            ratio(seconds, THEIRS, OURS),
            ">=",
            LIMIT,
        )
        for kind, seconds in report["runs"].items()
    ]
    return conclude(report, options.json)


def make_table() -> AtmosphereTable:
    """Return a table of noise between 0.5 and 1."""
    rng = np.random.default_rng(1)
    z, w, o = 10, 13, 7
    return AtmosphereTable(
        wavelengths=np.linspace(3000, 11000, WAVELENGTHS),
        sec_zenith=np.linspace(1, 3, z),
        ln_pwv=np.linspace(-2, 3, w),
        o3=np.linspace(200, 400, o),
        oxygen=rng.uniform(0.5, 1, (z, WAVELENGTHS)),
        rayleigh=rng.uniform(0.5, 1, (z, WAVELENGTHS)),
        ozone=rng.uniform(0.5, 1, (o, z, WAVELENGTHS)),
        water=rng.uniform(0.5, 1, (w, z, WAVELENGTHS)),
        pmb_elevation=731.0,
        lambda_norm=7750.0,
    )


def make_visits(number: int) -> Visits:
    """Return parameters in FGCM's manner: alpha and ozone are constant in a night."""
    rng = np.random.default_rng(3)
    night = np.arange(number) // VISITS_A_NIGHT
    return {
        "pmb": rng.uniform(720, 760, number),
        "pwv": rng.uniform(0.5, 10, number),
        "o3": rng.uniform(230, 310, night[-1] + 1)[night],
        "tau": rng.uniform(0.01, 0.1, number),
        "alpha": rng.uniform(0.5, 2, night[-1] + 1)[night],
        "secZenith": rng.uniform(1, 2.5, number),
        "cTrans": np.zeros(number),
        "lamStd": rng.uniform(4500, 9500, number),
    }


def time_kind(
    atmosphere: AtmosphereTable, visits: Visits, repeat: int | None
) -> dict[str, list[float]]:
    """Time all ways side by side, after a look at whether they agree."""
    expected = atmosphere.interpolate(visits)
    functions: dict[str, Callable[[], np.ndarray]] = {
        OURS: partial(atmosphere.interpolate, visits),
        SINGLY: partial(one_by_one, lambda visit: atmosphere.interpolate(visit)[0], visits),
        THEIRS: partial(one_by_one, usual(atmosphere), visits),
    }
    return race(functions, repeat=repeat, check=partial(_check, expected))


def one_by_one(function: Callable[[Visits], np.ndarray], visits: Visits) -> np.ndarray:
    """Call a function for one visit after the other."""
    rows = range(len(visits["pmb"]))
    return np.array([function({name: column[i] for name, column in visits.items()}) for i in rows])


def usual(atmosphere: AtmosphereTable) -> Callable[[Visits], np.ndarray]:
    """Return a function of one visit, with interpolators that are ready."""
    lam, sec_zenith, ln_pwv, o3 = (
        getattr(atmosphere, name) for name in ("wavelengths", "sec_zenith", "ln_pwv", "o3")
    )
    oxygen, rayleigh = (
        RegularGridInterpolator((sec_zenith, lam), values)
        for values in (atmosphere.oxygen, atmosphere.rayleigh)
    )
    water = RegularGridInterpolator((ln_pwv, sec_zenith, lam), atmosphere.water)
    ozone = RegularGridInterpolator((o3, sec_zenith, lam), atmosphere.ozone)
    elevation, lambda_norm = atmosphere.pmb_elevation, atmosphere.lambda_norm

    def transmission(visit: Visits) -> np.ndarray:
        s = np.clip(visit["secZenith"], sec_zenith[0], sec_zenith[-2])
        w = np.clip(np.log(visit["pwv"]), ln_pwv[0], ln_pwv[-2])
        o = np.clip(visit["o3"], o3[0], o3[-2])
        scattering = np.exp(-(visit["pmb"] - elevation) / elevation)
        pivot = visit["lamStd"]
        return (
            scattering**1.6
            * oxygen((s, lam))
            * rayleigh((s, lam))
            * water((w, s, lam))
            * ozone((o, s, lam))
            * (1 + visit["cTrans"] * (lam - pivot) / pivot)
            * np.exp(-visit["tau"] * s * (lam / lambda_norm) ** (-visit["alpha"]))
        )

    return transmission


def _check(expected: np.ndarray, name: str, result: np.ndarray) -> None:
    """Refuse to time what gives another answer; ours must be the same to the last bit."""
    worst = np.max(np.abs(result / expected - 1))
    if not worst <= (AGREEMENT if name == THEIRS else 0):
        raise RuntimeError(f"{name} differs by up to {worst:.1e} of the transmission")


def _rows(seconds: Mapping[str, Sequence[float]], visits: int) -> list[tuple]:
    return [
        (name, f"{1e6 * median(times) / visits:.1f}", f"{ratio(seconds, THEIRS, name):.1f}")
        for name, times in seconds.items()
    ]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_atmospheres", __doc__)
    parser.add_argument("--visits", type=count, default=1000, help="visits (%(default)s)")
    add_repeat(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    alone(main)
