"""The benchmarks run, and time only what is right. Nothing here looks at a time."""

from __future__ import annotations

import json
from types import SimpleNamespace

import dask
import numpy as np
import pytest

import mapreduce as mr
from benchmarks import __main__ as package
from benchmarks import bench_map_reduce, bench_mappers, bench_survey, clusters, costly, helpers
from benchmarks.contestants import BAD_BITS, LIBRARIES, PEERS, REDUCING, absent
from benchmarks.helpers import Verdict, check_equal, make_planes, race, ratio, summary, table
from benchmarks.peers import lazy_map_overlap
from calibration import build_products
from calibration.products import write
from calibration.simulate.run import simulate_camera, simulate_run
from mapreduce.mappers.filters import gaussian_filter

QUICK = ["--skip", "ray", "--skip", "daisy"]  # which start processes


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch):
    """Leave out what takes most of a run at a tiny size, and matters for the times only."""
    monkeypatch.setattr(helpers.gc, "collect", lambda: 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", package.scripts())
def test_every_script_runs_and_prints_its_verdicts(name, capsys):
    script = package.scripts()[name]
    report = script.main(script.SMOKE)
    out = capsys.readouterr().out
    assert script.MINUTES > 0
    assert report["environment"]["cores"] >= 1
    assert report["verdicts"]
    for verdict in report["verdicts"]:
        assert np.isfinite(verdict.measured)
        assert verdict.what in out


# All of them


def fake(name, minutes, *verdicts):
    def main(argv):
        print(f"{name} with {argv}")
        return {"environment": {"cores": 2}, "verdicts": list(verdicts)}

    return SimpleNamespace(MINUTES=minutes, SMOKE=["--little"], main=main)


@pytest.fixture
def two(monkeypatch):
    scripts = {
        "bench_a": fake("bench_a", 1, Verdict("a / b", 1.0, "<=", 2.0)),
        "bench_long": fake("bench_long", 30, Verdict("c / d", 1.0, ">=", 2.0)),
    }
    monkeypatch.setattr(package, "scripts", lambda: scripts)


@pytest.mark.usefixtures("two")
def test_all_runs_what_is_short_and_names_the_rest(capsys):
    assert package.main([]) == 0
    out = capsys.readouterr().out
    assert "bench_a with []" in out
    assert "bench_long with" not in out
    assert "benchmarks.bench_long takes about 30 minutes" in out
    assert out.count("met") == 1
    assert out.count("cores") == 1


@pytest.mark.usefixtures("two")
def test_only_runs_long_ones_too(capsys):
    package.main(["--only", "long"])
    out = capsys.readouterr().out
    assert "bench_long with []" in out
    assert "bench_a" not in out


@pytest.mark.usefixtures("two")
def test_smoke_runs_all_of_them_a_little(capsys):
    package.main(["--smoke"])
    assert capsys.readouterr().out.count("with ['--little']") == 2


@pytest.mark.usefixtures("two")
def test_strict_fails_where_a_limit_is_missed(capsys):
    assert package.main(["--strict", "--only", "bench_a"]) == 0
    assert package.main(["--only", "bench_long"]) == 0
    assert package.main(["--strict", "--only", "bench_a", "--only", "bench_long"]) == 1
    assert "MISSED" in capsys.readouterr().out


@pytest.mark.usefixtures("two")
def test_list_runs_nothing(capsys):
    assert package.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert "bench_long" in out
    assert "with" not in out


@pytest.mark.usefixtures("two")
def test_everything_can_be_written_for_machines(tmp_path):
    path = tmp_path / "all.json"
    package.main(["--json", str(path)])
    (verdict,) = json.loads(path.read_text())["bench_a"]["verdicts"]
    assert verdict["met"] is True
    assert verdict["limit"] == 2


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "b"], "no bench_b; there are bench_a, bench_long"),
        (["--plot", "scaling.png"], "not among the scripts"),
        (["--json", "no/such/folder/all.json"], "there is no folder"),
    ],
)
def test_all_refuses(argv, message, capsys):
    with pytest.raises(SystemExit):
        package.main(argv)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_scaling_is_drawn(tmp_path, monkeypatch):
    report = {
        "environment": {"cores": 2},
        "verdicts": [],
        "cells": [{"cells": 100, "seconds": [1.0]}, {"cells": 1000, "seconds": [9.0, 11.0]}],
        "sizes": [{"size": 100, "seconds": [1.0]}],
    }
    script = SimpleNamespace(MINUTES=1, SMOKE=[], main=lambda argv: report)
    monkeypatch.setattr(package, "scripts", lambda: {"bench_scaling": script})
    path = tmp_path / "scaling.png"
    pytest.importorskip("matplotlib")
    package.main(["--plot", str(path)])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_figure_says_what_it_needs_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        package.main(["--plot", "scaling.png"])
    assert "needs matplotlib" in capsys.readouterr().err


# Verdicts


@pytest.mark.parametrize(
    ("measured", "relation", "met"),
    [
        (1.0, "<=", True),
        (1.1, "<=", False),
        (1.0, ">=", True),
        (0.9, ">=", False),
        (np.nan, "<=", False),
        (np.nan, ">=", False),
    ],
)
def test_a_verdict_keeps_to_its_limit(measured, relation, met):
    assert Verdict("x", measured, relation, 1.0).met is met


def test_a_verdict_knows_two_relations():
    with pytest.raises(ValueError, match="'<='"):
        Verdict("x", 1.0, "<", 2.0)


def test_verdicts_are_printed_with_limit_unit_and_reason():
    verdicts = [
        Verdict("memory", 812.4, "<=", 1000, "MB", reason="not told where it is met"),
        Verdict("a / b", 1234.5, ">=", 2000, reason="b is fast"),
    ]
    assert helpers.verdict_table(verdicts).splitlines() == [
        "what    measured       limit  verdict",
        "memory  812.4 MB  <= 1000 MB      met",
        "a / b       1234     >= 2000   MISSED",
        "a / b: b is fast",
    ]


# Trivial mapper


@pytest.mark.slow
def test_map_reduce_records_all_that_it_prints(tmp_path, capsys):
    path = tmp_path / "times.json"
    bench_map_reduce.main(["--size", "130", "--repeat", "2", "--json", str(path), *QUICK])
    report = json.loads(path.read_text())
    assert report["environment"]["cores"] >= 1
    assert [(run["cell"], run["cells"]) for run in report["runs"]] == [(256, 1), (64, 9)]
    peers = PEERS.keys() - {"ray", "daisy", *absent()}
    timed = {f"{name} {reducer}" for name in REDUCING for reducer in ("average", "copy")} | peers
    for run in report["runs"]:
        assert run["seconds"].keys() == timed
    assert {len(t) for t in report["runs"][0]["seconds"].values()} == {2}
    graph = report["graphs"][1]
    assert graph["cells"] == 9
    assert graph["tasks"]["map_overlap"] > graph["tasks"]["skyfold"] > 0
    assert len(report["verdicts"]) == 18
    out = capsys.readouterr().out
    assert out.count("agree exactly") == 2
    assert out.count("factor") == 2


@pytest.mark.slow
def test_map_reduce_can_skip_and_says_what_is_absent(monkeypatch, capsys):
    monkeypatch.setitem(LIBRARIES, "joblib", "no_such_library")
    skip = ["--skip", "map_overlap", "--skip", "original"]
    report = bench_map_reduce.main([*bench_map_reduce.SMOKE, *skip])
    times = report["runs"][0]["seconds"].keys()
    assert not {"map_overlap", "original average", "original copy", "joblib"} & times
    assert not any("original" in verdict.what for verdict in report["verdicts"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "joblib" in line)
    assert line.endswith("ABSENT")


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


def test_map_reduce_judges_ours_against_each_of_them():
    seconds = {
        "skyfold average": [2.0],
        "skyfold copy": [1.0],
        "ideal": [2.0],
        "original average": [8.0],
        "original copy": [2.0],
    }
    runs = [{"cell": 256, "border": 32, "seconds": seconds, "bare": 0.75}]
    verdicts = bench_map_reduce.verdicts(runs, [{"ready": {"skyfold": [0.5]}}])
    assert {v.what: (v.measured, v.relation, v.limit, v.met) for v in verdicts} == {
        "cells 256/32, average: ours / ideal": (1, "<=", 1.6, True),
        "cells 256/32, average: original / ours": (4, ">=", 4, True),
        "cells 256/32, copy: ours / ideal": (0.5, "<=", 1.6, True),
        "cells 256/32, copy: original / ours": (2, ">=", 4, False),
        "cells 256/32: building the graph / run": (0.25, "<=", 0.05, False),
    }
    reasons = {v.what: v.reason for v in verdicts if not v.met}
    assert reasons["cells 256/32, copy: original / ours"] == (
        "the ideal is 1.00 times faster than that"
    )


@pytest.mark.parametrize("reducer", ["average", "copy"])
@pytest.mark.parametrize("name", ["original", "lean", "skyfold_sync"])
def test_contestants_with_a_reducer_keep_the_original_rules(name, reducer):
    """Overlapping cells and missing pixels too, which the benchmark itself leaves out."""
    planes = make_planes(100)
    planes.image[10, 20] = planes.variance[50, 50] = np.nan
    planes.image[70, 80], planes.variance[70, 80] = np.inf, 0
    grid = mr.GridConfig(30, border=4, adjust="spacing").build(mr.Box(0, 0, 100, 100))
    expected = REDUCING["skyfold"](planes, grid, reducer)
    check_equal(expected, name, REDUCING[name](planes, grid, reducer))
    assert (expected.mask & BAD_BITS == BAD_BITS).sum() == 3


def test_contestants_leave_the_input_alone():
    planes = make_planes(50)
    before = [plane.copy() for plane in planes]
    grid = mr.GridConfig(25, border=5).build(mr.Box(0, 0, 50, 50))
    skip = {"ray", "daisy", *absent()}
    for contestant in bench_map_reduce.contestants(planes, grid, skip).values():
        result = contestant()
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
        (
            lambda p: p._replace(variance=p.variance + 1),
            "lean gives another variance .* at 16 pixels",
        ),
        (lambda p: p._replace(mask=p.mask.astype(np.int64)), "lean gives mask as int64"),
        (lambda p: p._replace(image=p.image[:2]), r"lean gives image as float32 \(2, 4\)"),
    ],
)
def test_a_wrong_result_is_not_timed(change, message):
    planes = make_planes(4)
    with pytest.raises(RuntimeError, match=message):
        check_equal(planes, "lean", change(planes))


def test_nan_is_equal_to_nan():
    planes = make_planes(4)
    planes.image[1, 1] = np.nan
    check_equal(planes, "lean", planes)


def test_graph_factors_are_theirs_over_ours():
    rows = bench_map_reduce.graph_rows(
        built={"skyfold": [0.001], "map_overlap": [0.004]},
        ready={"skyfold": [0.002], "map_overlap": [0.5, 1.0, 1.5]},
        tasks={"skyfold": 49, "map_overlap": 980},
        blocks={"skyfold": 16, "map_overlap": 64},
    )
    assert rows[0] == ("skyfold", "1.0 ms", "2.0 ms", 49, 16, "3.1")
    assert rows[-1] == ("factor", "4.00", "500.00", "20.00", "4.00", "")


# Mappers that cost something


def test_a_stopwatch_adds_up_the_calls_of_its_mapper():
    costly.take_spent()
    whole = mr.Exposure(np.ones((4, 4)))
    watched = costly.Stopwatch(lambda sub, expanded, full_bbox: sub.bbox)
    assert [watched(whole, whole, whole.bbox) for _ in range(3)] == [whole.bbox] * 3
    spent = costly.take_spent()
    assert spent.calls == 3
    assert spent.wall > 0
    assert costly.take_spent() == (0, 0, 0)


def test_the_fft_filter_smooths_as_the_gaussian_does():
    planes = make_planes(64)
    whole = mr.Exposure(planes.image)
    smooth = costly.fft_gaussian(whole, whole, whole.bbox)
    gaussian = gaussian_filter(whole, whole, whole.bbox, sigma=3.0)
    np.testing.assert_allclose(smooth.image, gaussian.image, rtol=1e-4)
    assert smooth.image.dtype == np.float32


def test_despike_replaces_what_is_far_above_its_neighbors():
    image = np.arange(20, dtype=np.float32).reshape(4, 5)
    image[1, 2] += 500
    np.testing.assert_array_equal(costly.despike(image), np.arange(20).reshape(4, 5))
    image[1, 2] -= 400
    np.testing.assert_array_equal(costly.despike(image), image)


def test_mappers_are_judged_by_the_median_within_the_runs():
    runs = [bench_mappers.Run(wall, own, 0.5) for wall, own in ((2, 1), (3, 3), (9, 3))]
    assert bench_mappers.rows({"ours": runs}) == [
        ("ours", 3, "3.000 s", "3.000 s", "0.500 s", "2.000", "6.000")
    ]
    assert bench_mappers.verdict("x", runs, 2.0).met
    assert not bench_mappers.verdict("x", runs, 1.9).met


def test_a_mapper_that_runs_too_often_is_not_timed():
    exposure = mr.Exposure(*make_planes(32))
    ours = bench_mappers.on_threads(exposure, costly.fft_gaussian)["skyfold"]
    twice = ours._replace(run=lambda: (ours.run(), ours.run())[1])
    with pytest.raises(RuntimeError, match="twice called the mapper 2 times for 1 cells"):
        bench_mappers.measure({"twice": twice}, exposure, costly.fft_gaussian, 1)


# A survey


@pytest.mark.parametrize("name", bench_survey.LAYOUTS)
def test_layouts_hand_out_every_visit(name, monkeypatch):
    monkeypatch.setattr(bench_survey, "BATCH", 4)
    layout = bench_survey.LAYOUTS[name](50)
    each = -(-layout.visits // layout.grouped)
    with dask.config.set(scheduler="synchronous"):
        assert bench_survey.run_layout(layout) == 2 * each


def test_a_layout_that_loses_visits_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench_survey, "do_nothing", lambda *args: [])
    with dask.config.set(scheduler="synchronous"), pytest.raises(RuntimeError, match="visits 0"):
        bench_survey.run_layout(bench_survey.Layout(2, 2))


@pytest.mark.slow
def test_tasks_of_today_are_as_many_as_products_have(tmp_path, monkeypatch):
    run = simulate_run(tmp_path / "run", n_visits=5, n_stars=20, camera=simulate_camera(2, 1))
    computed = []
    monkeypatch.setattr(write, "compute", lambda *tasks: computed.append(tasks) or ())
    build_products(run, bench_survey.CONFIG).write(tmp_path / "out")
    assert bench_survey.BATCH == write.BATCH
    assert [len(tasks) for tasks in computed] == [5 * len(bench_survey.PRODUCTS)]


def test_a_line_tells_how_far_a_run_is_off_it():
    assert bench_survey.line([1, 2, 3], [3, 5, 7]) == pytest.approx(
        {"start": 1, "each": 2, "off": 0}, abs=1e-12
    )
    assert bench_survey.line([1, 2, 3], [3, 8, 7])["off"] == pytest.approx(1 / 3)


def test_a_survey_needs_three_sizes(capsys):
    with pytest.raises(SystemExit):
        bench_survey.main(["--visits", "1", "2", "2"])
    assert "fewer than three sizes" in capsys.readouterr().err


def test_workers_are_shared_out_evenly():
    with pytest.raises(ValueError, match="5 workers cannot be shared out evenly to 2 processes"):
        clusters.process_cluster(5, 2).__enter__()


# Timing and tables


def test_race_warms_up_before_it_times():
    order, checked = [], []
    functions = {name: lambda name=name: order.append(name) for name in "AB"}
    seconds = race(functions, repeat=2, check=lambda name, result: checked.append(name))
    assert order[:2] == checked == ["A", "B"]
    assert sorted("".join(order[n : n + 2]) for n in (2, 4)) == ["AA", "BB"]
    assert sorted("".join(order[n : n + 2]) for n in (6, 8)) == ["AA", "BB"]
    assert {name: len(t) for name, t in seconds.items()} == {"A": 2, "B": 2}


@pytest.mark.parametrize(
    ("first", "options", "runs"),
    [
        (0.1, {}, 9),
        (3.0, {}, 5),
        (3.0, {"repeat": 3}, 3),
        (60.0, {}, 1),
        (60.0, {"repeat": 3}, 1),
        (60.0, {"repeat_slow": 2}, 2),
    ],
)
def test_race_repeats_by_the_first_run(first, options, runs, monkeypatch):
    monkeypatch.setattr(helpers, "timed", lambda function: (first, function()))
    calls = []
    seconds = race({"A": lambda: calls.append(1)}, **options)
    assert len(seconds["A"]) == runs
    assert len(calls) == (runs if first == 60 else 2 * runs + 1)


def test_ratio_is_the_median_within_the_rounds():
    assert ratio({"a": [2.0, 8.0, 30.0], "b": [1.0, 2.0, 100.0]}, "a", "b") == 2
    assert ratio({"a": [2.0, 8.0, 30.0], "b": [4.0]}, "a", "b") == 2


def test_summary_is_relative_to_its_references():
    rows = summary({"ours": [1.0, 2.0, 9.0], "theirs": [4.0]}, "ours", "theirs")
    assert rows[0] == ("ours", 3, "2.000 s", "1.000 s", "9.000 s", "1.00", "0.50")
    assert rows[1] == ("theirs", 1, "4.000 s", "4.000 s", "4.000 s", "2.00", "1.00")


def test_table_is_aligned():
    assert table(("who", "n"), [("a", 10), ("longer", 2)]).splitlines() == [
        "who      n",
        "a       10",
        "longer   2",
    ]
