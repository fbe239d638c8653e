"""What columns of FITS tables stand for, and which cost nothing but themselves."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io import fits

from calibration.tables.files import open_tables

HALF = {"B": -128, "I": 2**15, "J": 2**31, "K": 2**63}
KINDS = {"B": "i1", "I": "u2", "J": "u4", "K": "u8"}


def written(path, format_, values, **cards):
    """Write columns before, x and after; of x the cards are given as they stand in the file."""
    cols = [fits.Column("before", "J", array=np.arange(len(values)))]
    cols += [fits.Column("x", format_, array=values)]
    cols += [fits.Column("after", "3A", array=["abc"] * len(values))]
    hdu = fits.BinTableHDU.from_columns(cols)
    for keyword, value in cards.items():
        hdu.header[f"{keyword}2"] = value
    hdu.writeto(path, overwrite=True)
    (table,) = open_tables(path)
    known = [n for n, field in table.columns.items() if not field.fault]
    others = table.read([n for n in known if n in ("before", "after")])
    assert {n: v.tolist() for n, v in others.items()} == {
        "before": list(range(len(values))),
        "after": ["abc"] * len(values),
    }
    return table


@pytest.mark.parametrize("format_", HALF)
def test_numbers_of_which_one_stands_for_none(tmp_path, format_):
    """TNULL is of what is in the file, whatever TZERO makes of it."""
    stored = np.array([0, 1, 2, 100], {"B": "u1", "I": "i2", "J": "i4", "K": "i8"}[format_])
    limits = np.iinfo(stored.dtype)
    stored[1:3] = limits.min, limits.max
    for zero, kind in ((0, stored.dtype), (HALF[format_], np.dtype(KINDS[format_]))):
        expected = [int(value) + zero for value in stored.tolist()]
        for null in (None, *stored.tolist(), 7, 2**40 if format_ != "K" else 8):
            cards = {"TZERO": zero} if zero else {}
            cards |= {} if null is None else {"TNULL": null}
            table = written(tmp_path / "a.fits", format_, stored, **cards)
            found = table.read(["x"])["x"]
            assert (found.dtype, table.columns["x"].nullable) == (kind, null is not None)
            missing = [v == null for v in stored.tolist()]
            assert np.ma.getmaskarray(found).tolist() == missing
            assert [v is None or v == e for v, e in zip(found.tolist(), expected, strict=True)] == [
                True
            ] * 4


def test_numbers_with_a_scale_or_a_zero(tmp_path):
    cases = [
        ({"TSCAL": 0.5, "TZERO": 1.5}, "f8", [2.0, 2.5, -0.0]),
        ({"TSCAL": 0.5, "TZERO": 1.5, "TNULL": 2}, "f8", [2.0, None, -0.0]),
        ({"TZERO": 5}, "i8", [6, 7, 2]),
        ({"TZERO": 0.5}, "f8", [1.5, 2.5, -2.5]),
        ({"TZERO": 2**63 + 5}, "u8", [2**63 + 6, 2**63 + 7, 2**63 + 2]),
        ({"TZERO": 10**20}, "f8", [1e20, 1e20, 1e20]),
        ({"TSCAL": 1.0, "TZERO": 0.0}, "i4", [1, 2, -3]),
    ]
    for cards, kind, expected in cases:
        found = written(tmp_path / "a.fits", "J", np.array([1, 2, -3], "i4"), **cards).read(["x"])
        assert (found["x"].dtype, found["x"].tolist()) == (kind, expected), cards
    table = written(tmp_path / "a.fits", "E", np.array([1, 2], "f4"), TSCAL=3, TNULL=1)
    assert table.read(["x"])["x"].tolist() == [3.0, 6.0]


def test_truth_values_that_are_neither(tmp_path):
    table = written(tmp_path / "a.fits", "L", np.array([True, False, True, False]))
    data = bytearray((tmp_path / "a.fits").read_bytes())
    for row, byte in ((2, 0), (3, ord(" "))):
        data[table.hdu.data + row * 8 + 4] = byte
    (tmp_path / "a.fits").write_bytes(data)
    (table,) = open_tables(tmp_path / "a.fits")
    assert table.read(["x"])["x"].tolist() == [True, False, None, None]


def test_columns_that_are_not_read_cost_no_other(tmp_path):
    lists = np.array([[1.0], [1.0, 2.0]], object)
    unread = "is of a format that is not read, "
    for format_, values, cards, fault in (
        ("PD()", lists, {}, f"{unread}PD(2)"),
        ("QD()", lists, {}, f"{unread}QD(2)"),
        ("11X", np.ones((2, 11), bool), {}, f"{unread}11X"),
        ("C", np.ones(2, "c8"), {}, f"{unread}C"),
        ("2M", np.ones((2, 2), "c16"), {}, f"{unread}2M"),
        ("0E", np.ones((2, 0)), {}, "holds no values"),
        ("E", np.ones(2), {"TSCAL": "x"}, "has a TSCAL2 that is no number, 'x'"),
        ("J", np.ones(2), {"TZERO": "x"}, "has a TZERO2 that is no number, 'x'"),
    ):
        table = written(tmp_path / "a.fits", format_, values, **cards)
        assert table.columns["x"].fault == fault


def test_names_that_are_there_twice_or_not_at_all(tmp_path):
    path = tmp_path / "a.fits"
    written(path, "J", np.arange(2))
    data = path.read_bytes()
    for name, expected, fault in (
        (b"'before  '", "before", "is there 2 times"),
        (b"'BEFORE  '", "BEFORE", ""),
        (b"'        '", "col2", ""),
        (b"         1", "1", ""),
    ):
        path.write_bytes(data.replace(b"'x       '", name))
        (table,) = open_tables(path)
        assert table.columns[expected].fault == fault
        assert table.read([expected])[expected].tolist() == [0, 1]


def test_shapes_that_cannot_be(tmp_path):
    values = np.arange(12.0).reshape(2, 6)
    for dim, shape in (
        ("(2,3)", (3, 2)),
        (" ( 3, 2 ) ", (2, 3)),
        ("(6)", (6,)),
        ("(1,6,1)", (1, 6, 1)),
    ):
        table = written(tmp_path / "a.fits", "6D", values, TDIM=dim)
        assert table.columns["x"].shape == shape
        np.testing.assert_array_equal(table.read(["x"])["x"], values.reshape(2, *shape))
    for dim in ("(4,4)", "(-2,-3)", "(2,,3)", "()", "6", 6, "(1.5,4)"):
        with pytest.warns(
            UserWarning, match=r"a.fits, HDU 1: TDIM2 is .* not the shape of 6 value"
        ):
            table = written(tmp_path / "a.fits", "6D", values, TDIM=dim)
        assert table.columns["x"].shape == (6,)
    table = written(tmp_path / "a.fits", "6A", ["abcdef"] * 2, TDIM="(2,3)")
    assert table.read(["x"])["x"].tolist() == [["ab", "cd", "ef"]] * 2


def test_tnull_is_of_whole_numbers_alone(tmp_path):
    with warnings.catch_warnings(action="error"):
        for format_, null in (
            ("E", 1),
            ("D", "NaN"),
            ("3A", 5),
            ("J", "x"),
            ("J", True),
            ("J", 1.0),
        ):
            values = ["a", "b"] if format_ == "3A" else [1, 2]
            table = written(tmp_path / "a.fits", format_, values, TNULL=null)
            assert table.read(["x"])["x"].tolist() == values
            assert not table.columns["x"].nullable
