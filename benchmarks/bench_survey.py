"""What does a survey of LSSTCam's size cost, and how many tasks can a dask scheduler bear?

Makes the products of simulated runs of 189 detectors and ever more visits, each run in a process
of its own, and draws lines through their time, memory and bytes, up to many more visits; makes
those of the largest on a cluster, and sees what scheduler, client and workers take of it. Then a
scheduler hands out tasks that do nothing to a hundred workers: in the graphs in which
`FgcmProducts.write` asks for the products, and in others. Last, it makes many small files, as
products are.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dask
import numpy as np
from dask.delayed import Delayed
from dask.task_spec import DataNode, Task, TaskRef

import calibration as cal
from calibration.products.build import make_photo_calib
from calibration.products.store import Store
from calibration.products.write import Outcome
from mapreduce.io.stream import complete_first

from .bench_memory import peak_memory
from .bench_products import simulated
from .clusters import cpu_seconds, peaks, process_cluster
from .helpers import (
    Verdict,
    alone,
    conclude,
    count,
    environment,
    in_process,
    make_parser,
    table,
    timed,
)

__all__ = ["main"]

MINUTES = 13
SMOKE = ["--visits", "2", "4", "8", "--many", "16", "--detectors", "4", "--crowd", "4"]
SMOKE += ["--given", "16", "--layout", "today", "--files", "20"]
SMOKE += ["--part", "products", "--part", "scheduler", "--part", "files"]

ALL_IN_LIMIT = 60  # µs a visit and detector
MEMORY_LIMIT = 1.2
CONFIG = cal.ProductsConfig(tract_stars=False)
PRODUCTS = ("photo-calib", "atmosphere")
BATCH = 256  # visits that `FgcmProducts.write` hands to a scheduler at once
WORKERS = 2  # processes that really make products
FITTED = ("wall", "write", "peak", "bytes", "shared")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    report: dict[str, Any] = {"environment": environment(), "options": vars(options)}
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        if "products" in options.part:
            report["products"] = rehearse(folder, options)
        if "cluster" in options.part:
            report["cluster"] = on_cluster(folder, max(options.visits), options.detectors)
        if "scheduler" in options.part:
            report["scheduler"] = hand_out(options.layout, options.given, options.crowd)
        if "files" in options.part:
            report["files"] = make_files(folder, options.files)
    report["verdicts"] = verdicts(report, options.detectors)
    return conclude(report, options.json)


# Products, and lines through what they cost


def rehearse(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write the products of ever more visits, and project them to many."""
    sizes = sorted(options.visits)
    runs = {size: written(folder, size, options.detectors) for size in sizes}
    lines = {name: line(sizes, [run[name] for run in runs.values()]) for name in FITTED}
    projected = {name: fit["start"] + fit["each"] * options.many for name, fit in lines.items()}
    print(f"\nproducts of {options.detectors} detectors, each run a process, on threads")
    rows = [(visits, *_facts(run)) for visits, run in runs.items()]
    rows.append((f"{options.many} projected", *_facts(projected)))
    found = {"runs": runs, "lines": lines, "projected": projected}
    if options.check:
        found["many"] = written(folder, options.many, options.detectors)
        rows.append((f"{options.many} measured", *_facts(found["many"])))
    heads = ("open s", "inputs s", "write s", "all s", "peak MB", "files", "MB", "shared kB")
    print(table(("visits", *heads), rows))
    print("\nlines: start + each visits, and the farthest that a run is off")
    print(table(("", "start", "each", "off"), (_line_row(n, fit) for n, fit in lines.items())))
    return found


def written(folder: Path, visits: int, detectors: int) -> dict[str, float]:
    """Simulate a run, and write its products in a new process."""
    source = folder / f"run-{visits}"
    if not source.exists():
        simulated(source, visits, detectors)
    return in_process("bench_survey", str(source), str(folder / f"products-{visits}"))


def measure(source: str, target: str) -> None:
    """Write the products of a run here; print what each step took (s), memory and files (MB)."""
    start = time.perf_counter()
    opening, run = timed(lambda: cal.FgcmRun.open(source))
    products = cal.build_products(run, CONFIG)
    summing, _ = timed(products.inputs)  # which is a part of writing, too
    writing, _ = timed(lambda: products.write(target))
    files = [path for path in Path(target).rglob("*") if path.is_file()]
    found = {
        "open": opening,
        "inputs": summing,
        "write": writing,
        "wall": time.perf_counter() - start - summing,
        "peak": peak_memory(),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files) / 1e6,
        "shared": len(pickle.dumps(run)) / 1e3,
    }
    print(json.dumps(found))


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Fit a line; ``off`` is the largest residual over the value there."""
    each, start = np.polyfit(x, y, 1)
    off = np.max(np.abs(np.asarray(y) / (start + each * np.asarray(x)) - 1))
    return {"start": float(start), "each": float(each), "off": float(off)}


def _facts(run: Mapping[str, float]) -> list[str]:
    digits = {"open": 2, "inputs": 2, "write": 1, "wall": 1, "peak": 0, "files": 0, "bytes": 0}
    return [f"{run[n]:.{d}f}" if n in run else "" for n, d in {**digits, "shared": 0}.items()]


def _line_row(name: str, fit: Mapping[str, float]) -> tuple[str, ...]:
    units = {"wall": ("s", "ms"), "write": ("s", "ms"), "shared": ("kB", "B")}
    whole, part = units.get(name, ("MB", "kB"))
    start, each = f"{fit['start']:.2f} {whole}", f"{1e3 * fit['each']:.2f} {part}"
    return name, start, each, f"{fit['off']:.1%}"


def on_cluster(folder: Path, visits: int, detectors: int) -> dict[str, Any]:
    """Write the products of a run on worker processes, and see what each part takes of it."""
    source = folder / f"run-{visits}"
    if not source.exists():
        simulated(source, visits, detectors)
    products = cal.build_products(cal.FgcmRun.open(source), CONFIG)
    with process_cluster(WORKERS) as client:
        chosen = products.run.visit_ids[:1]  # so that workers have imported everything
        products.write(folder / "on-cluster", visits=chosen)
        before = cpu_seconds(client)
        seconds, _ = timed(lambda: products.write(folder / "on-cluster"))
        cpu = {name: t - before[name] for name, t in cpu_seconds(client).items()}
        highest = peaks(client)
    highest["client"] = peak_memory()
    print(f"\nproducts of {visits} visits on {WORKERS} worker processes: {seconds:.1f} s")
    rows = [(n, f"{1e3 * t / visits:.2f} ms", f"{highest[n]:.0f} MB") for n, t in cpu.items()]
    print(table(("part", "CPU a visit", "peak"), rows))
    return {"visits": visits, "seconds": seconds, "cpu": cpu, "peaks": highest}


# What a scheduler can bear


class Layout(NamedTuple):
    """How many visits are handed out, at once, and to a task."""

    visits: int
    batch: int
    grouped: int = 1


LAYOUTS = {
    "today": lambda given: Layout(given, BATCH),
    "fewer": lambda given: Layout(-(-given // 8), BATCH),
    "larger batches": lambda given: Layout(-(-given // 8), 16 * BATCH),
    "one graph": lambda given: Layout(-(-given // 8), given),
    "16 a task": lambda given: Layout(given, 16 * BATCH, 16),
    "64 a task": lambda given: Layout(4 * given, 64 * BATCH, 64),
}
"""By name, for a number of visits; "today" is what `FgcmProducts.write` does."""


def hand_out(names: Sequence[str], given: int, crowd: int) -> dict[str, dict[str, Any]]:
    """Let a scheduler hand out tasks that do nothing, in layouts; each on a new cluster."""
    done = {}
    for name in names:
        layout = LAYOUTS[name](given)
        with process_cluster(crowd, processes=1) as client:
            idle, before = peaks(client), cpu_seconds(client)
            seconds, tasks = timed(lambda layout=layout: run_layout(layout))
            cpu = {part: t - before[part] for part, t in cpu_seconds(client).items()}
            memory = {"idle": idle["scheduler"], "peak": peaks(client)["scheduler"]}
        done[name] = {"visits": layout.visits, "tasks": tasks, "seconds": seconds}
        done[name] |= {"cpu": cpu, "memory": memory}
    size = len(pickle.dumps(next(empty_tasks(Layout(1, 1), "0", [], [0])).dask))
    print(f"\ntasks that do nothing, on {crowd} workers in one process; a task is {size} bytes")
    heads = ("tasks", "time", "tasks/s", "visits/s", "scheduler", "client", "workers", "idle")
    rows = (_layout_row(name, run) for name, run in done.items())
    print(table(("layout", *heads, "peak"), rows))
    return done


def run_layout(layout: Layout) -> int:
    """Compute the tasks of a layout, batch by batch, and return their number."""
    token, tasks = uuid.uuid4().hex, 0
    values = {f"setup-{token}": {"run": token}, f"offsets-{token}": {"g": 0.0}}
    shared = dask.persist(*(Delayed(k, {k: DataNode(k, value)}) for k, value in values.items()))
    for first in range(0, layout.visits, layout.batch):
        visits = range(first, min(first + layout.batch, layout.visits))
        outcomes = dask.compute(*empty_tasks(layout, token, shared, visits))
        if sum(map(len, outcomes)) != len(PRODUCTS) * len(visits):
            raise RuntimeError(f"visits {first} and following were not all handed out")
        tasks += len(outcomes)
    return tasks


def empty_tasks(
    layout: Layout, token: str, shared: Sequence[Delayed], visits: Sequence[int]
) -> Iterator[Delayed]:
    """Yield tasks of the form of those that make products and write them."""
    store = Store(Path("/some/where/products"), "fits", token[:16])
    graph = {key: task for part in shared for key, task in part.__dask_graph__().items()}
    refs = [TaskRef(part.key) for part in shared]
    for start in range(0, len(visits), layout.grouped):
        some = list(visits[start : start + layout.grouped])
        for name in PRODUCTS:
            key = f"save-{name}-{token}-{some[0]}"
            task = Task(key, do_nothing, store, name, make_photo_calib, *refs, some)
            yield Delayed(key, {**graph, key: task})


def do_nothing(store: Store, name: str, make: Any, *args: Any) -> list[Outcome]:
    """Return what a task returns that has made the products of visits."""
    return [Outcome(name, visit, "written") for visit in args[-1]]


def _layout_row(name: str, done: Mapping[str, Any]) -> tuple[Any, ...]:
    seconds, tasks = done["seconds"], done["tasks"]
    return (
        name,
        tasks,
        f"{seconds:.1f} s",
        f"{tasks / seconds:.0f}",
        f"{done['visits'] / seconds:.0f}",
        *(f"{1e6 * t / tasks:.0f} µs" for t in done["cpu"].values()),
        *(f"{done['memory'][when]:.0f} MB" for when in ("idle", "peak")),
    )


# Files


def make_files(folder: Path, number: int) -> dict[str, float]:
    """Make small files in one folder the way products are made, and list them."""
    place = folder / "files"
    place.mkdir()

    def make() -> None:
        for n in range(number):
            with complete_first(place / f"{n}.fits", overwrite=True) as temporary:
                temporary.write_bytes(b"")

    making, _ = timed(make)
    listing, _ = timed(lambda: sum(1 for _ in place.glob(".*.tmp")))
    print(
        f"\n{number} empty files in one folder: {1e6 * making / number:.0f} µs each; "
        f"looking for those that were left half-made: {1e6 * listing / number:.2f} µs each"
    )
    return {"number": number, "making": making, "listing": listing}


def verdicts(report: Mapping[str, Any], detectors: int) -> list[Verdict]:
    if "products" not in report:
        return []
    runs = report["products"]["runs"]
    few, most = min(runs), max(runs)
    each = 1e6 * runs[most]["write"] / most / detectors
    growth = runs[most]["peak"] / runs[few]["peak"]
    return [
        Verdict(f"{most} visits, written, a visit and detector", each, "<=", ALL_IN_LIMIT, "µs"),
        Verdict(f"peak memory, {most} visits / {few}", growth, "<=", MEMORY_LIMIT),
    ]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("bench_survey", __doc__)
    parser.add_argument(
        "--visits", type=count, nargs="+", default=[250, 500, 1000], help="of runs (%(default)s)"
    )
    parser.add_argument("--many", type=count, default=10_000, help="projected (%(default)s)")
    parser.add_argument("--check", action="store_true", help="also measure what is projected")
    parser.add_argument("--detectors", type=count, default=189, help="(%(default)s)")
    parser.add_argument(
        "--given", type=count, default=50_000, help="visits handed out for nothing (%(default)s)"
    )
    parser.add_argument("--crowd", type=count, default=100, help="workers then (%(default)s)")
    parser.add_argument("--files", type=count, default=200_000, help="to make (%(default)s)")
    parts = ("products", "cluster", "scheduler", "files")
    only = {"action": "append", "help": "only this; can be repeated"}
    parser.add_argument("--part", choices=parts, **only)
    parser.add_argument("--layout", choices=LAYOUTS, **only)
    parser.add_argument("--folder", type=Path, help="where it makes its files, and removes them")
    options = parser.parse_args(argv)
    options.part = options.part or list(parts)
    options.layout = options.layout or list(LAYOUTS)
    if len(set(options.visits)) < 3:
        parser.error("a line through runs of fewer than three sizes tells nothing")
    return options


if __name__ == "__main__":
    alone(main)
