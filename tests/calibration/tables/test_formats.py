"""Every kind of column through every writer and reader, and what other packages read of it."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from calibration.tables.catalog import MISSING, Catalog
from calibration.tables.fields import Field, as_table, fields_of
from calibration.tables.files import SUFFIXES, open_tables, read_table, table_writer, write_table
from calibration.tables.reader import MemoryTable
from calibration.tables.schema import Column, Schema

WHOLE = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
KINDS = (*WHOLE, "f4", "f8", "?", "U")
SHAPES = [(), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((3,), (2, 3)))]
COUNT = 7
WIDER = {".fits": {"i1": "i2"}, ".parquet": {}}


def values_of(kind, shape=(), count=COUNT):
    """Return values from one end of what the kind can hold to the other."""
    size = (count, *shape)
    rng = np.random.default_rng(sum(size))
    if kind in WHOLE:
        limits = np.iinfo(kind)
        found = rng.integers(limits.min, limits.max, size, kind, endpoint=True)
        found.flat[:2] = (limits.min + 1, limits.max - 1)[: found.size]  # the ends may be nulls
        return found
    if kind == "?":
        return rng.random(size) < 0.5
    if kind == "U":
        return np.array(["", "a", "SIM-R", "déjà vu"])[rng.integers(0, 4, size)]
    return rng.normal(size=size).astype(kind)


def mask_of(fullness, shape, count=COUNT):
    """Return where values are missing."""
    mask = np.zeros((count, *shape), bool)
    mask[1::3] = fullness == "masked"
    mask |= fullness == "all masked"
    return mask


def column_of(kind, shape, fullness):
    count = 0 if fullness == "empty" else COUNT
    values, mask = values_of(kind, shape, count), mask_of(fullness, shape, count)
    # Three bytes: as long as the row group of an array may be in other packages' hands.
    unit = None if kind in "?U" else u.nJy
    return MaskedColumn(values, mask=mask, name="x", unit=unit, description="some values")


def stored_dtype(kind, suffix, nullable):
    kind = WIDER[suffix].get(kind, kind)
    if suffix == ".fits" and nullable and kind in ("u2", "u4"):
        return np.dtype(f"i{2 * int(kind[1])}")
    return np.dtype(kind)


def read_by(name, path):
    """Return the table that a package reads: its unit and description where it knows of those."""
    if name == "astropy":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts of no length
            return Table.read(path)
    (reader,) = open_tables(path)
    return as_table(reader.read(list(reader.columns)), reader.columns, reader.meta)


FULLNESS = ("full", "empty", "masked", "all masked")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fullness", FULLNESS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_column_comes_back(tmp_path, suffix, fullness, shape, kind):
    path, column = tmp_path / f"a{suffix}", column_of(kind, shape, fullness)
    write_table(path, Table([column], meta={"VISIT": 3, "AIRMASS": 1.25, "FILTER": "r"}))
    found = read_table(path)["x"]
    assert found.shape == column.shape
    assert (found.unit, found.description) == (column.unit, column.description)
    assert dict(read_table(path).meta)["AIRMASS"] == 1.25
    nullable = column.mask.any()
    expected = stored_dtype(kind, suffix, nullable)
    assert found.dtype.kind == expected.kind
    assert kind == "U" or found.dtype == expected
    known = ~column.mask
    np.testing.assert_array_equal(np.asarray(found)[known], np.asarray(column)[known])
    missing = np.ma.getmaskarray(found)
    if suffix == ".fits" and kind == "U":
        assert not np.asarray(found)[column.mask].astype(bool).any()  # an empty text
    elif suffix == ".fits" and expected.kind == "f":
        assert np.isnan(np.asarray(found)[column.mask]).all()
    else:
        np.testing.assert_array_equal(missing, column.mask)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fullness", ["full", "masked"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_column_in_astropy(tmp_path, suffix, fullness, shape, kind):
    path, column = tmp_path / f"a{suffix}", column_of(kind, shape, fullness)
    write_table(path, Table([column], meta={"VISIT": 3, "AIRMASS": 1.25}))
    table = read_by("astropy", path)
    table.convert_bytestring_to_unicode()
    found = table["x"]
    assert (table.meta["VISIT"], table.meta["AIRMASS"]) == (3, 1.25)
    assert found.unit == column.unit
    assert found.shape == column.shape
    known = ~column.mask
    np.testing.assert_array_equal(np.asarray(found)[known], np.asarray(column)[known])
    if kind not in "?U" and not (suffix == ".fits" and kind == "u8"):
        missing = np.ma.getmaskarray(found) | (np.asarray(found) != np.asarray(found))
        np.testing.assert_array_equal(missing, column.mask)


@pytest.mark.parametrize("fullness", ["full", "masked"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_column_in_pyarrow_pandas_and_polars(tmp_path, fullness, shape, kind):
    path, column = tmp_path / "a.parquet", column_of(kind, shape, fullness)
    write_table(path, Table([column], meta={"VISIT": 3}))
    expected = column.reshape(COUNT, -1) if shape else column
    lists = expected.tolist()
    table = pq.read_table(path)
    assert table["x"].to_pylist() == lists
    field = table.schema.field("x")
    assert field.metadata[b"description"] == b"some values"
    assert field.metadata.get(b"unit") == (None if kind in "?U" else b"nJy")
    assert table.schema.metadata[b"VISIT"] == b"3"
    assert pl.read_parquet(path)["x"].to_list() == lists
    frame = pd.read_parquet(path, dtype_backend="pyarrow")["x"]
    assert [None if v is pd.NA else v for v in frame.to_list()] == lists or shape


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fullness", ["full", "masked"])
@pytest.mark.parametrize("kind", ["i2", "i8", "u4", "f4", "f8", "U"])
def test_needed_kept_and_optional(tmp_path, suffix, fullness, kind):
    """A schema's column has no mask: numbers are NaN, texts empty, whole numbers `MISSING`."""
    path, column = tmp_path / f"a{suffix}", column_of(kind, (), fullness)
    write_table(path, Table({"x": column, "other": column}))
    wanted = "i" if np.dtype(kind).kind in "iu" else "f" if kind[0] == "f" else "U"
    columns = (Column("x", wanted), Column("absent", wanted, required=False))
    catalog, findings = Catalog.of(path, Schema("s", "a table", columns))
    assert (findings.errors, catalog.columns) == ([], ("x",))
    found = catalog.read()["x"]
    assert not isinstance(found, np.ma.MaskedArray)
    known = ~column.mask
    np.testing.assert_array_equal(found[known], np.asarray(column)[known])
    missing = found[column.mask]
    assert (
        np.isnan(missing) if wanted == "f" else missing == {"U": "", "i": MISSING}[wanted]
    ).all()
    kept = catalog.reader.read(["other"])["other"]
    assert isinstance(kept, np.ma.MaskedArray) == (
        fullness == "masked" and (wanted == "i" or suffix == ".parquet")
    )


@pytest.mark.parametrize("fullness", FULLNESS)
@pytest.mark.parametrize("kind", KINDS)
def test_tables_in_memory(fullness, kind):
    column = column_of(kind, (2,), fullness)
    reader = MemoryTable(Table([column]), "the table")
    found = reader.read(["x"])["x"]
    np.testing.assert_array_equal(np.ma.getmaskarray(found), column.mask)
    known = ~column.mask
    np.testing.assert_array_equal(np.asarray(found)[known], np.asarray(column)[known])
    field = reader.columns["x"]
    assert (field.shape, field.description) == ((2,), "some values")
    assert field.unit == ("" if kind in "?U" else "nJy")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [*WHOLE, "f8", "U", "?"])
def test_blocks_that_miss_values_now_and_then(tmp_path, suffix, kind):
    column = column_of(kind, (), "masked")
    fields = fields_of(Table([column]))
    for name, cuts in (("one", []), ("some", [1, 1, 4])):
        with table_writer(tmp_path / f"{name}{suffix}", fields) as file:
            for part in np.split(np.arange(COUNT), cuts):
                file.write({"x": column[part]})
    one, some = (read_table(tmp_path / f"{name}{suffix}")["x"] for name in ("one", "some"))
    np.testing.assert_array_equal(np.ma.getmaskarray(one), np.ma.getmaskarray(some))
    np.testing.assert_array_equal(
        np.ma.filled(one, 0 if kind != "U" else ""), np.ma.filled(some, 0 if kind != "U" else "")
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("kind", "stored"), [("f2", "f4"), ("g", "f8")])
def test_numbers_that_are_kept_in_others(tmp_path, suffix, kind, stored):
    write_table(tmp_path / f"a{suffix}", Table({"x": np.array([0.5, np.nan], kind)}))
    found = read_table(tmp_path / f"a{suffix}")["x"]
    assert found.dtype == stored
    np.testing.assert_array_equal(found, [0.5, np.nan])


def test_numbers_that_stand_for_missing_ones(tmp_path):
    for kind in WHOLE[:-1]:  # also where all numbers there are, are taken
        limits = np.iinfo(kind)
        count = min(2**16, limits.max - limits.min + 1)
        for start in (limits.min, limits.max - count + 1):
            ends = np.arange(count, dtype=kind) + np.array(start, kind)
            column = np.ma.array(np.append(ends, 0).astype(kind), mask=[0] * len(ends) + [1])
            write_table(tmp_path / "a.fits", Table({"x": column}))
            for found in (
                read_table(tmp_path / "a.fits")["x"],
                Table.read(tmp_path / "a.fits")["x"],
            ):
                assert found.mask.tolist() == column.mask.tolist()
                np.testing.assert_array_equal(found.data[:-1], ends)
    (tmp_path / "a.fits").unlink()
    fields = {"x": Field(np.dtype("i2"), nullable=True)}
    first, second = np.ma.array([5, 7], "i2", mask=[True, False]), np.array([-(2**15)], "i2")
    with table_writer(tmp_path / "a.fits", fields) as file:
        file.write({"x": first})
        with pytest.raises(ValueError, match="column x holds -32768, which stands for missing"):
            file.write({"x": second})
    (tmp_path / "a.fits").unlink()
    with (
        pytest.raises(ValueError, match="column x misses values, which its field does not say"),
        table_writer(tmp_path / "a.fits", {"x": Field(np.dtype("i2"))}) as file,
    ):
        file.write({"x": np.ma.array([1, 2], mask=[True, False], dtype="i2")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("unit", ["erg / (s cm2)", "mag(AB)", "furlong2", "%", "1 / Angstrom"])
def test_units(tmp_path, suffix, unit):
    """Those that FITS or nobody knows stay as they are."""
    path = tmp_path / f"a{suffix}"
    with table_writer(path, {"x": Field(np.dtype("f8"), (), unit)}) as file:
        file.write({"x": np.ones(2)})
    found = read_table(path)["x"].unit
    assert found == u.Unit(unit, parse_strict="silent")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        assert len(Table.read(path)) == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_said_of_a_table(tmp_path, suffix):
    meta = {"VISIT": 60600001, "AIRMASS": 1e-7, "YES": True, "BANDS": "g,r", "N": np.int64(3)}
    write_table(tmp_path / f"a{suffix}", Table({"x": [1]}, meta=meta), {"MORE": "a 'note' # x: 1"})
    found = read_table(tmp_path / f"a{suffix}").meta
    for name, value in {**meta, "MORE": "a 'note' # x: 1"}.items():
        assert (found[name], type(found[name])) == (value, type(np.array(value).item()))
    assert Table.read(tmp_path / f"a{suffix}").meta["AIRMASS"] == 1e-7


@pytest.mark.parametrize("zero", [5, -128, 2**31])
def test_whole_numbers_with_a_zero_of_their_own(tmp_path, zero):
    values = np.array([1, 2, 3])
    column = fits.Column("x", "K", array=values)
    hdu = fits.BinTableHDU.from_columns([column])
    hdu.header["TZERO1"] = zero
    hdu.writeto(tmp_path / "a.fits")
    (reader,) = open_tables(tmp_path / "a.fits")
    np.testing.assert_array_equal(reader.read(["x"])["x"], values + zero)


def test_lists_of_which_some_are_null(tmp_path):
    lists = [None, [1.0, 2.0, 3.0], None, [4.0, None, 6.0]]
    pq.write_table(pa.table({"x": pa.array(lists)}), tmp_path / "a.parquet")
    (reader,) = open_tables(tmp_path / "a.parquet")
    assert (reader.columns["x"].shape, reader.columns["x"].fault) == ((3,), "")
    assert reader.read(["x"])["x"].tolist() == [[None] * 3, lists[1], [None] * 3, lists[3]]


def test_what_a_parquet_file_says_is_checked(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, Table({"x": [1.0] * u.mag}))
    path.write_bytes(path.read_bytes().replace(b"unit: mag", b"unit: deg"))
    with pytest.raises(ValueError, match="the table is not the one that was written"):
        read_table(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_that_are_not_as_their_field_says(tmp_path, suffix):
    for values, error in ((np.ones((2, 1)), ValueError), (np.full((2, 3), "a"), TypeError)):
        with (
            pytest.raises(error, match="column x .*its field says"),
            table_writer(tmp_path / f"a{suffix}", {"x": Field(np.dtype("i4"), (3,))}) as file,
        ):
            file.write({"x": values})
    with pytest.raises(ValueError, match="a table without columns"):
        write_table(tmp_path / f"a{suffix}", Table())
    assert list(tmp_path.iterdir()) == []
