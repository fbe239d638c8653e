"""Catalogs made in cells: every source once, in parent pixels."""

from __future__ import annotations

import functools

import astropy.units as u
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import mapreduce as mr
from mapreduce.cli import main
from mapreduce.io.catalogs import write_catalog
from mapreduce.reducers.owner import owned

HEADER = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.2}
SKY = WCS(fits.Header(HEADER | {"CDELT1": -2e-4, "CDELT2": 2e-4}))
DRAWN = np.random.default_rng(3).uniform(-0.5, [119.5, 89.5], (300, 2))
APART = [np.hypot(*(DRAWN[:i] - place).T).min(initial=9) > 1.5 for i, place in enumerate(DRAWN)]
TRUTH = DRAWN[APART]
ORIGIN = np.array([100, -50])


def find(expanded, jitter=0.0, kind=dict):
    """Return the true sources in a cell, each cell with errors of its own."""
    box = expanded.bbox
    x, y = (TRUTH + ORIGIN).T
    inside = box.covers(x, y)
    rng = np.random.default_rng(box.x0 + 1000 * (100 + box.y0))
    local = (TRUTH + ORIGIN)[inside] - box[:2] + rng.uniform(-jitter, jitter, (inside.sum(), 2))
    left, low = np.floor(local).astype("i2").T
    columns = {"id": np.flatnonzero(inside), "x": local[:, 0], "y": local[:, 1]}
    return kind(columns | {"xmin": left, "ymin": low})


def exposure(**parts):
    return mr.Exposure(np.zeros((90, 120), "f4"), origin=tuple(ORIGIN.tolist()), **parts)


def catalog(mapper, grid, **options):
    run = mr.map_reduce(exposure(), mapper, grid=grid, reducer="concatenate", **options)
    return run.compute(scheduler="synchronous")


@pytest.mark.parametrize(
    "grid",
    [mr.GridConfig(30, border=8), mr.GridConfig(30, step=20, border=8, adjust="none"),
     mr.GridConfig((41, 17), border=5), mr.GridConfig(500, border=0)],
)  # fmt: skip
@pytest.mark.parametrize("jitter", [0.0, 1e-9, 0.1])
def test_every_source_once_in_parent_pixels(grid, jitter):
    mapper = mr.catalog_mapper(find, x=("x", "xmin"), y=("y", "ymin"), jitter=jitter)
    found = catalog(mapper, grid)
    found.sort("id")
    assert found["id"].tolist() == list(range(len(TRUTH)))
    positions = np.column_stack([found["x"], found["y"]])
    np.testing.assert_allclose(positions, TRUTH + ORIGIN, rtol=0, atol=jitter + 1e-9)
    corners = np.column_stack([found["xmin"], found["ymin"]])
    np.testing.assert_array_equal(corners, np.floor(positions))
    cells = grid.build(exposure())
    if jitter == 0:
        owners = [
            cells[i].core.covers(x, y) for i, (x, y) in zip(found["cell"], positions, strict=True)
        ]
        assert all(owners)


def test_places_on_the_sky():
    mapper = functools.partial(mr.catalog_mapper(find), jitter=0.0)
    grid = mr.GridConfig(30, border=8)
    run = mr.map_reduce(exposure(wcs=SKY), mapper, grid=grid, reducer="concatenate")
    found = run.compute(scheduler="synchronous")
    assert len(found) == len(TRUTH)
    right = SKY.pixel_to_world(found["x"], found["y"])
    np.testing.assert_allclose(found["ra"], right.ra.deg, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["dec"], right.dec.deg, rtol=0, atol=1e-12)
    assert found["ra"].unit == "deg"


def structured(columns):
    return np.rec.fromarrays(list(columns.values()), names=list(columns)).view(np.ndarray)


@pytest.mark.parametrize(
    "kind",
    [dict, Table, QTable, pd.DataFrame, pl.DataFrame, pa.table, pa.record_batch, structured],
)
def test_tables_of_every_kind(kind):
    found = catalog(mr.catalog_mapper(find, kind=kind), mr.GridConfig(30, border=8))
    assert isinstance(found, Table)
    assert sorted(found["id"].tolist()) == list(range(len(TRUTH)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-3, 43), st.floats(-3, 23)), max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_the_owner_rule(sources, seed):
    """What several cells see as one thing, with errors, is neither lost nor doubled."""
    rng = np.random.default_rng(seed)
    apart = [
        s
        for i, s in enumerate(sources)
        if all(np.hypot(*np.subtract(s, o)) > 3 for o in sources[:i])
    ]
    cores = [mr.Box(x, y, 10, 10) for x in (0, 10, 20, 30) for y in (0, 10)]
    rows = []
    for number, source in enumerate(apart):
        for place, core in enumerate(cores):
            seen = np.add(source, rng.uniform(-0.1, 0.1, 2))
            if core.grow(1).covers(*seen.tolist()):
                rows.append((number, place, *seen))
    if not rows:
        return
    table = np.array(rows)
    stays = owned(cores, table[:, 1].astype(int), table[:, 2:])
    kept, counts = np.unique(table[stays, 0], return_counts=True)
    assert kept.tolist() == sorted({row[0] for row in rows})
    assert (counts == 1).all()


def test_sources_of_one_cell_are_not_the_same_however_close():
    points = np.array([[5.0, 5.0], [5.1, 5.0]])
    assert owned([mr.Box(0, 0, 10, 10)], np.array([0, 0]), points).all()


def bad(expanded, columns):
    return columns


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"X": [1.0]}, ValueError, "bad returned no column 'x'; it has X: say which are pos"),
        ({"x": [1.0, np.nan], "y": [1.0, 1.0]}, ValueError, "1 of the 2 rows of bad have no pos"),
        ("text", TypeError, "bad returned str; a catalog is a table"),
        (
            {"x": [1.0] * u.deg, "y": [1.0]},
            ValueError,
            "column x of bad is in deg, which is no pix",
        ),
    ],
)
def test_catalogs_that_are_none(columns, error, message):
    with pytest.raises(error, match=message):
        catalog(mr.catalog_mapper(bad, columns=columns), mr.GridConfig(200))


def test_mistakes_are_told_before_the_run():
    with pytest.raises(TypeError, match="catalog_mapper takes a function of a cell, got 5"):
        mr.catalog_mapper(5)
    with pytest.raises(ValueError, match="makes catalogs, of which 'average' makes no exposure"):
        mr.map_reduce(exposure(), mr.catalog_mapper(find))


SOURCES = mr.catalog_mapper(find)


def sources_or_fail(sub, expanded, full_bbox, cell):
    if cell.index == 3:
        raise ValueError("no luck")
    return SOURCES(sub, expanded, full_bbox)


@pytest.mark.parametrize("suffix", ["parquet", "fits", "ecsv", "csv"])
def test_the_command_writes_a_catalog(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exposure(wcs=SKY).write("in.fits")
    out, more = f"out.{suffix}", ["--reducer", "concatenate", "--cell", "30", "--no-progress"]
    result = run_command("in.fits", out, "SOURCES", *more)
    assert result.exit_code == 0, result.output
    assert f"wrote {out}: {len(TRUTH)} rows" in result.output
    found = Table.read(out, **({"format": "ascii.csv"} if suffix == "csv" else {}))
    assert sorted(found["id"].tolist()) == list(range(len(TRUTH)))
    result = run_command("in.fits", out, "SOURCES", *more)
    assert result.exit_code == 1
    assert "out" in result.output
    result = run_command(
        "in.fits", out, "sources_or_fail", *more, "--overwrite", "--on-error", "mask"
    )
    assert result.exit_code == 3
    assert "1 failed" in result.output
    assert "failed: cell 3, core" in result.output


def test_the_command_tells_mistakes_before_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exposure().write("in.fits")
    for out, more, message in (
        ("a.txt", ["--reducer", "concatenate"], "a catalog ends in .parquet, .fits, .ecsv, .csv"),
        ("a.csv", ["--reducer", "concatenate", "--picture", "a.png"], "has no --variance and no"),
        ("a.fits", [], "makes catalogs, of which 'average' makes no exposure"),
    ):
        result = run_command("in.fits", out, "SOURCES", *more)
        assert result.exit_code == 1
        assert message in result.output
        assert not (tmp_path / out).exists()


def run_command(source, out, mapper, *more):
    return CliRunner().invoke(main, ["map", source, out, "--mapper", f"{__name__}:{mapper}", *more])


def drawn(expanded, *, rng, cell, above=0.0):
    return {"x": [expanded.shape[1] / 2], "y": [expanded.shape[0] / 2], "r": [rng.random()]}


def test_the_function_may_name_cell_and_rng():
    grid = mr.GridConfig(30, border=4)
    found = catalog(mr.catalog_mapper(drawn), grid)
    assert len(set(found["r"].tolist())) == len(grid.build(exposure()))
    assert found["r"].tolist() == catalog(mr.catalog_mapper(drawn), grid)["r"].tolist()


def nothing(expanded):
    return None


def test_no_sources_at_all(tmp_path):
    found = catalog(mr.catalog_mapper(nothing), mr.GridConfig(30))
    assert (len(found), found.colnames) == (0, ["x", "y", "cell"])
    assert write_catalog([], tmp_path / "a.ecsv") == 0


def lost_row(sub, expanded, full_bbox, cell):
    return {"x": [np.nan if cell.index == 2 else 5.0], "y": [cell.index]}


def test_positions_that_are_none_name_their_cell():
    reducer = mr.Concatenate(position=("x", "y"))
    run = mr.map_reduce(exposure(), lost_row, grid=mr.GridConfig(30), reducer=reducer)
    with pytest.raises(ValueError, match="1 rows, the first of cell 2, have no position"):
        run.compute(scheduler="synchronous")
