"""What does matching catalogs on the sky cost, over the bare search in a k-d tree?

Ours starts from right ascensions and declinations and ends with pairs, one to one. The bare search
is one `KDTree.query` for all stars in a tree that is ready: unit vectors and the tree are not in
its time, and several stars may find the same reference star. With the tree, and by astropy's
`match_coordinates_sky` with the same two left out, are there for comparison.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord, match_coordinates_sky
from scipy.spatial import KDTree

from calibration.sky.matching import chord, match_sky, unit_vectors

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
    summary,
    table,
)

__all__ = ["main"]

MINUTES = 3
SMOKE = ["--stars", "500", "--repeat", "1"]

LIMIT = 1.3
RADIUS = 0.25 / 3600  # deg
NOISE = 0.05 / 3600
OURS, BARE, BUILT, ASTROPY = "skyfold", "KDTree.query", "KDTree and query", "astropy"
AREAS = {"the whole sky": (360.0, 180.0), "100 square degrees": (10.0, 10.0)}

Sky = tuple[np.ndarray, np.ndarray]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    report["runs"] = {
        area: time_area(options.stars, *sides, options.repeat) for area, sides in AREAS.items()
    }
    for area, seconds in report["runs"].items():
        print(f"\n{options.stars} stars and as many reference stars on {area}")
        header = ("", "runs", "median", "min", "max", f"over {BARE}")
        print(table(header, summary(seconds, BARE)))
    report["verdicts"] = [
        Verdict(
            f"matching {options.stars} stars on {area}: ours / {BARE}",
            ratio(seconds, OURS, BARE),
            "<=",
            LIMIT,
        )
        for area, seconds in report["runs"].items()
    ]
    return conclude(report, options.json)


def time_area(
    number: int, width: float, height: float, repeat: int | None
) -> dict[str, list[float]]:
    """Time all ways side by side, after a look at whether they find the same pairs."""
    stars, reference, true = make_catalogs(number, width, height)
    vectors, others = unit_vectors(*stars), unit_vectors(*reference)
    tree = KDTree(others)
    functions: dict[str, Callable[[], Any]] = {
        OURS: partial(match_sky, *stars, *reference, RADIUS),
        BARE: partial(search, tree, vectors),
        BUILT: lambda: search(KDTree(others), vectors),
        ASTROPY: partial(by_astropy, *(SkyCoord(*sky, unit="deg") for sky in (stars, reference))),
    }
    return race(functions, repeat=repeat, check=partial(_check, true))


def make_catalogs(number: int, width: float, height: float) -> tuple[Sky, Sky, np.ndarray]:
    """Return stars, reference stars in another order, and which of these each star is."""
    rng = np.random.default_rng(1)
    ra = rng.uniform(0, width, number)
    top = np.sin(np.radians(height / 2))
    dec = np.degrees(np.arcsin(rng.uniform(-top, top, number)))
    order = rng.permutation(number)
    off = NOISE * rng.standard_normal((2, number))
    reference = (ra + off[0])[order], np.clip(dec + off[1], -90, 90)[order]
    return (ra, dec), reference, np.argsort(order)


def search(tree: KDTree, vectors: np.ndarray) -> np.ndarray:
    """Return for each star the nearest reference star within the radius."""
    return tree.query(vectors, distance_upper_bound=chord(RADIUS))[1]


def by_astropy(stars: SkyCoord, reference: SkyCoord) -> np.ndarray:
    """Return the same by astropy, which keeps the tree from one call to the next."""
    nearest, separation, _ = match_coordinates_sky(stars, reference)
    return np.where(separation < RADIUS * u.deg, nearest, len(reference))


def _check(true: np.ndarray, name: str, result: Any) -> None:
    """Refuse to time what does not find nearly all pairs, or ours if a star has two."""
    found = np.full(len(true), len(true))
    if name == OURS:
        found[result.first] = result.second
        if len(np.unique(result.second)) < len(result):
            raise RuntimeError(f"{name} has matched a reference star twice")
    else:
        found[:] = result
    if np.mean(found == true) < 0.99:
        raise RuntimeError(f"{name} finds {np.mean(found == true):.1%} of the pairs")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_matching", __doc__)
    parser.add_argument(
        "--stars", type=count, default=1_000_000, help="stars in each catalog (%(default)s)"
    )
    add_repeat(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    alone(main)
