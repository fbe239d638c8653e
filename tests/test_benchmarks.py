"""The benchmarks run, and time only what is right. Nothing here looks at a time."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import mapreduce as mr
from benchmarks import __main__ as package
from benchmarks import bench_map_reduce, helpers
from benchmarks.contestants import BAD_BITS, CONTESTANTS, lazy_map_overlap
from benchmarks.helpers import make_planes, race, summary, table


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch):
    """Leave out what takes most of a run at a tiny size, and matters for the times only."""
    monkeypatch.setattr(helpers.gc, "collect", lambda: 0)


@pytest.mark.parametrize("name", package.scripts())
def test_every_script_runs_and_prints_a_table(name, capsys):
    script = package.scripts()[name]
    script.main(script.SMOKE)
    assert "median" in capsys.readouterr().out
    assert script.MINUTES > 0


def test_all_runs_what_is_short_and_names_the_rest(monkeypatch, capsys):
    def fake(minutes):
        return SimpleNamespace(MINUTES=minutes, main=lambda argv: print(f"took {minutes}"))

    monkeypatch.setattr(package, "scripts", lambda: {"bench_a": fake(1), "bench_b": fake(30)})
    package.main()
    out = capsys.readouterr().out
    assert "took 1" in out
    assert "took 30" not in out
    assert "benchmarks.bench_b takes about 30 minutes" in out


def test_map_reduce_records_all_that_it_prints(tmp_path, capsys):
    path = tmp_path / "times.json"
    bench_map_reduce.main(["--size", "130", "--repeat", "2", "--json", str(path)])
    report = json.loads(path.read_text())
    assert report["environment"]["cores"] >= 1
    assert [(run["cell"], run["cells"], run["reducer"]) for run in report["runs"]] == [
        (256, 1, "average"),
        (256, 1, "copy"),
        (64, 9, "average"),
        (64, 9, "copy"),
    ]
    for run in report["runs"]:
        assert run["seconds"].keys() == CONTESTANTS.keys()
    assert {len(t) for t in report["runs"][0]["seconds"].values()} == {2}
    spacing = report["graphs"][0]
    assert spacing["cells"] == 9
    assert spacing["tasks"]["map_overlap"] > spacing["tasks"]["skyfold"] > 0
    out = capsys.readouterr().out
    assert out.count("agree exactly") == 4
    assert out.count("factor") == 2


def test_map_reduce_can_skip(capsys):
    bench_map_reduce.main([*bench_map_reduce.SMOKE, "--skip", "map_overlap", "--skip", "original"])
    out = capsys.readouterr().out
    assert "map_overlap" not in out
    assert "original " not in out
    assert "All 4 agree exactly" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--size", "64"], "128 is the least"),
        (["--repeat", "0"], "1 is the least"),
        (["--skip", "skyfold"], "invalid choice"),
    ],
)
def test_map_reduce_refuses(argv, message, capsys):
    with pytest.raises(SystemExit):
        bench_map_reduce.main(argv)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("reducer", ["average", "copy"])
@pytest.mark.parametrize("name", ["original", "lean", "skyfold_sync"])
def test_contestants_with_a_reducer_keep_the_original_rules(name, reducer):
    """Overlapping cells and missing pixels too, which the benchmark itself leaves out."""
    planes = make_planes(100)
    planes.image[10, 20] = planes.variance[50, 50] = np.nan
    planes.image[70, 80], planes.variance[70, 80] = np.inf, 0
    grid = mr.GridConfig(30, border=4, adjust="spacing").build(mr.Box(0, 0, 100, 100))
    expected = CONTESTANTS["skyfold"](planes, grid, reducer)
    bench_map_reduce.check_equal(expected, name, CONTESTANTS[name](planes, grid, reducer))
    assert (expected.mask & BAD_BITS == BAD_BITS).sum() == 3


def test_contestants_leave_the_input_alone():
    planes = make_planes(50)
    before = [plane.copy() for plane in planes]
    grid = mr.GridConfig(25, border=5).build(mr.Box(0, 0, 50, 50))
    for contestant in CONTESTANTS.values():
        result = contestant(planes, grid, "average")
        np.testing.assert_array_equal(result.image, before[0] + np.float32(3))
        for plane, old in zip(planes, before, strict=True):
            np.testing.assert_array_equal(plane, old)


def test_map_overlap_has_a_chunk_for_every_cell():
    planes = make_planes(100)
    grid = mr.GridConfig(30, border=4, adjust="spacing").build(mr.Box(0, 0, 100, 100))
    image, variance, mask = lazy_map_overlap(planes, grid)
    assert image.npartitions == variance.npartitions == mask.npartitions == len(grid) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p._replace(variance=p.variance + 1), "lean differs .* in variance at 16 pixels"),
        (lambda p: p._replace(mask=p.mask.astype(np.int64)), "lean gives mask as int64"),
        (lambda p: p._replace(image=p.image[:2]), r"lean gives image as float32 \(2, 4\)"),
    ],
)
def test_a_wrong_result_is_not_timed(change, message):
    planes = make_planes(4)
    with pytest.raises(RuntimeError, match=message):
        bench_map_reduce.check_equal(planes, "lean", change(planes))


def test_nan_is_equal_to_nan():
    planes = make_planes(4)
    planes.image[1, 1] = np.nan
    bench_map_reduce.check_equal(planes, "lean", planes)


def test_graph_factors_are_theirs_over_ours():
    rows = bench_map_reduce.graph_rows(
        built={"skyfold": [0.001], "map_overlap": [0.004]},
        ready={"skyfold": [0.002], "map_overlap": [0.5, 1.0, 1.5]},
        tasks={"skyfold": 49, "map_overlap": 980},
        blocks={"skyfold": 16, "map_overlap": 64},
    )
    assert rows[0] == ("skyfold", "1.0 ms", "2.0 ms", 49, 16, "3.1")
    assert rows[-1] == ("factor", "4.00", "500.00", "20.00", "4.00", "")


def test_race_goes_round_after_a_checked_run():
    order, checked = [], []
    functions = {name: lambda name=name: order.append(name) for name in "AB"}
    seconds = race(functions, repeat=2, check=lambda name, result: checked.append(name))
    assert "".join(order) == "ABABAB"
    assert checked == ["A", "B"]
    assert {name: len(t) for name, t in seconds.items()} == {"A": 2, "B": 2}


@pytest.mark.parametrize(
    ("first", "options", "runs"),
    [
        (0.1, {}, 9),
        (2.0, {}, 5),
        (2.0, {"repeat": 3}, 3),
        (60.0, {}, 1),
        (60.0, {"repeat": 3}, 1),
        (60.0, {"repeat_slow": 2}, 2),
    ],
)
def test_race_repeats_by_the_first_run(first, options, runs, monkeypatch):
    monkeypatch.setattr(helpers, "_timed", lambda function: (first, function()))
    calls = []
    seconds = race({"A": lambda: calls.append(1)}, **options)
    assert len(seconds["A"]) == runs
    assert len(calls) == (runs if first == 60 else runs + 1)


def test_summary_is_relative_to_the_median_of_the_reference():
    rows = summary({"ours": [1.0, 2.0, 9.0], "theirs": [4.0]}, "ours")
    assert rows[0] == ("ours", 3, "2.000 s", "1.000 s", "9.000 s", "1.00")
    assert rows[1] == ("theirs", 1, "4.000 s", "4.000 s", "4.000 s", "2.00")


def test_table_is_aligned():
    assert table(("who", "n"), [("a", 10), ("longer", 2)]).splitlines() == [
        "who      n",
        "a       10",
        "longer   2",
    ]
