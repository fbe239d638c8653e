"""Run the benchmarks that take less than five minutes and print their tables."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

__all__ = ["main", "scripts"]

_MINUTES = 5


def scripts() -> dict[str, ModuleType]:
    """Return the benchmarks by name: the modules bench_*.py beside this one."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    return {name: import_module(f"{__package__}.{name}") for name in names}


def main() -> None:
    for name, script in scripts().items():
        command = f"python -m {__package__}.{name}"
        if script.MINUTES >= _MINUTES:
            print(f"# {command} takes about {script.MINUTES} minutes; run it by itself\n")
            continue
        print(f"# {command}\n", flush=True)
        script.main([])
        print()


if __name__ == "__main__":
    main()
