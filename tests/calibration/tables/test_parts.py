"""A table of several files is that of its rows: of any format, layout and choice of rows."""

import gzip
import os
from itertools import product

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from calibration.tables.catalog import Catalog
from calibration.tables.files import open_tables, write_table
from calibration.tables.parts import PartsTable, joined, table_files
from calibration.tables.schema import Column, Schema

SCHEMA = Schema("stars", "stars", (Column("id", "i"), Column("mag"), Column("band", "U")))
COUNT = 23
EDGES = (0, 4, 4, 11, 20, COUNT)  # one of the parts is empty
RNG = np.random.default_rng(3)
WHOLE = {
    "id": RNG.permutation(COUNT),
    "mag": RNG.random(COUNT),
    "xy": RNG.random((COUNT, 2)),
    "n": np.ma.array(np.arange(COUNT), mask=np.arange(COUNT) % 7 == 3),
    "name": np.array(["x" * (1 + i % 5) for i in range(COUNT)]),
}
ROWS = (
    None,
    slice(0, 0),
    slice(2, 15),
    slice(4, 4),
    np.array([], int),
    np.array([5]),
    np.array([22, 3, 3, 0, 11, 10, 4]),
    np.arange(COUNT)[::-1],
)


def write_parts(folder, suffix, name="part-{}"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, (start, stop) in enumerate(zip(EDGES[:-1], EDGES[1:], strict=True)):
        part = {key: values[start:stop] for key, values in WHOLE.items()}
        table = Table({key: MaskedColumn(v) if key == "n" else v for key, v in part.items()})
        write_table(folder / f"{name.format(number)}{suffix}", table)
    return folder


@pytest.mark.parametrize("suffix", [".fits", ".parquet"])
def test_parts_are_one_table(suffix, tmp_path):
    folder = write_parts(tmp_path / "table", suffix)
    (folder / "_SUCCESS").touch()
    (folder / "._part-0.fits").write_text("not a table")
    (folder / "config.py").write_text("nor is this")
    files = table_files(folder)
    for table in (PartsTable.of(folder), PartsTable.of(files), PartsTable.of([folder])):
        assert len(table) == COUNT
        for rows, names in product(ROWS, (["id"], list(WHOLE))):
            found = table.read(names, rows)
            for name in names:
                expected = WHOLE[name] if rows is None else WHOLE[name][rows]
                assert found[name].shape == expected.shape
                assert found[name].tolist() == expected.tolist(), (name, rows)
        blocks = list(table.blocks(["n", "name"]))
        assert joined([block["n"] for block in blocks]).tolist() == WHOLE["n"].tolist()
        with pytest.raises(IndexError, match="of a table of 23 rows"):
            table.read(["id"], np.array([COUNT]))


@pytest.mark.parametrize("suffix", [".pq", ".parq", ".PARQUET", ".FITS", ".Fits.Gz", ".fits.fz"])
def test_endings_in_any_case(suffix, tmp_path):
    kind = ".fits" if "fits" in suffix.lower() else ".parquet"
    source = write_parts(tmp_path / "a", kind) / f"part-0{kind}"
    path = tmp_path / "b" / f"table{suffix}"
    path.parent.mkdir()
    data = source.read_bytes()
    path.write_bytes(gzip.compress(data) if suffix.lower().endswith("gz") else data)
    for table in (open_tables(path)[0], PartsTable.of(path.parent)):
        assert table.read(["id"])["id"].tolist() == WHOLE["id"][:4].tolist()


def test_what_paths_say_are_columns(tmp_path):
    null = "__HIVE_DEFAULT_PARTITION__"
    for number, (band, visit) in enumerate(product(("g", "y2", null), (7, 12))):
        place = tmp_path / "stars" / f"visit={visit}" / f"band={band}"
        place.mkdir(parents=True)
        write_table(place / "a.fits", Table({"id": [number], "mag": [number / 10]}))
    table, findings = Catalog.of(tmp_path / "stars", SCHEMA)
    assert not findings.errors
    assert table.read(["id", "band"])["band"].tolist() == ["", "g", "y2"] * 2
    assert table.read(["id"])["id"].tolist() == [4, 0, 2, 5, 1, 3]
    reader = PartsTable.of(tmp_path / "stars")
    assert reader.read(["visit"], np.array([5, 0]))["visit"].tolist() == [12, 7]
    assert [block["visit"].tolist() for block in reader.blocks(["visit"])] == [[7]] * 3 + [[12]] * 3
    only = PartsTable.of([tmp_path / "stars" / "visit=12" / "band=g" / "a.fits"])
    assert only.read(["visit", "band", "id"]) == {"visit": [12], "band": ["g"], "id": [1]}


def test_what_the_file_says_goes_before_the_path(tmp_path):
    place = tmp_path / "id=9"
    place.mkdir()
    write_table(place / "a.fits", Table({"id": [1]}))
    assert PartsTable.of(tmp_path).read(["id"])["id"].tolist() == [1]


def test_numbers_in_names_are_numbers(tmp_path):
    for number in (10, 2, 1):
        write_table(tmp_path / f"part.{number}.fits", Table({"id": [number]}))
    assert PartsTable.of(tmp_path).read(["id"])["id"].tolist() == [1, 2, 10]


def test_parts_that_do_not_go_together(tmp_path):
    write_table(tmp_path / "a.fits", Table({"id": [1], "mag": [0.5]}))
    write_table(tmp_path / "b.fits", Table({"id": [1], "mag": np.ones(1, "f4")}))
    table = PartsTable.of(tmp_path)
    assert table.read(["id"])["id"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="column mag of b.fits is Field.*float32.* elsewhere"):
        table.read(["mag"])
    write_table(tmp_path / "b.fits", Table({"id": [1]}))
    with pytest.raises(OSError, match="b.fits has changed since it was opened"):
        table.read(["id"])
    with pytest.raises(FileNotFoundError, match="there is no table in"):
        PartsTable.of(os.path.join(tmp_path, "none"))


def test_a_fingerprint_is_of_all_files(tmp_path):
    folder = write_parts(tmp_path / "table", ".fits")
    first = PartsTable.of(folder)
    prints = {first.fingerprint(), PartsTable.of(table_files(folder)).fingerprint()}
    assert len(prints) == 1
    write_table(folder / "part-3.fits", Table({"id": [1]}))
    assert PartsTable.of(folder).fingerprint() not in prints
    assert PartsTable.of(folder).__dask_tokenize__() != first.__dask_tokenize__()


def test_what_paths_say_is_decoded(tmp_path):
    folder = tmp_path / "t" / "physicalFilter=i%20DECam%20SDSS%20c0003"
    folder.mkdir(parents=True)
    write_table(folder / "a.fits", Table({"id": [1, 2]}))
    table = PartsTable.of(tmp_path / "t")
    found = table.read(["physicalFilter"])["physicalFilter"].tolist()
    assert found == ["i DECam SDSS c0003"] * 2
