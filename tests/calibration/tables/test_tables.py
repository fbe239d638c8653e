"""Sources, schemas and the index of visits: rows in any order are those of the whole table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from calibration.run.columns import ATMOSPHERE, LOOKUP, STARS, VISITS, ZEROPOINTS
from calibration.run.visit_index import VisitIndex
from calibration.tables import fits_reader, reader
from calibration.tables.catalog import MISSING, Catalog, open_table
from calibration.tables.fields import Field
from calibration.tables.files import write_table
from calibration.tables.fits_reader import fits_tables
from calibration.tables.parquet_reader import ParquetTable
from calibration.tables.reader import MemoryTable
from calibration.tables.schema import Column, Schema, bind

COUNT = 1000


def columns():
    rng = np.random.default_rng(5)
    return {
        "i": np.arange(COUNT, dtype="i2"),
        "u": np.arange(COUNT, dtype="u4") + 2**31,
        "f": rng.normal(size=COUNT).astype("f4"),
        "d": rng.normal(size=(COUNT, 3)),
        "s": np.array([f"row {i}" for i in range(COUNT)]),
        "t": np.array([["a", "bc"]] * COUNT),
    }


@pytest.fixture(params=["fits", "wide fits", "fits.gz", "parquet", "memory"])
def source(request, tmp_path, monkeypatch):
    kind = request.param
    monkeypatch.setattr(reader, "BLOCK", 5000)
    monkeypatch.setattr(fits_reader, "BLOCK", 5000)
    monkeypatch.setattr(reader, "GAP", 100)
    if kind == "wide fits":
        monkeypatch.setattr(fits_reader, "WIDE", 10)
    if kind == "memory":
        return MemoryTable(columns(), "the table")
    if kind == "parquet":
        table = pa.table({n: [*v] if v.ndim > 1 else v for n, v in columns().items()})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=70)
        return ParquetTable(tmp_path / "a.parquet")
    path = tmp_path / f"a.{kind.removeprefix('wide ')}"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(Table(columns()))]).writeto(path)
    return fits_tables(path)[0]


ROWS = [
    None,
    slice(0, 0),
    slice(3, 400),
    slice(990, COUNT),
    np.array([], int),
    np.array([7]),
    np.array([5, 6, 7]),
    np.array([999, 0, 500, 501, 3]),
    np.array([4, 4, 9, 4]),
    np.array([4, 4, 6]),
    np.random.default_rng(1).permutation(COUNT),
    np.arange(0, COUNT, 9),
]


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS, ids=range(len(ROWS)))
def test_rows_of_every_source(source, rows):
    assert len(source) == COUNT
    found = source.read([*columns()], rows)
    for name, values in columns().items():
        expected = values[slice(None) if rows is None else rows]
        array = found[name]
        assert array.dtype.isnative
        assert array.dtype.kind == expected.dtype.kind
        np.testing.assert_array_equal(array, expected)


def test_blocks_are_all_rows(source):
    blocks = list(source.blocks(["d", "u"]))
    for name in ("d", "u"):
        whole = np.concatenate([block[name] for block in blocks])
        np.testing.assert_array_equal(whole, columns()[name])


def test_rows_that_are_not_there(source):
    with pytest.raises(IndexError):
        source.read(["i"], np.array([COUNT]))


def test_one_copy_for_each_reader(source):
    rows = source.read(["d"], slice(0, 2))
    rows["d"][:] = 0
    assert source.read(["d"], slice(0, 2))["d"].any()


# The index


def index_of(visits, detectors=None):
    data = {"visit": np.asarray(visits, np.int32)}
    if detectors is not None:
        data["detector"] = np.asarray(detectors, np.int16)
    catalog, _ = Catalog.of(data, ZEROPOINTS)
    return VisitIndex.of(catalog, None if detectors is None else "detector")


@pytest.mark.parametrize("block", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("visits", "detectors", "compact", "repeated"),
    [
        ([1, 1, 2, 2, 5], [0, 1, 0, 1, 0], True, []),
        ([5, 5, 1, 2, 2], [0, 1, 0, 0, 1], True, []),
        ([1, 1, 2, 2, 5], [1, 0, 0, 1, 0], True, []),
        ([1, 2, 1, 2, 5], [0, 0, 1, 1, 0], False, []),
        ([1, 1, 2, 2, 5], [0, 0, 0, 1, 0], True, [1]),
        ([1, 2, 1, 5, 2], [0, 1, 0, 0, 1], False, [1, 2]),
        ([3], [3], True, []),
        ([], [], True, []),
    ],
)
def test_index(monkeypatch, block, visits, detectors, compact, repeated):
    def blocks(self, names):
        for start in range(0, len(self), block):
            yield self.read(names, slice(start, start + block))

    monkeypatch.setattr(MemoryTable, "blocks", blocks)
    index = index_of(visits, detectors)
    visits = np.array(visits, int)
    assert (index.order is None) == compact
    assert index.repeated.tolist() == repeated
    assert index.visits.tolist() == sorted(set(visits.tolist()))
    wanted = index.visits[::-1]
    rows = np.arange(len(visits))[index.rows(wanted)]
    expected = [np.flatnonzero(visits == visit) for visit in wanted]
    assert rows.tolist() == np.concatenate([[], *expected]).tolist()
    assert 4 not in index
    for visit in index.visits:
        assert visit in index
    with pytest.raises(KeyError, match="4"):
        index.rows([4])


def test_a_single_key():
    assert index_of([3, 1, 2]).repeated.tolist() == []
    assert index_of([3, 1, 3]).repeated.tolist() == [3]
    assert isinstance(index_of([1, 2, 3, 4]).rows([2, 3]), slice)


# Schemas


@pytest.mark.parametrize("schema", [VISITS, ZEROPOINTS, ATMOSPHERE, STARS, LOOKUP])
def test_schemas_take_their_own_columns(schema):
    """Names are unique however they are written, so that no column is taken for two."""
    shapes = {"square": (4,), "detectors": (3,), "bands": (2,), "any": (), 2: (2,)}
    made = {
        c.name: Field(np.dtype({"U": "U5"}.get(c.kind, c.kind + "8")), shapes.get(c.length, ()))
        for c in schema.columns
    }
    findings = bind(schema, {name.upper(): found for name, found in made.items()})
    assert (findings.errors, findings.warnings) == ([], [])
    assert {n: b.sources for n, b in findings.bindings.items()} == {n: (n.upper(),) for n in made}


@pytest.mark.parametrize(
    ("unit", "factor"), [("", 1), ("mm", 1), ("cm", 10), ("um", 1e-3), ("deg", None)]
)
def test_units(unit, factor):
    schema = Schema("s", "s", (Column("pwv", unit="mm"),))
    findings = bind(schema, {"pwv": Field(np.dtype(float), (), unit)})
    if factor is None:
        assert findings.errors == ["column pwv is in deg; it should hold numbers in mm"]
    else:
        assert findings.bindings["pwv"].factor == pytest.approx(factor)


@pytest.mark.parametrize("unit", ["mag", "mag(AB)", "ABmag", "mag(ST)"])
def test_magnitudes(unit):
    schema = Schema("s", "s", (Column("m", unit="mag"),))
    assert bind(schema, {"m": Field(np.dtype(float), (), unit)}).bindings["m"].factor == 1


def test_flattened_arrays_have_to_agree():
    schema = Schema("s", "s", (Column("a", length="any"), Column("b")))
    names = {f"a_{i}": Field(np.dtype("f8" if i < 2 else "f4")) for i in range(3)}
    findings = bind(schema, names | {"b_0": Field(np.dtype("f8"))})
    assert findings.errors == [
        "columns a_0 to a_2 differ in type or unit; it should hold numbers, an array in each row",
        "there is no column b (numbers)",
    ]


@pytest.mark.parametrize(
    ("format_", "values", "text"),
    [
        ("PD()", np.array([[1.0], [1.0, 2.0]], object), "is of a format that is not read, PD"),
        ("C", np.array([1j, 2]), "is of a format that is not read, C"),
        ("L", np.array([True, False]), "column visit holds bool; it should hold whole numbers"),
    ],
)
def test_fits_formats_that_are_not_read(tmp_path, format_, values, text):
    hdu = fits.BinTableHDU.from_columns([fits.Column("visit", format_, array=values)])
    hdu.writeto(tmp_path / "a.fits")
    _, findings = Catalog.of(tmp_path / "a.fits", ATMOSPHERE)
    assert text in findings.errors[0]


@pytest.mark.parametrize("suffix", ["fits", "parquet"])
def test_truth_values(tmp_path, suffix):
    flags = np.array([[True, False], [False, False], [True, True]])
    path = tmp_path / f"a.{suffix}"
    if suffix == "fits":
        Table({"flags": flags, "flag": flags[:, 0]}).write(path)
    else:
        write_table(path, Table({"flags": flags, "flag": flags[:, 0]}))
    source = open_table(path, ATMOSPHERE)
    assert {found.dtype for found in source.columns.values()} == {np.dtype(bool)}
    found = source.read(["flags", "flag"], np.array([2, 0]))
    np.testing.assert_array_equal(found["flags"], flags[[2, 0]], strict=True)
    np.testing.assert_array_equal(found["flag"], flags[[2, 0], 0], strict=True)


def test_masked_values():
    data = Table({"visit": [1, 2], "pmb": [700.0, 701.0]}, masked=True)
    data["visit"].mask = [True, False]
    data["pmb"].mask = [True, False]
    catalog, _ = Catalog.of(data, ATMOSPHERE)
    assert catalog.read(["visit"])["visit"].tolist() == [MISSING, 2]
    np.testing.assert_array_equal(catalog.read(["pmb"])["pmb"], [np.nan, 701.0])


def test_missing_values_in_parquet(tmp_path):
    pq.write_table(pa.table({"visit": [1, None], "pmb": [None, 7.0]}), tmp_path / "a.parquet")
    catalog, _ = Catalog.of(tmp_path / "a.parquet", ATMOSPHERE)
    np.testing.assert_array_equal(catalog.read(["pmb"])["pmb"], [np.nan, 7.0])
    assert catalog.read(["visit"])["visit"].tolist() == [1, MISSING]


def test_tables_as_astropy_writes_them(tmp_path):
    """Its Parquet files say units and metadata in YAML."""
    made = Table({"id": [1, 2], "dec": [10.0, 20.0], "ngood": np.ones((2, 4), int)})
    made["dec"].unit = "arcmin"
    made.meta["BANDS"] = ["g", "r", "i", "z"]
    made.write(tmp_path / "a.parquet")
    catalog, _ = Catalog.of(tmp_path / "a.parquet", STARS)
    assert catalog.meta["BANDS"] == ["g", "r", "i", "z"]
    np.testing.assert_allclose(
        catalog.read(["coord_dec"])["coord_dec"], np.deg2rad(made["dec"] / 60)
    )
    assert catalog.read(["ngood"])["ngood"].shape == (2, 4)


def test_columns_of_unequal_length():
    with pytest.raises(ValueError, match="the table: columns differ in length: a 2, b 3"):
        MemoryTable({"a": [1, 2], "b": [1, 2, 3]}, "the table")
