"""Run the benchmarks that take less than five minutes, and judge them in one table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from .helpers import facts, new_file, table, verdict_table, write_json
from .plot import plot_scaling

__all__ = ["main", "scripts"]

_MINUTES = 5
_SCALING = "bench_scaling"


def scripts() -> dict[str, ModuleType]:
    """Return the benchmarks by name: the modules bench_*.py beside this one."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    return {name: import_module(f"{__package__}.{name}") for name in names}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks and return the exit code."""
    found = scripts()
    options = _options(argv, found)
    if options.list:
        print(table(("script", "minutes"), ((name, s.MINUTES) for name, s in found.items())))
        return 0
    reports = run({name: found[name] for name in options.only or found}, options)
    verdicts = [verdict for report in reports.values() for verdict in report["verdicts"]]
    print(f"# All verdicts\n\n{verdict_table(verdicts)}\n\n{_machine(reports)}")
    if options.json:
        write_json(options.json, reports)
    if options.plot:
        plot_scaling(reports[_SCALING], options.plot)
        print(f"\nfigure: {options.plot}")
    return int(options.strict and not all(verdict.met for verdict in verdicts))


def run(chosen: Mapping[str, ModuleType], options: argparse.Namespace) -> dict[str, Any]:
    """Run scripts and return their reports; those that take long only if asked for by name."""
    reports = {}
    for name, script in chosen.items():
        command = f"python -m {__package__}.{name}"
        if script.MINUTES >= _MINUTES and not options.only and not options.smoke:
            print(f"# {command} takes about {script.MINUTES} minutes; run it by itself\n")
            continue
        print(f"# {command}\n", flush=True)
        reports[name] = script.main(script.SMOKE if options.smoke else [])
        print()
    return reports


def _machine(reports: Mapping[str, Any]) -> str:
    return facts(next(iter(reports.values()))["environment"])


def _options(argv: Sequence[str] | None, found: Mapping[str, ModuleType]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--list", action="store_true", help="only name the scripts")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        type=lambda name: name if name.startswith("bench_") else f"bench_{name}",
        help="run this script, however long it takes; can be repeated",
    )
    parser.add_argument("--json", type=new_file, help="also write everything to this file")
    parser.add_argument(
        "--plot", type=new_file, help=f"also draw what {_SCALING} finds, as PNG or PDF"
    )
    parser.add_argument(
        "--strict", action="store_true", help="end with exit code 1 if a limit is missed"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="see whether all run, in seconds; verdicts mean nothing",
    )
    options = parser.parse_args(argv)
    if unknown := sorted({*(options.only or ())} - found.keys()):
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(found)}")
    if options.plot and _SCALING not in (options.only or found):
        parser.error(f"--plot draws what {_SCALING} finds, which is not among the scripts to run")
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install '.[bench]'")
    return options


if __name__ == "__main__":
    sys.exit(main())
