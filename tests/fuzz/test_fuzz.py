"""Two hundred cases of fuzzing, the same ones every time; `make fuzz` tries ten thousand."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from functools import cache
from random import Random

import pytest

from tests.fuzz import doors, run, worker
from tests.fuzz.mutations import mutated
from tests.fuzz.tables import TABLES

CASES, SEED = 200, 20


@pytest.mark.slow
def test_damaged_files():
    results = list(run.fuzz(CASES, SEED))
    assert len(results) == CASES
    assert [result for result in results if result.bad] == []


@cache
def watch():
    return worker.Watch()


@pytest.mark.parametrize("door", TABLES, ids=lambda door: door.name)
def test_damaged_tables(tmp_path, door):
    """A few of them, in this process."""
    seed = tmp_path / "seed"
    seed.mkdir()
    door.make(seed)
    files = {path.name: path.read_bytes() for path in seed.iterdir()}
    expected = door.use(seed)
    verdicts = []
    for number in range(2 if "run" in door.name else 8):
        kind, changed = mutated(files, Random(f"{door.name} {number}"))
        folder = tmp_path / f"case{number}"
        worker.lay_out(changed, folder)
        verdicts.append((number, kind, *worker.verdict(door, kind, folder, expected, watch())))
    assert [verdict for verdict in verdicts if verdict[2].isupper()] == []


def trial(use, tmp_path, kind="truncated", sparse=False):
    """Return the verdict on a reader."""
    return worker.verdict(doors.Door("it", None, use, sparse), kind, tmp_path, "good", watch())[0]


def fail(error):
    def use(folder):
        raise error(folder / "a.fits")

    return use


def warn(folder):
    warnings.warn(f"{folder}/a.fits: there is no PSF", stacklevel=2)


def test_verdicts(tmp_path, monkeypatch):
    assert trial(lambda folder: "good", tmp_path) == "read right"
    assert trial(lambda folder: "other", tmp_path) == "read, consistent"
    assert trial(lambda folder: "other", tmp_path, "chunk gone") == "WRONG"
    assert trial(lambda folder: "other", tmp_path, "chunk gone", sparse=True) == "read, consistent"
    assert trial(warn, tmp_path, "chunk gone") == "read, warned"
    assert trial(fail(doors.Inconsistent), tmp_path) == "WRONG"
    assert trial(fail(OSError), tmp_path) == "named error"
    assert trial(lambda folder: {}["ZTILE1"], tmp_path) == "UNNAMED"
    assert trial(fail(MemoryError), tmp_path) == "MEMORY"
    assert trial(fail(worker.OutOfTimeError), tmp_path) == "HANG"
    outside = tmp_path / "outside"
    (tmp_path / "case").mkdir()
    wrote = trial(lambda folder: (outside.write_text(""), folder / "inside"), tmp_path / "case")
    assert wrote == "WROTE OUTSIDE"


def test_a_case_is_known_by_its_number(tmp_path):
    made = worker.seeds(tmp_path / "one")
    assert made == worker.seeds(tmp_path / "two")
    cases = [worker.case(3, number, made) for number in range(50)]
    assert cases == [worker.case(3, number, made) for number in range(50)]
    assert len({(door.name, kind) for door, kind, _ in cases}) > 20


@pytest.mark.parametrize(
    ("end", "patience", "verdict"), [("os.abort()", 99, "CRASH"), ("time.sleep(99)", 0.1, "HANG")]
)
def test_a_child_that_ends_is_noticed(monkeypatch, end, patience, verdict):
    child = object.__new__(run.Child)
    code = f"import os, time; input(); {end}"
    pipe = subprocess.PIPE
    child._process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
    )
    child._errors = open(os.devnull, "wb")
    monkeypatch.setattr(run, "PATIENCE", patience)
    assert child.ask(1) == verdict


def test_the_table_counts_verdicts():
    results = [
        run.Result(0, "a door", "a kind", "read right", ""),
        run.Result(1, "a door", "another", "HANG", "at ..."),
    ]
    text = run.table(results)
    assert [result.bad for result in results] == [False, True]
    assert (
        text.splitlines()[-1]
        == "1 read right, 0 read, consistent, 0 read, warned, 0 named error, 1 HANG"
    )
