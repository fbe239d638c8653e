"""A child that tries cases: numbers of cases come in by lines, verdicts go out by lines.

It gives itself limits of memory and of the size of files, and notes whatever it is made to write
outside of the folder of the case. A case that takes too long is broken off by an alarm, or by the
parent.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any
from unittest.mock import patch

from .doors import DOORS as EXPOSURES
from .doors import Door, Inconsistent
from .mutations import LOST, Files, mutated
from .tables import TABLES

DOORS = (*EXPOSURES, *TABLES)

MEMORY = 2**30  # bytes more than after the imports
LARGEST = 2**26  # bytes of a file
SECONDS = 10


class OutOfTimeError(BaseException):
    """A case has taken too long."""


class Watch:
    """What is written outside of one folder, by way of Python."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.outside: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "open":
            path, mode, flags = args
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or (
                isinstance(mode, str) and bool({*mode} & {*"wax+"})
            )
            paths = [path] if writes else []
        elif event in ("os.rename", "os.link", "os.symlink"):
            paths = [*args[:2]]
        elif event in ("os.mkdir", "os.remove", "os.rmdir"):
            inside = f"/proc/self/fd/{args[-1]}" if args[-1] >= 0 else ""  # a folder that is open
            paths = [os.path.join(inside, os.fsdecode(args[0]))]
        elif event in ("os.truncate", "os.chmod"):
            paths = [args[0]]
        elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
            self.outside.append(f"{event} {args[0]}")
            return
        else:
            return
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                full = os.path.realpath(os.fsdecode(path))
                if not full.startswith(self.folder) and full != os.devnull:
                    self.outside.append(f"{event} {full}")


def seeds(folder: Path) -> dict[str, Files]:
    """Make the files of every door's seed; return them by name."""
    made = {}
    for number, door in enumerate(DOORS):
        place = folder / str(number)
        place.mkdir(parents=True)
        with patch("time.time", return_value=1e9):  # which gzip puts into what it makes
            door.make(place)
        made[door.name] = {
            str(path.relative_to(place)): path.read_bytes()
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }
    return made


def case(seed: int, number: int, made: dict[str, Files]) -> tuple[Door, str, Files]:
    """Return the door, the kind of damage and the files of a case: always the same ones."""
    random = Random(f"{seed} {number}")
    door = random.choice(DOORS)
    return door, *mutated(made[door.name], random)


def lay_out(files: Files, folder: Path) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def verdict(door: Door, kind: str, folder: Path, expected: Any, watch: Watch) -> tuple[str, str]:
    """Use the files in a folder; return the verdict, and what there is to say."""
    watch.outside.clear()
    watch.folder = os.path.realpath(folder)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(record=True, action="always") as caught:
            found = door.use(folder)
        warned = [str(warning.message) for warning in caught]
        said = _compared(found, expected, kind in LOST and not door.sparse, warned, folder)
    except OutOfTimeError:
        said = "HANG", "".join(traceback.format_exc().splitlines()[-8:])
    except Inconsistent as error:
        said = "WRONG", str(error)
    except BaseException as error:
        said = _error(error, folder)
    finally:
        signal.alarm(0)
        watch.folder = None
    return ("WROTE OUTSIDE", ", ".join(watch.outside[:5])) if watch.outside else said


def _compared(
    found: Any, expected: Any, lost: bool, warned: Sequence[str], folder: Path
) -> tuple[str, str]:
    if found == expected:
        return "read right", ""
    if any(_is_named(text, folder) for text in warned):
        return "read, warned", ""
    return ("WRONG", "what is lost reads as data") if lost else ("read, consistent", "")


def _error(error: BaseException, folder: Path) -> tuple[str, str]:
    text = f"{_last(error)}: {error}"
    if "MemoryError" in text:
        return "MEMORY", text
    named = _is_named(str(error), folder) and isinstance(error, Exception)
    return "named error" if named else "UNNAMED", text


def _is_named(text: str, folder: Path) -> bool:
    """Whether a text names a file of a folder, or the folder: another file may be at fault."""
    return str(folder) in text or any(path.name in text for path in folder.iterdir())


def _last(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/mapreduce/" in f.filename or "/calibration/" in f.filename]
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in (ours[-1:] + frames[-1:])]
    return f"{type(error).__name__} at {' '.join(places)}"


def _broken_off(signum: int, frame: FrameType | None) -> None:
    raise OutOfTimeError


def main(seed: int, work: Path) -> None:
    """Try the cases whose numbers come in."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    os.chdir(work)
    made = seeds(work / "seeds")
    watch = Watch()
    signal.signal(signal.SIGALRM, _broken_off)
    expected = {}
    for number, door in enumerate(DOORS):
        expected[door.name] = door.use(work / "seeds" / str(number))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    print("ready", flush=True)
    for line in sys.stdin:
        number = int(line)
        door, kind, files = case(seed, number, made)
        folder = work / f"case{number}"
        lay_out(files, folder)
        result, text = verdict(door, kind, folder, expected[door.name], watch)
        shutil.rmtree(folder)
        print(json.dumps([number, door.name, kind, result, text]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
