"""Fuzzing: damaged files are read in children with limits; a table of the verdicts at the end.

    python -m tests.fuzz.run [--cases N] [--seed S] [--processes P] [--only NUMBER]

A case is known by the seed and its number. ``--only`` tries one in this process and keeps its
files. The exit code is 1 if any verdict is in capitals.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 30  # seconds, after which a child that does not answer its own alarm is ended
VERDICTS = (
    *("read right", "read, consistent", "read, warned", "named error"),
    *("UNNAMED", "WRONG", "HANG", "CRASH", "MEMORY", "WROTE OUTSIDE"),
)


class Result(NamedTuple):
    """What came of one case."""

    number: int
    door: str
    kind: str
    verdict: str
    text: str

    @property
    def bad(self) -> bool:
        return self.verdict.isupper()


class Child:
    """A worker process, started again by whoever needs the next one."""

    def __init__(self, seed: int, work: Path) -> None:
        work.mkdir()
        places = {name: str(work / name.lower()) for name in ("TMPDIR", "HOME")}
        for place in places.values():
            os.mkdir(place)
        self._errors = open(work / "stderr", "wb")
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", "tests.fuzz.worker", str(seed), str(work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=CHECKOUT,
            env={**os.environ, **places, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        )
        if self._line(300) != b"ready\n":
            raise RuntimeError(f"no child: {(work / 'stderr').read_text()}")

    def ask(self, number: int) -> list[object] | str:
        """Return the answer to a case, or how the child ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n".encode())
        self._process.stdin.flush()
        line = self._line(PATIENCE)
        if line:
            return json.loads(line)
        hangs = self._process.poll() is None and line is None
        self.end()
        return "HANG" if hangs else "CRASH"

    def _line(self, seconds: float) -> bytes | None:
        """Return the next line, empty at the end, None where none comes in time."""
        stdout = self._process.stdout
        assert stdout is not None
        return stdout.readline() if select.select([stdout], [], [], seconds)[0] else None

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def fuzz(cases: int, seed: int, processes: int = 2) -> Iterator[Result]:
    """Try cases 0, 1, ... in some children; yield what comes of them as it comes."""
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(cases):
        numbers.put(number)
    results: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
    with TemporaryDirectory(prefix="fuzz") as folder:
        threads = [
            threading.Thread(
                target=_serve, args=(seed, Path(folder, str(i)), numbers, results), daemon=True
            )
            for i in range(processes)
        ]
        for thread in threads:
            thread.start()
        running = processes
        while running:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result
        for thread in threads:
            thread.join()


def _serve(
    seed: int,
    folder: Path,
    numbers: queue.SimpleQueue[int],
    results: queue.SimpleQueue[Result | BaseException | None],
) -> None:
    """Keep one child busy."""
    child, count = None, 0
    folder.mkdir()
    try:
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                break
            if child is None:
                child, count = Child(seed, folder / str(count)), count + 1
            answer = child.ask(number)
            if isinstance(answer, str):
                results.put(_ended(seed, number, answer, folder / str(count - 1)))
                child = None
            else:
                results.put(Result(*answer))  # type: ignore[arg-type]
        results.put(None)
    except BaseException as error:
        results.put(error)
    finally:
        if child is not None:
            child.end()


def _ended(seed: int, number: int, verdict: str, work: Path) -> Result:
    """Return the result of a case that ended its child."""
    from .worker import case, seeds

    with TemporaryDirectory() as folder:
        door, kind, _ = case(seed, number, seeds(Path(folder, "seeds")))
    tail = (work / "stderr").read_text(errors="replace")[-800:]
    return Result(number, door.name, kind, verdict, tail)


def table(results: list[Result]) -> str:
    """Return the verdicts by kind of damage and by door, as text."""
    shown = [v for v in VERDICTS if v in VERDICTS[:4] or any(r.verdict == v for r in results)]
    lines = []
    for title in ("kind", "door"):
        counts = Counter((getattr(result, title), result.verdict) for result in results)
        lines.append(f"{title:<20}" + "".join(f"{verdict:>18}" for verdict in shown))
        for name in sorted({name for name, _ in counts}):
            row = (counts[name, verdict] or "-" for verdict in shown)
            lines.append(f"{name:<20}" + "".join(f"{count:>18}" for count in row))
        lines.append("")
    total = Counter(result.verdict for result in results)
    return "\n".join([*lines, ", ".join(f"{total[v]} {v}" for v in shown)])


def one(seed: int, number: int) -> None:
    """Try a case here, and keep its files."""
    from .worker import case, lay_out, seeds

    with TemporaryDirectory() as folder:
        door, kind, files = case(seed, number, seeds(Path(folder, "seeds")))
    kept = Path(mkdtemp(prefix=f"fuzz-{seed}-{number}-"))
    lay_out(files, kept)
    print(f"{door.name}, {kind}: {kept}", flush=True)
    print(door.use(kept))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    if options.only is not None:
        one(options.seed, options.only)
        return 0
    start, results = time.monotonic(), []
    for result in fuzz(options.cases, options.seed, options.processes):
        results.append(result)
        if result.bad:
            print(f"{result.verdict}: case {result.number}, {result.door}, {result.kind}:", end=" ")
            print(result.text, flush=True)
    print(table(results))
    bad = sum(result.bad for result in results)
    seconds = time.monotonic() - start
    print(f"{len(results)} cases of seed {options.seed} in {seconds:.0f} s; {bad} bad")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
