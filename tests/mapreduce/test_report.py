import pickle

import numpy as np
import pytest

from mapreduce import Box, Cell, CellFailure, Report
from mapreduce.grid.grid import table_of
from mapreduce.report import CellRecords

CELL = Cell(3, Box(10, 20, 4, 5), Box(8, 18, 8, 9))


@pytest.fixture
def failure():
    try:
        [][1]
    except IndexError as error:
        return CellFailure.of(CELL, error)


def make_records(*indices):
    return CellRecords(table_of(CELL._replace(index=n) for n in indices))


def make_report(failure=None, n=4):
    late, early = make_records(*range(n)[:-3:-1]), make_records(*range(n - 2))
    if failure is not None:
        late.add_failure(failure, 0.5)
    for records in (late, early):
        for index in records.index[len(records.seconds) :].tolist():
            records.add(CELL, 0.25 * (index + 1), CELL.core)
    return Report.of(
        [late, early], token="run-1", n_tiles=2, predicted_bytes=3 * 2**20, peak_bytes=200 * 2**20
    )


def test_a_failure_says_which_cell_what_and_where(failure):
    assert (failure.index, failure.core, failure.expanded) == CELL
    assert failure.error == "IndexError: list index out of range"
    assert "test_report.py" in failure.traceback
    assert str(failure) == (
        "cell 3, core Box(x0=10, y0=20, width=4, height=5): IndexError: list index out of range"
    )


def test_records_in_any_order():
    report = make_report()
    assert (report.n_cells, report.n_tiles, report.failures) == (4, 2, ())
    np.testing.assert_array_equal(report.seconds, [0.25, 0.5, 0.75, 1])
    assert report.predicted_bytes == 3 * 2**20
    assert report.peak_bytes == 200 * 2**20


def test_psfs_of_the_cells(failure):
    records = make_records(7, 8, 9)
    records.add(CELL, 0.1, CELL.expanded)
    records.add_failure(failure, 0.2)
    records.add(CELL, 0.3, CELL.core, "own")
    own = (9, CELL.core, "own")
    assert list(records.components("input")) == [(7, CELL.expanded, "input"), own]
    assert list(records.components(None)) == [own]
    assert list(pickle.loads(pickle.dumps(records)).components(None)) == [own]


def test_text(failure):
    assert str(make_report(failure)).splitlines() == [
        "cells: 4 in 2 tiles, 1 failed",
        "mapper: 2 s in all, 500 ms a cell (median), 750 ms the slowest",
        "memory: 3 MiB a task predicted, 200 MiB peak of a process",
        f"failed: {failure}",
    ]


def test_html(failure):
    html = make_report(failure)._repr_html_()
    assert "<th style='text-align:left'>cell 3, core Box(" in html
    assert "IndexError: list index out of range" in html


@pytest.mark.parametrize("same", [True, False])
def test_many_failures_are_told_in_few_lines(same):
    failures = [
        CellFailure(
            i, CELL.core, CELL.expanded, f"ValueError: no {'stars' if same else i}" * 99, ""
        )
        for i in range(4096)
    ]
    records = CellRecords(table_of([CELL._replace(index=i) for i in range(4096)]))
    for failure in failures:
        records.add_failure(failure, 0.0)
    report = Report.of([records], token="run-1", n_tiles=2, predicted_bytes=0, peak_bytes=0)
    for text in (str(report), report._repr_html_(), repr(report)):
        assert len(text) < 15_000
    line = str(report).splitlines()[3]
    if same:
        assert line.startswith(
            "failed: cells 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 4086 more: ValueError"
        )
    else:
        assert line.startswith("failed: cell 0, core Box(")
        assert str(report).endswith("failed: 4086 cells more: 4086 other errors")
    assert repr(report) == "<Report of 4096 cells in 2 tiles, 4096 failed>"


def test_html_escapes():
    failure = CellFailure.of(CELL, ValueError("<script>"))
    assert "<script>" not in make_report(failure)._repr_html_()


def test_without_cells():
    report = make_report(n=0)
    assert report.n_cells == 0
    assert "0 in 2 tiles" in str(report)


def test_an_exception_with_several_lines():
    failure = CellFailure.of(CELL, ValueError("one\ntwo"))
    assert failure.error == "ValueError: one\ntwo"


def test_equal_runs_have_equal_reports(failure):
    assert make_report(failure) == make_report(failure)
    assert make_report() != make_report(failure)


def test_pickle(failure):
    report = make_report(failure)
    twin = pickle.loads(pickle.dumps(report))
    assert twin == report
    assert twin.failures[0].traceback == failure.traceback
    np.testing.assert_array_equal(twin.seconds, report.seconds)
    assert (twin.token, twin.peak_bytes) == (report.token, report.peak_bytes)


@pytest.mark.parametrize("index", [0, 3, 99])
def test_replay_without_the_run(index, failure):
    for report in (make_report(), make_report(failure)):
        with pytest.raises(RuntimeError, match="in the process that started the run"):
            report.replay(index)
