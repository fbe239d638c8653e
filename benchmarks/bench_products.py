"""What do the products of an FGCM run cost, and does it grow with the number of visits?

Makes the photoCalibs of a simulated run of 1000 visits and 189 detectors, against a loop over rows
with a general evaluator of polynomials; writes them; builds the graph of 10,000 visits; watches the
memory of runs of 1000 and 10,000 visits; and calibrates an exposure, against a copy of its planes.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

import calibration as cal
import mapreduce as mr
from calibration.photocalib.flux import AB_FLUX
from calibration.simulate.run import simulate_camera, simulate_run

from .helpers import (
    Verdict,
    add_repeat,
    alone,
    conclude,
    count,
    environment,
    make_parser,
    make_planes,
    race,
    ratio,
    table,
    timed,
)

__all__ = ["main"]

MINUTES = 4
SMOKE = ["--visits", "4", "--many", "8", "--detectors", "4", "--size", "128", "--repeat", "1"]

LOOP_LIMIT = 20
ALL_IN_LIMIT = 60  # µs a visit and detector
TASKS_LIMIT, BUILD_LIMIT = 4, 5  # tasks a visit; seconds
MEMORY_LIMIT = 1.2
COPY_LIMIT = 2
LOOP_VISITS = 5  # that the loop, which is slow, is timed with
FEW_DETECTORS = 8  # in the runs whose memory is watched
CONFIG = cal.ProductsConfig(tract_stars=False)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = simulated(folder / "run", options.visits, options.detectors)
        report["photo_calibs"] = time_photo_calibs(run, options)
        report["written"] = time_writing(run, folder / "products")
        report["graph"] = time_graph(folder, options.many)
        report["memory"] = watch_memory(folder, (options.visits, options.many))
    report["calibrate"] = time_calibrate(options)
    report["verdicts"] = verdicts(report)
    return conclude(report, options.json)


def simulated(folder: Path, visits: int, detectors: int) -> cal.FgcmRun:
    """Simulate a run with a square of detectors, or nearly so."""
    rows = max(n for n in range(1, math.isqrt(detectors) + 1) if detectors % n == 0)
    camera = simulate_camera(detectors // rows, rows)
    return simulate_run(folder, n_visits=visits, n_stars=100, camera=camera, observations=False)


# photoCalibs


def time_photo_calibs(run: cal.FgcmRun, options: argparse.Namespace) -> dict[str, list[float]]:
    """Time all photoCalibs of some visits, from their rows in memory to calibrations in memory."""
    products = cal.build_products(run, CONFIG)
    camera = run.camera
    boxes = np.array([detector.box for detector in camera.values()])
    area = (camera.ids, boxes, camera.area_coefficients())
    visits = [visit for visit in run.visit_ids.tolist() if _has_product(products, visit)]
    rows = {visit: run.zeropoint_rows(visit) for visit in visits[:LOOP_VISITS]}
    scaling = {visit: run.visit_row(visit)["scaling"] for visit in rows}

    def ours() -> dict[tuple[int, int], float]:
        made = [
            cal.visit_photo_calib(v, r, (camera.ids, scaling[v]), area=area)
            for v, r in rows.items()
        ]
        return {(m.visit, d): x for m in made for d, x in zip(m.detectors.tolist(), m.mean)}  # noqa: B905

    def loop() -> dict[tuple[int, int], float]:
        fields = dict(zip(camera.ids.tolist(), area[2], strict=True))
        found = {}
        for visit, columns in rows.items():
            flat = dict(zip(camera.ids.tolist(), scaling[visit], strict=True))
            for n in range(len(columns["detector"])):
                row = {name: values[n] for name, values in columns.items()}
                mean = mean_of_row(row, flat, fields)
                if mean is not None:
                    found[visit, int(row["detector"])] = mean
        return found

    expected = loop()

    def check(name: str, result: Mapping) -> None:
        if result.keys() != expected.keys() or not np.allclose(
            list(result.values()), list(expected.values()), rtol=1e-10
        ):
            raise RuntimeError(f"{name} makes other calibrations than the loop")

    seconds = race({"ours": ours, "loop": loop}, repeat=options.repeat, check=check)
    each = {name: [1e6 * t / len(expected) for t in times] for name, times in seconds.items()}
    print(f"\nphotoCalibs of {len(rows)} visits, {len(expected)} of visit and detector; µs each")
    print(table(("contestant", "median", "ours x"), _rows(each)))
    return each


def _has_product(products: cal.FgcmProducts, visit: int) -> bool:
    try:
        products.photo_calibs[visit].compute(scheduler="synchronous")
    except cal.NoZeropointError:
        return False
    return True


def mean_of_row(
    row: Mapping[str, Any], scaling: Mapping[int, float], areas: Mapping[int, np.ndarray]
) -> float | None:
    """Make one calibration as one would for a single row, and return its value at the center."""
    if row["fgcmFlag"] & 16 or row["fgcmZptVar"] <= 0 or row["fgcmfZptCheb"][0] <= 0:
        return None
    detector = int(row["detector"])
    factor = AB_FLUX * 10 ** (-0.4 * row["fgcmDeltaChrom"]) * scaling[detector]
    fields = [areas[detector]]
    for name in ("fgcmfZptSstarCheb", "fgcmfZptCheb"):
        order = math.isqrt(len(row[name]))
        fields.append(np.reshape(row[name], (order, order)))
    product = fields[0]
    for field in fields[1:]:
        product = multiplied(product, field)
    return float(chebyshev.chebval2d(0.0, 0.0, product * factor))


def multiplied(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply two series in two variables with numpy's product of series in one."""
    out = np.zeros((len(a) + len(b) - 1, a.shape[1] + b.shape[1] - 1))
    for i, j in np.ndindex(len(a), len(b)):
        row = chebyshev.chebmul(a[i], b[j])
        for k in (i + j, abs(i - j)):
            out[k, : len(row)] += row / 2
    return out


def _rows(each: Mapping[str, Sequence[float]]) -> list[tuple]:
    return [(n, f"{median(t):.1f}", f"{ratio(each, n, 'ours'):.1f}") for n, t in each.items()]


# Writing, graph, memory


def time_writing(run: cal.FgcmRun, target: Path) -> dict[str, float]:
    """Time opening, making and writing all photoCalibs, once."""
    config = CONFIG.replace(atmosphere_output=False)
    seconds, report = timed(lambda: cal.build_products(run, config).write(target))
    number = len(run.visit_ids) * len(run.camera)
    size = sum(path.stat().st_size for path in target.rglob("*.fits"))
    each = 1e6 * seconds / number
    print(
        f"\n{report}\n{seconds:.1f} s, {size / 2**20:.0f} MiB, {each:.1f} µs a visit and detector"
    )
    return {"seconds": seconds, "bytes": size, "each": each}


def time_graph(folder: Path, visits: int) -> dict[str, float]:
    """Time the graph of everything for many visits, and count its tasks."""
    run = simulated(folder / "many", visits, FEW_DETECTORS)

    def build() -> int:
        products = cal.build_products(run, CONFIG)
        graph: dict = {}
        for lazy in (*products.photo_calibs.values(), *products.atmospheres.values()):
            graph.update(lazy.__dask_graph__())
        return len(graph)

    times = [timed(build) for _ in range(3)]
    seconds, tasks = median(t for t, _ in times), times[0][1]
    print(f"\ngraph of {visits} visits: {seconds:.2f} s, {tasks} tasks")
    return {"seconds": seconds, "tasks_per_visit": tasks / visits}


def watch_memory(folder: Path, sizes: Sequence[int]) -> dict[int, int]:
    """Return the peak memory of a process that writes the products of runs of such sizes."""
    peaks = {}
    for visits in sizes:
        source, target = folder / f"of-{visits}", folder / f"made-{visits}"
        simulated(source, visits, FEW_DETECTORS)
        command = [sys.executable, "-m", f"{__package__}.bench_products", "--write"]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, str(source), str(target)], check=True, capture_output=True, text=True
        )
        peaks[visits] = int(done.stdout.split()[-1])
        seconds = time.perf_counter() - start
        print(f"products of {visits} visits: {peaks[visits] / 2**20:.0f} MiB, {seconds:.1f} s")
    return peaks


def write_and_tell(source: str, target: str) -> None:
    """Write the products of a run, and print the peak memory of this process in bytes."""
    cal.build_products(cal.FgcmRun.open(source), CONFIG).write(target)
    status = Path("/proc/self/status").read_text()
    print(1024 * int(status.partition("VmHWM:")[2].split()[0]))


# Pixels


def time_calibrate(options: argparse.Namespace) -> dict[str, list[float]]:
    """Time the calibration of an exposure against a copy of its planes."""
    planes = make_planes(options.size)
    exposure = mr.Exposure(*planes)
    rng = np.random.default_rng(1)
    coefficients = 0.01 * rng.standard_normal((6, 6))
    coefficients[0, 0] = 2.5
    photo_calib = cal.PhotoCalib(cal.ChebyshevField(exposure.bbox, coefficients))
    contestants: dict[str, Callable[[], Any]] = {
        "ours": lambda: photo_calib.calibrate(exposure).compute(),
        "copy": lambda: [plane.copy() for plane in planes],
        "whole field": partial(whole_field, photo_calib, exposure),
    }
    expected = contestants["whole field"]()

    def check(name: str, result: Any) -> None:
        if name == "ours" and not np.allclose(result.image, expected[0], rtol=1e-6):
            raise RuntimeError("the calibrated image is another than image * field")

    seconds = race(contestants, repeat=options.repeat, check=check)
    print(f"\ncalibrating {options.size} x {options.size} pixels, three planes")
    rows = [
        (n, f"{1e3 * median(t):.1f} ms", f"{ratio(seconds, n, 'copy'):.2f}")
        for n, t in seconds.items()
    ]
    print(table(("contestant", "median", "copy x"), rows))
    return seconds


def whole_field(photo_calib: cal.PhotoCalib, exposure: mr.Exposure) -> tuple[np.ndarray, ...]:
    """Evaluate the field over the image, and multiply: what one would write."""
    field = photo_calib.field.over(dtype=np.float32)
    return exposure.image * field, exposure.variance * field**2, exposure.mask.copy()


def verdicts(report: Mapping[str, Any]) -> list[Verdict]:
    graph, memory = report["graph"], report["memory"]
    few, many = memory
    loop = ratio(report["photo_calibs"], "loop", "ours")
    copy = ratio(report["calibrate"], "ours", "copy")
    each = report["written"]["each"]
    return [
        Verdict("photoCalibs: loop over rows / ours", loop, ">=", LOOP_LIMIT),
        Verdict("photoCalibs, written, a visit and detector", each, "<=", ALL_IN_LIMIT, "µs"),
        Verdict("graph: tasks a visit", graph["tasks_per_visit"], "<=", TASKS_LIMIT),
        Verdict("graph: building it for many visits", graph["seconds"], "<=", BUILD_LIMIT, "s"),
        Verdict(
            f"peak memory, {many} visits / {few}", memory[many] / memory[few], "<=", MEMORY_LIMIT
        ),
        Verdict("calibrating an exposure / copying it", copy, "<=", COPY_LIMIT),
    ]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_products", __doc__)
    parser.add_argument("--visits", type=count, default=1000, help="of a run (%(default)s)")
    parser.add_argument("--many", type=count, default=10_000, help="of a large run (%(default)s)")
    parser.add_argument("--detectors", type=count, default=189, help="(%(default)s)")
    parser.add_argument("--size", type=count, default=4096, help="of an exposure (%(default)s)")
    add_repeat(parser)
    parser.add_argument("--write", nargs=2, metavar=("RUN", "OUT"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    given = _options(None).write
    if given:
        write_and_tell(*given)
    else:
        alone(main)
