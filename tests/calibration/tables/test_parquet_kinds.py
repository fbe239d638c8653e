"""Parquet files as others write them: kinds, names and shapes that ours do not have."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from calibration.tables.fields import as_table
from calibration.tables.files import open_tables, read_table, write_table
from calibration.tables.schema import Column, Schema, bind

LARGE = 2**63 + 1
READ = {
    "i1": (pa.array([1, None, -3], pa.int8()), "i1"),
    "u2": (pa.array([1, None, 2**16 - 1], pa.uint16()), "u2"),
    "u4": (pa.array([1, None, 2**32 - 1], pa.uint32()), "u4"),
    "u8": (pa.array([LARGE, None, 2**64 - 1], pa.uint64()), "u8"),
    "half": (pa.array(np.array([1.5, 2, 3], "f2")), "f2"),
    "nothing": (pa.nulls(3), "f8"),
    "text view": (pa.array(["a", None, "nan"], pa.string_view()), "U"),
    "bytes": (pa.array([b"a", None, b"c"]), "U"),
    "bytes view": (pa.array([b"a", None, b"c"], pa.binary_view()), "U"),
    "fixed bytes": (pa.array([b"a", None, b"c"], pa.binary(1)), "U"),
    "large text": (pa.array(["a", None, "c"], pa.large_string()), "U"),
    "codes": (pa.array(["a", None, "c"]).dictionary_encode(), "U"),
    "coded numbers": (pa.array([LARGE, None, 1], pa.uint64()).dictionary_encode(), "u8"),
    "large lists": (pa.array([[1, 2], None, [3, 4]], pa.large_list(pa.int16())), "i2"),
    "fixed lists": (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)), "i2"),
    "dotted.name": (pa.array([[1, 2], None, [3, 4]]), "i8"),
    "dotted": (pa.array([[1, 2, 3], None, [3, 4, None]]), "i8"),
    "lists.of.texts": (pa.array([["a", "b"], ["c", None], None]), "U"),
    "full lists": (pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), "f8"),
}
LEFT = {
    "decimal": (pa.array([decimal.Decimal("1.5")] * 3), "holds decimal128(2, 1)"),
    "day": (pa.array([datetime.date(2026, 1, 1)] * 3), "holds date32[day]"),
    "time": (pa.array([0, 1, 2], pa.timestamp("us")), "holds timestamp[us]"),
    "struct": (pa.array([{"a": 1, "b": [1]}] * 3), "holds struct<a: int64, b: list<"),
    "map": (pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())), "holds map<string, int"),
    "ragged": (pa.array([[1], [1, 2], []]), "holds a different number of values in each row"),
    "lists of lists": (pa.array([[[1], [2]]] * 3), "holds a different number of values in each"),
}


def expected_of(values):
    rows = values.to_pylist()
    sizes = {len(row) for row in rows if isinstance(row, list)}
    rows = [[None] * max(sizes) if row is None and sizes else row for row in rows]
    return [row.decode() if isinstance(row, bytes) else row for row in rows]


def test_every_kind(tmp_path):
    """All in one file: each is read, or says why not, and costs no other."""
    path = tmp_path / "a.parquet"
    both = {name: values for name, (values, _) in (READ | LEFT).items()}
    order = [name for pair in zip([*LEFT, *LEFT, *LEFT], READ, strict=False) for name in pair]
    table = pa.table({name: both[name] for name in order})
    for groups in (3, 2, 1):
        pq.write_table(table, path, row_group_size=groups)
        (reader,) = open_tables(path)
        for name, (_, fault) in LEFT.items():
            assert reader.columns[name].fault.startswith(fault), name
        names = list(READ)
        found = reader.read(names)
        assert {n: v.tolist() for n, v in found.items()} == {n: expected_of(both[n]) for n in names}
        kinds = {n: "U" if v.dtype.kind == "U" else v.dtype for n, v in found.items()}
        assert kinds == {n: k if k == "U" else np.dtype(k) for n, (_, k) in READ.items()}
        rows = reader.read(names, np.array([2, 0]))
        for name in names:
            assert rows[name].tolist() == [found[name].tolist()[i] for i in (2, 0)]
        blocks = [*reader.blocks(names)]
        assert {n: sum((b[n].tolist() for b in blocks), []) for n in names} == {
            n: v.tolist() for n, v in found.items()
        }
    for suffix in (".fits", ".parquet"):
        fields = {name: reader.columns[name] for name in names if name != "nothing"}
        write_table(tmp_path / f"b{suffix}", as_table(found, fields))
        again = read_table(tmp_path / f"b{suffix}")
        for name in fields:
            values = [v or None if again[name].ndim == 1 else v for v in again[name].tolist()]
            if suffix == ".parquet" or again[name].dtype.kind != "U":
                assert again[name].tolist() == found[name].tolist(), name
            elif again[name].ndim == 1:  # an empty text is one that is missing
                assert values == found[name].tolist()


def test_no_rows_and_no_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    empty = pa.table({name: values.slice(0, 0) for name, (values, _) in READ.items()})
    pq.write_table(empty, path)
    groups = [pq.read_metadata(path).num_row_groups]
    for write in (lambda: None, lambda: pq.ParquetWriter(path, empty.schema).close()):
        write()
        (reader,) = open_tables(path)
        names = [name for name, field in reader.columns.items() if not field.fault]
        assert {"u8", "text view", "fixed lists"} <= {*names}
        assert (len(reader), {len(v) for v in reader.read(names).values()}) == (0, {0})
        assert sum(len(block["u8"]) for block in reader.blocks(["u8"])) == 0
    assert groups[0] in (0, 1)
    assert pq.read_metadata(path).num_row_groups == 0


def test_names_that_are_there_twice_or_differ_in_case(tmp_path):
    path = tmp_path / "a.parquet"
    arrays = [pa.array([i, i]) for i in range(4)]
    pq.write_table(pa.Table.from_arrays(arrays, names=["x", "x", "RA", "ra"]), path)
    (reader,) = open_tables(path)
    assert reader.columns["x"].fault == "is there 2 times"
    assert {n: v.tolist() for n, v in reader.read(["ra", "RA"]).items()} == {
        "ra": [3, 3],
        "RA": [2, 2],
    }
    for names, sources, errors in (
        (("ra",), ("ra",), []),
        (("Ra",), None, ["columns RA, ra could each be Ra; keep one"]),
        (("x",), None, ["column x is there 2 times; it should hold whole numbers"]),
    ):
        findings = bind(Schema("s", "s", tuple(Column(n, "i") for n in names)), reader.columns)
        assert findings.errors == errors
        assert [b.sources for b in findings.bindings.values()] == ([sources] if sources else [])


def test_arrays_of_polars(tmp_path):
    """Which have a shape, whose inner lists are fixed, too."""
    frame = pl.DataFrame(
        {
            "x": pl.Series(
                [[[1, 2], [3, None]], None, [[5, 6], [7, 8]]], dtype=pl.Array(pl.Int8, (2, 2))
            )
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    (reader,) = open_tables(tmp_path / "a.parquet")
    assert (reader.columns["x"].fault, reader.columns["x"].shape) == ("", (2, 2))
    assert reader.read(["x"])["x"].tolist() == [
        [[1, 2], [3, None]],
        [[None, None], [None, None]],
        [[5, 6], [7, 8]],
    ]


def test_rows_that_cannot_be_there(tmp_path):
    """Memory is not taken for what a damaged footer says."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [*range(77)]}), path)
    data = path.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    footer, count, many = data[-8 - size : -8], b"\x9a\x01", b"\x80" * 7 + b"\x02"  # 77, 2**49
    places = [i for i in range(size) if footer.startswith(count, i)]
    for which in (*([place] for place in places), places):
        changed = footer
        for place in which[::-1]:
            changed = changed[:place] + many + changed[place + 2 :]
        path.write_bytes(data[: -8 - size] + changed + len(changed).to_bytes(4, "little") + b"PAR1")
        said = values_or_error(path)
        assert said == [*range(77)] if isinstance(said, list) else "a.parquet" in said
    assert isinstance(said, str)


def values_or_error(path):
    try:
        (reader,) = open_tables(path)
        return reader.read(["a"])["a"].tolist()
    except OSError as error:
        return str(error)
