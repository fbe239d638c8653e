"""What is missing in a run costs the row that it is of, and is named; whatever the tables are."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from astropy.table import MaskedColumn, Table

from calibration.run.observations import StarObservations
from calibration.run.opened import names_in
from calibration.run.problems import RunWarning
from calibration.run.run import FgcmRun
from calibration.tables.files import write_table
from tests.calibration.fgcm_cases import RUN, tables
from tests.calibration.products_cases import VISIT, make_products

HOLDERS = ("memory", "pandas", ".fits", ".parquet")


def with_missing(table, holder, column, row, folder):
    """Return a table, held in some way, with a value that is missing."""
    table[column] = MaskedColumn(table[column], copy=True)
    table[column].mask[row] = True
    if holder == "memory":
        return table
    if holder == "pandas":
        columns = {n: list(table[n]) for n in table.colnames}
        columns[column] = [None if i == row else v for i, v in enumerate(table[column].tolist())]
        frame = pd.DataFrame(columns)
        frame.attrs = dict(table.meta)
        whole = table[column].dtype.kind in "iu"
        return frame.astype({column: "Int64"}) if whole else frame
    write_table(folder / f"a{holder}", table)
    return folder / f"a{holder}"


def opened(**parts):
    """Return a run, and what it warns of."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        run = FgcmRun.open(RUN, **parts)
    return run, [str(w.message) for w in caught if issubclass(w.category, RunWarning)]


@cache
def usual():
    return opened()


KEYS = [("zeropoints", "visit"), ("visits", "visit"), ("atmosphere_parameters", "visit")]


@pytest.mark.parametrize(
    ("holder", "name", "column"),
    [*((h, "zeropoints", "detector") for h in HOLDERS), *(("memory", *key) for key in KEYS)],
)
def test_rows_without_a_visit_or_detector(tmp_path, holder, name, column):
    (expected, quiet), table = usual(), tables()[name]
    row = int(np.flatnonzero(table["visit"] == VISIT)[0])
    run, said = opened(**{name: with_missing(table, holder, column, row, tmp_path)})
    where = run.catalogs[name].where
    what = "a visit or detector" if name == "zeropoints" else "a visit"
    assert f"{where}: 1 row without {what}, row {row}; they are not used" in said
    assert len(said) >= len(quiet) + 1
    assert [v for v in run.usable() if v != VISIT] == [v for v in expected.usable() if v != VISIT]
    if name == "zeropoints":
        rows, before = run.zeropoint_rows(VISIT), expected.zeropoint_rows(VISIT)
        assert rows["detector"].tolist() == before["detector"].tolist()[1:]
        assert rows["fgcmZpt"].tolist() == before["fgcmZpt"].tolist()[1:]
    elif name == "visits":
        assert VISIT not in run.visit_ids
    else:
        assert run.problems(VISIT) == {name: "there are no rows"}


def test_flags_numbers_and_texts_that_are_missing(tmp_path):
    expected = make_products().photo_calibs[VISIT].compute()
    made = tables()
    for holder, column in ((".parquet", "fgcmFlag"), (".fits", "fgcmZpt")):
        table = made["zeropoints"].copy()
        at = (table["visit"] == VISIT) & (table["detector"] == expected.detectors[0])
        row = int(np.flatnonzero(at)[0])
        run, _ = opened(zeropoints=with_missing(table, holder, column, row, tmp_path))
        why = "fgcmFlag is missing" if column == "fgcmFlag" else "fgcmZpt is not finite"
        lazy = make_products(run).photo_calibs[VISIT]
        with pytest.warns(match=f"no calibration of detector {expected.detectors[0]} .{why}"):
            found = lazy.compute()
        assert found.detectors.tolist() == expected.detectors.tolist()[1:]
    visits, stars = made["visits"], made["standard_stars"]
    row = int(np.flatnonzero(visits["visit"] == VISIT)[0])
    visits = with_missing(visits, "memory", "physicalFilter", row, tmp_path)
    stars = with_missing(stars, "pandas", "id", 3, tmp_path)
    run, said = opened(visits=visits, standard_stars=stars)
    assert any(f"of visits {VISIT} are not in" in text for text in said)
    assert any("1 stars have a id that is missing" in text for text in run.check())


def test_many_rows_without_a_visit():
    table = tables()["zeropoints"]
    table["visit"] = MaskedColumn(table["visit"], mask=np.arange(len(table)) % 2 == 0)
    run, said = opened(zeropoints=table)
    count = (len(table) + 1) // 2
    rows = "rows 0, 2, 4, 6, 8, 10, 12, 14, 16, 18"
    text = f"the zeropoints: {count} rows without a visit or detector, {rows} and {count - 10} more"
    assert any(said_.startswith(text) for said_ in said)
    known = np.asarray(table["visit"])[1::2]
    for visit in run.usable("zeropoints"):
        rows = run.zeropoint_rows(int(visit), ["visit"])["visit"]
        assert rows.tolist() == [visit] * int(np.sum(known == visit))


def test_observations_of_no_star():
    columns = {name: [1, 2, 3] for name in ("visit", "detector", "x", "y")}
    columns |= {"instFlux": [10.0, 40.0, None], "instFluxErr": [1.0, 1.0, 1.0]}
    stars = StarObservations(columns | {"fgcm_id": [7, None, 5]})
    (block,) = stars.blocks()
    assert (stars.n_stars, block.star.tolist(), block.visit.tolist()) == (2, [1, 0], [1, 3])
    assert np.isnan(block.flux).tolist() == [False, True]


def test_names_however_they_are_written():
    for value in ("g,r", " g , r ", ["g", "r"], ("g ", b"r"), "['g', 'r']", '["g", "r"]', b"g,r"):
        assert names_in(value) == ("g", "r")
    table = Table({"a": [1]}, meta={"BANDS": ["g", "r"]})
    assert names_in(table.meta["BANDS"]) == ("g", "r")
