"""What the benchmarks share: input, timing, verdicts, tables, and the facts about the machine."""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from dask.system import CPU_COUNT

__all__ = [
    "Planes",
    "Verdict",
    "add_repeat",
    "alone",
    "check_equal",
    "conclude",
    "count",
    "environment",
    "facts",
    "in_process",
    "make_parser",
    "make_planes",
    "new_file",
    "race",
    "ratio",
    "square",
    "summary",
    "table",
    "timed",
    "verdict_table",
    "write_json",
]

_QUICK, _SLOW = 2.0, 5.0  # seconds
_LIBRARIES = (
    *("numpy", "scipy", "dask", "distributed", "astropy", "zarr", "numba"),
    *("scikit-image", "joblib", "ray", "daisy"),
)


class Planes(NamedTuple):
    """Image float32, variance float32 and mask int32, all (ny, nx)."""

    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """Whether a figure keeps within its limit.

    ``what`` says what was measured; ``unit`` is empty for a ratio; ``reason`` says why a limit
    cannot be met, where that is known.
    """

    what: str
    measured: float
    relation: str
    limit: float
    unit: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.relation not in ("<=", ">="):
            raise ValueError(f"the relation of a verdict is '<=' or '>=', got {self.relation!r}")

    @property
    def met(self) -> bool:
        """Whether the limit is kept; what is NaN keeps none."""
        if self.relation == "<=":
            return bool(self.measured <= self.limit)
        return bool(self.measured >= self.limit)


def make_planes(size: int, seed: int = 1) -> Planes:
    """Return a noisy sky without NaN, with its variance and one pixel in 100 saturated (bit 1)."""
    rng = np.random.default_rng(seed)
    shape = (size, size)
    return Planes(
        1000 + 30 * rng.standard_normal(shape, np.float32),
        900 + 10 * rng.random(shape, np.float32),
        np.where(rng.random(shape, np.float32) < 0.01, np.int32(2), np.int32(0)),
    )


def check_equal(expected: Planes, name: str, result: Planes) -> None:
    """Refuse to time what gives another answer; NaN is equal to NaN.

    Raises
    ------
    RuntimeError
        If a plane has another dtype, another shape or another value anywhere.
    """
    for plane, right, found in zip(Planes._fields, expected, result, strict=True):
        if right.dtype != found.dtype or right.shape != found.shape:
            raise RuntimeError(
                f"{name} gives {plane} as {found.dtype} {found.shape}, "
                f"not as {right.dtype} {right.shape}"
            )
        same = (right == found) | ((right != right) & (found != found))
        if not same.all():
            raise RuntimeError(
                f"{name} gives another {plane} than expected at {np.count_nonzero(~same)} pixels"
            )


def race(
    functions: Mapping[str, Callable[[], Any]],
    *,
    repeat: int | None = None,
    repeat_slow: int = 1,
    check: Callable[[str, Any], None] = lambda name, result: None,
) -> dict[str, list[float]]:
    """Time functions side by side, in rounds of changing order, and return each one's seconds.

    The first run of each is for ``check(name, result)``, and tells how often to repeat: ``repeat``
    times, by default 5, or 9 if it took less than 2 s. One that took more than 5 s counts as slow:
    it runs ``repeat_slow`` times in all, the first run included.

    A timed run follows at once on an untimed one of the same function, except for slow ones. So
    all of them find caches and memory as they themselves left them. Otherwise they would wait for
    what others did: a virtual machine may give free memory back to its host, and to get it again
    takes ten times as long as to take what has just been freed.
    """
    first = {}
    for name, function in functions.items():
        first[name], result = timed(function)
        check(name, result)
        del result
    slow = {name: t > _SLOW for name, t in first.items()}
    seconds = {name: [t] if slow[name] else [] for name, t in first.items()}
    rounds = {
        name: repeat_slow if slow[name] else repeat or (9 if t < _QUICK else 5)
        for name, t in first.items()
    }
    order = random.Random(0)
    while left := [name for name in functions if len(seconds[name]) < rounds[name]]:
        for name in order.sample(left, len(left)):
            if not slow[name]:
                functions[name]()
            seconds[name].append(timed(functions[name])[0])
    return seconds


def in_process(script: str, *args: Any) -> dict[str, float]:
    """Call ``measure(*args)`` of a script in a new process; return what it prints last, as JSON."""
    call = f"{script}.measure({', '.join(map(repr, args))})"
    done = subprocess.run(
        [sys.executable, "-c", f"from {__package__} import {script}; {call}"],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    gc.collect()
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def ratio(seconds: Mapping[str, Sequence[float]], name: str, reference: str) -> float:
    """Return how many times as long as another a contestant takes.

    The median of the ratios within the rounds: a machine that is shared is slow for a while and
    then fast again, which both meet alike in a round. Where one ran in fewer rounds, for it is
    slow, the ratio of the medians.
    """
    ours, theirs = seconds[name], seconds[reference]
    if len(ours) != len(theirs):
        return median(ours) / median(theirs)
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def summary(seconds: Mapping[str, Sequence[float]], *references: str) -> list[tuple]:
    """Return a row a contestant: name, runs, median, min, max, and its ratio to each reference."""
    return [
        (
            name,
            len(t),
            *(f"{s:.3f} s" for s in (median(t), min(t), max(t))),
            *(f"{ratio(seconds, name, reference):.2f}" for reference in references),
        )
        for name, t in seconds.items()
    ]


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return aligned plain text: the first column to the left, the others to the right."""
    lines = [[str(value) for value in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def verdict_table(verdicts: Iterable[Verdict]) -> str:
    """Return the verdicts as aligned text, and below it the reasons of those that are missed."""
    verdicts = list(verdicts)
    rows = [
        (
            v.what,
            f"{_short(v.measured)} {v.unit}".rstrip(),
            f"{v.relation} {v.limit:g} {v.unit}".rstrip(),
            "met" if v.met else "MISSED",
        )
        for v in verdicts
    ]
    reasons = [f"{v.what}: {v.reason}" for v in verdicts if v.reason and not v.met]
    return "\n".join([table(("what", "measured", "limit", "verdict"), rows), *reasons])


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def make_parser(script: str, description: str) -> argparse.ArgumentParser:
    """Return a parser for the options of a script (its name, without .py), with ``--json``."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{script}", description=description.partition("\n")[0]
    )
    parser.add_argument("--json", type=new_file, help="also write everything to this file")
    return parser


def add_repeat(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--repeat``, for `race`."""
    parser.add_argument("--repeat", type=count, help="runs of each (5; 9 for those below 2 s)")


def count(text: str) -> int:
    """Return a number of runs from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} runs tell nothing; 1 is the least")
    return number


def square(text: str) -> int:
    """Return the square of a whole number from the command line."""
    number = count(text)
    if math.isqrt(number) ** 2 != number:
        raise argparse.ArgumentTypeError(f"{number} is not the square of a whole number")
    return number


def new_file(text: str) -> Path:
    """Return a path from the command line at which a file can be written after a long run."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def conclude(report: dict[str, Any], json_path: Path | None = None) -> dict[str, Any]:
    """End a script: print the verdicts in its report, write it if asked to, and return it."""
    print(f"\n{verdict_table(report['verdicts'])}", flush=True)
    if json_path:
        write_json(json_path, report)
    return report


def alone(main: Callable[[], dict[str, Any]]) -> None:
    """Run a script from the shell: its tables, then the machine and the versions."""
    print(f"\n{facts(main()['environment'])}")


def write_json(path: Path, report: Any) -> None:
    """Write a report for machines; a verdict says there whether it is met."""
    path.write_text(json.dumps(report, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Verdict):
        return {**asdict(value), "met": value.met}
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


def environment() -> dict[str, Any]:
    """Return the machine and the versions, for a record of what the times mean."""
    return {
        "cpu": _cpu_name(),
        "cores": CPU_COUNT,
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: found for name in _LIBRARIES if (found := _version(name))},
    }


def facts(values: Mapping[str, Any]) -> str:
    """Return a mapping in lines of "key  value"."""
    width = max(map(len, values))
    return "\n".join(f"{key:<{width}}  {value}" for key, value in values.items())


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
