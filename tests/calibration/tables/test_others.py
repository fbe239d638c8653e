"""What astropy reads of our tables where nothing of ours is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from calibration.tables.files import SUFFIXES, write_table

KINDS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "?")
READ = """
import json, sys, warnings
import numpy as np
from astropy.table import Table
warnings.simplefilter("ignore")  # of truth values that are neither
table = Table.read(sys.argv[1])
assert not {"calibration", "mapreduce"} & {*sys.modules}
table.convert_bytestring_to_unicode()
found = {}
for name in table.colnames:
    column = table[name]
    values = np.ma.array(column, mask=np.ma.getmaskarray(column)).tolist()
    unit = "" if column.unit is None else str(column.unit)
    found[name] = [column.dtype.str[1:], list(column.shape), unit, values]
print(json.dumps([found, dict(table.meta)], default=str))
"""


def made():
    """Return columns of every kind and shape, with values that are missing and without."""
    table = Table(meta={"VISIT": 3, "BANDS": "g,r"})
    for kind in KINDS:
        for shape in ((), (3,), (2, 3)):
            name = f"{kind.replace('?', 'b')}{len(shape)}"
            values = np.arange(4 * int(np.prod(shape))).reshape(4, *shape).astype(kind)
            table[name] = values
            table[name].description = f"some {name}"
            table[name].unit = None if kind == "?" else "nJy"
            mask = np.zeros(values.shape, bool)
            mask[1] = True
            table[f"{name}_masked"] = MaskedColumn(values, mask=mask)
    table["text"], table["texts"] = ["a", "b", "déjà", "x"], [["a", "b"]] * 4
    return table


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_column_in_astropy_alone(tmp_path, suffix):
    """By itself it flattens rows of Parquet, and makes floats of whole numbers that miss some."""
    table, path = made(), tmp_path / f"a{suffix}"
    write_table(path, table)
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, meta = json.loads(done.stdout)
    assert (meta["VISIT"], meta["BANDS"]) == (3, "g,r")
    assert list(found) == table.colnames
    for name in table.colnames:
        column = table[name]
        dtype, shape, unit, values = found[name]
        assert unit == ("" if column.unit is None else "nJy"), name
        flat = suffix == ".parquet" and column.ndim == 3
        assert shape == [4, 6] if flat else list(column.shape), name
        if not name.endswith("_masked"):
            assert values == column.reshape(shape).tolist(), name
            wider = suffix == ".fits" and column.dtype == "i1"
            assert dtype == ("i2" if wider else column.dtype.str[1:]) or column.dtype.kind == "U"
            continue
        known = [row for i, row in enumerate(values) if i != 1]
        assert known == [r for i, r in enumerate(column.reshape(shape).tolist()) if i != 1], name
        missing = np.array(values[1], object)
        if name[0] != "b" and not (suffix == ".fits" and name.startswith("u8")):
            assert all(v is None or v != v for v in missing.flat), name
    if suffix == ".fits":
        numbers = dict(enumerate(table.colnames, start=1))
        said = {numbers[int(k[5:])]: v for k, v in meta.items() if k.startswith("TCOMM")}
        assert said == {n: table[n].description for n in numbers.values() if table[n].description}
