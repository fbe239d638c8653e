"""Tables in memory as people have them: nothing that is missing becomes a value, or a text."""

from __future__ import annotations

import datetime
import decimal

import astropy.units as u
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from astropy.table import MaskedColumn, QTable, Table
from astropy.time import Time
from astropy.utils.masked import Masked

from calibration.tables.catalog import MISSING, Catalog
from calibration.tables.reader import MemoryTable
from calibration.tables.schema import Column, Schema

LARGE = 2**63 + 1
VALUES = {
    "i2": [1, None, -3],
    "i8": [2**62 + 1, None, -1],
    "u8": [LARGE, None, 1],
    "f4": [1.5, None, -2.0],
    "f8": [1.5, None, np.inf],
    "?": [True, None, False],
    "U": ["nan", None, "None"],
    "arrays": [[1, 2], None, [3, 4]],
}
FULL = {kind: [v for v in values if v is not None] for kind, values in VALUES.items()}
ARROW = {"i2": pa.int16(), "i8": pa.int64(), "u8": pa.uint64(), "f4": pa.float32()}
ARROW |= {"f8": pa.float64(), "?": pa.bool_(), "U": pa.string(), "arrays": pa.list_(pa.int64())}
PANDAS = {"i2": "Int16", "i8": "Int64", "u8": "UInt64", "f4": "Float32", "f8": "Float64"}
PANDAS |= {"?": "boolean", "U": "str", "arrays": object}
POLARS = {"i2": pl.Int16, "i8": pl.Int64, "u8": pl.UInt64, "f4": pl.Float32, "f8": pl.Float64}
POLARS |= {"?": pl.Boolean, "U": pl.String, "arrays": pl.List(pl.Int64)}


def masked_column(kind, values):
    blank = [0, 0] if kind == "arrays" else "" if kind == "U" else 0
    mask = [[v is None] * 2 if kind == "arrays" else v is None for v in values]
    dtype = {"arrays": "i8", "U": None}.get(kind, kind)
    return MaskedColumn([blank if v is None else v for v in values], mask=mask, dtype=dtype)


HOLDERS = {
    "lists": lambda kind, v: {"x": v},
    "objects": lambda kind, v: {"x": np.fromiter(v, object, len(v))},
    "astropy": lambda kind, v: Table({"x": masked_column(kind, v)}),
    "records": lambda kind, v: Table({"x": masked_column(kind, v)}).as_array(),
    "pandas": lambda kind, v: pd.DataFrame({"x": pd.Series(v, dtype=PANDAS[kind])}),
    "pandas objects": lambda kind, v: pd.DataFrame({"x": pd.Series(v, dtype=object)}),
    "pandas arrow": lambda kind, v: pd.DataFrame(
        {"x": pd.Series(v, dtype=pd.ArrowDtype(ARROW[kind]))}
    ),
    "series": lambda kind, v: {"x": pd.Series(v, dtype=PANDAS[kind])},
    "polars": lambda kind, v: pl.DataFrame({"x": pl.Series(v, dtype=POLARS[kind])}),
    "polars series": lambda kind, v: {"x": pl.Series(v, dtype=POLARS[kind])},
    "pyarrow": lambda kind, v: pa.table({"x": pa.array(v, ARROW[kind])}),
    "pyarrow array": lambda kind, v: {"x": pa.array(v, ARROW[kind])},
    "dictionary": lambda kind, v: pa.table({"x": pa.array(v, ARROW[kind]).dictionary_encode()}),
}
UNTYPED = ("lists", "objects", "pandas objects")


@pytest.mark.parametrize("holder", HOLDERS)
def test_every_kind_in_every_holder(holder):
    for missing in (True, False):
        for kind, values in (VALUES if missing else FULL).items():
            if holder == "dictionary" and kind == "arrays":
                continue
            table = MemoryTable(HOLDERS[holder](kind, values), "the table")
            field, found = table.columns["x"], table.read(["x"])["x"]
            expected = [[None] * 2 if v is None and kind == "arrays" else v for v in values]
            assert field.fault == "", (holder, kind)
            if found.dtype.kind == "f":  # in which NaN is missing as well
                found = np.ma.masked_where(np.isnan(found), found)
            assert found.tolist() == expected, (holder, kind)
            wanted = np.dtype("i8" if kind == "arrays" else kind)
            same = found.dtype.kind if holder in UNTYPED or kind == "U" else found.dtype
            assert same == (wanted.kind if holder in UNTYPED or kind == "U" else wanted)
            assert field.shape == ((2,) if kind == "arrays" else ())


def test_what_cannot_be_read_says_why():
    days = [datetime.date(2026, 1, 1)] * 2
    faults = {
        "holds values of several kinds": ["a", 1],
        "holds a different number of values in each row": [[1], [1, 2]],
        "holds int objects": [2**64, 1],
        "holds date objects": days,
        "holds Decimal objects": [decimal.Decimal("1.5")] * 2,
    }
    for fault, values in faults.items():
        assert MemoryTable({"x": values}, "it").columns["x"].fault == fault
    arrow = {
        "holds decimal128(2, 1)": pa.array([decimal.Decimal("1.5")] * 2),
        "holds date32[day]": pa.array(days),
        "holds struct<a: int64>": pa.array([{"a": 1}] * 2),
        "holds a different number of values in each row": pa.array([[1], [1, 2]]),
    }
    for fault, values in arrow.items():
        assert MemoryTable(pa.table({"x": values}), "it").columns["x"].fault == fault
    assert MemoryTable(QTable({"x": Time([1, 2], format="mjd")}), "it").columns["x"].fault == (
        "holds Time"
    )
    twice = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    for data in (twice, pd.DataFrame([[1, 2]], columns=["x", "x"])):
        assert MemoryTable(data, "it").columns["x"].fault == "is there 2 times"


def test_kinds_of_arrow():
    views = {
        "text": pa.array(["a", None], pa.string_view()),
        "bytes": pa.array([b"a", None], pa.binary_view()),
        "fixed": pa.array([b"a", None], pa.binary(1)),
        "codes": pa.array([b"a", None]).dictionary_encode(),
    }
    table = MemoryTable(pa.table(views), "it")
    assert {n: v.tolist() for n, v in table.read(list(views)).items()} == dict.fromkeys(
        views, ["a", None]
    )
    assert MemoryTable({"x": pa.array([b"\xff"])}, "it").read(["x"])["x"].tolist() == ["\\xff"]
    lists = {
        "view": pa.array([[1, None], None], pa.list_view(pa.int16())),
        "large": pa.array([[1, None], None], pa.large_list(pa.int16())),
        "fixed": pa.array([[1, None], None], pa.list_(pa.int16(), 2)),
    }
    for values in lists.values():
        found = MemoryTable(pa.table({"x": values}), "it").read(["x"])["x"]
        assert (found.dtype, found.tolist()) == (np.int16, [[1, None], [None, None]])
    nested = pl.DataFrame(
        {"x": pl.Series([[[1, 2], [3, None]], None], dtype=pl.Array(pl.Int8, (2, 2)))}
    )
    assert MemoryTable(nested, "it").read(["x"])["x"].tolist() == [
        [[1, 2], [3, None]],
        [[None, None], [None, None]],
    ]


def test_rows_of_which_some_is_missing():
    for values, expected in (
        ([[1, None], [None, None], None], [[1, None], [None, None], [None, None]]),
        ([[1, 2], [2.5, None]], [[1.0, 2.0], [2.5, None]]),
        ([["a", None], [None, None]], [["a", None], [None, None]]),
        ([[None, None], None], [[None, None], [None, None]]),
        ([[[1], [2]], [[None], [4]]], [[[1], [2]], [[None], [4]]]),
    ):
        table = MemoryTable({"x": values}, "it")
        assert (table.columns["x"].fault, table.read(["x"])["x"].tolist()) == ("", expected)
    assert MemoryTable({"x": [[1], ["a"]]}, "it").columns["x"].fault == (
        "holds values of several kinds"
    )


def test_units_and_names_are_kept():
    table = QTable({"q": Masked([1.0, 2.0] * u.mm, mask=[False, True]), "p": [1, 2] * u.pix})
    found = MemoryTable(table, "it")
    assert [field.unit for field in found.columns.values()] == ["mm", "pix"]
    assert found.read(["q"])["q"].tolist() == [1.0, None]
    assert MemoryTable({"x": [1 * u.mm, 2 * u.mm]}, "it").columns["x"].unit == "mm"
    said = pa.schema([pa.field("x", pa.int8(), metadata={"unit": "pix"})], metadata={"A": "1"})
    found = MemoryTable(pa.table({"x": [1]}, schema=said), "it")
    assert (found.columns["x"].unit, found.meta) == ("pix", {"A": "1"})
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index([7, 8], name="id"))
    assert {n: v.tolist() for n, v in MemoryTable(frame, "it").read(["id", "x"]).items()} == {
        "id": [7, 8],
        "x": [1, 2],
    }
    assert list(MemoryTable(frame.reset_index(drop=True), "it").columns) == ["x"]


def test_a_part_is_a_table_of_its_own():
    table = MemoryTable({"x": [1, None, 3, 4]}, "it")
    part = table.part(slice(1, 3), "a part")
    assert (len(part), part.where, part.read(["x"])["x"].tolist()) == (2, "a part", [None, 3])
    assert part.fingerprint() != table.fingerprint()


def test_needed_kept_and_absent_in_every_holder():
    """A schema's column is NaN, `MISSING` or empty where a value is missing; others keep a mask."""
    for holder, hold in HOLDERS.items():
        for kind in ("i2", "u8", "f4", "U"):
            wanted = {"i2": "i", "u8": "i", "f4": "f", "U": "U"}[kind]
            values = [5 if v == LARGE else v for v in VALUES[kind]]
            columns = (Column("x", wanted), Column("absent", wanted, required=False, absent="why"))
            catalog, findings = Catalog.of(hold(kind, values), Schema("s", "a table", columns))
            assert (findings.errors, catalog.columns) == ([], ("x",)), (holder, kind)
            assert findings.warnings == ["there is no column absent: why"]
            found = catalog.read()["x"]
            assert not isinstance(found, np.ma.MaskedArray)
            blank = {"i": MISSING, "f": np.nan, "U": ""}[wanted]
            expected = np.array([blank if v is None else v for v in values])
            np.testing.assert_array_equal(found, expected, err_msg=f"{holder} {kind}")
            assert found.dtype.kind == ("i" if wanted == "i" else wanted)
