"""Standard stars by tract: tables and files are what a selection from the whole catalog gives."""

from __future__ import annotations

import os
import pickle
import sys
import warnings

import dask
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from dask import delayed
from dask.base import tokenize

from calibration.run.columns import STARS
from calibration.run.problems import RunWarning
from calibration.run.run import FgcmRun
from calibration.sky.skymap import HealpixSkyMap, RingsSkyMap
from calibration.stars import shards
from calibration.stars.rows import StarReader
from calibration.stars.tracts import TractStars, tract_stars
from calibration.tables.catalog import Catalog
from calibration.tables.files import read_table
from tests.calibration.fgcm_cases import RUN, hdu_of, write_parquet
from tests.calibration.products_cases import stamps

BANDS = ("g", "r", "i")
SKY = RingsSkyMap(5, ra_start=20.0)
OFFSETS = {"i": 0.5, "r": -0.25, "g": 0.125, "y": 9.0}


def star_table(count=300, seed=1):
    """Return the standard stars of the whole sky, in no order."""
    rng = np.random.default_rng(seed)
    table = Table(meta={"BANDS": ",".join(BANDS)})
    table["id"] = rng.permutation(count) + 10**12
    table["coord_ra"] = rng.uniform(0, 2 * np.pi, count)
    table["coord_dec"] = np.arcsin(rng.uniform(-1, 1, count))
    table["isolated_star_id"] = table["id"] * 7
    table["ngood"] = rng.integers(0, 3, (count, 3)).astype("i4")
    table["mag_std_noabs"] = rng.uniform(15, 23, (count, 3)).astype("f4")
    table["mag_std_noabs"][np.asarray(table["ngood"]) == 0] = 99
    table["magErr_std"] = np.where(table["ngood"] > 0, 0.01, 99).astype("f4")
    for name, unit in {"coord_ra": "rad", "coord_dec": "rad", "mag_std_noabs": "mag"}.items():
        table[name].unit = unit
    return table


def in_order(table):
    """Return the stars ordered by position."""
    tracts = SKY.tract(table["coord_ra"], table["coord_dec"])
    return table[np.argsort(tracts, kind="stable")]


def catalog_of(data):
    catalog, findings = Catalog.of(data, STARS)
    assert not findings.errors
    return catalog


def stars_of(data, sky_map=SKY, offsets=None, partition=37):
    return TractStars(catalog_of(data), BANDS, sky_map, offsets, partition=partition)


def stored(folder, kind, table):
    """Return the table in memory, or the path of its file."""
    if kind == "memory":
        return table
    path = folder / f"stars.{kind}"
    if kind == "fits":
        fits.HDUList([fits.PrimaryHDU(), hdu_of(table)]).writeto(path)
    else:
        columns = {name: np.asarray(table[name]) for name in table.colnames}
        units = {name: str(table[name].unit) for name in table.colnames if table[name].unit}
        write_parquet(path, columns, units=units, meta=dict(table.meta), rows_per_group=50)
    return path


def select(table, tract, sky_map=SKY, offsets=None):
    """Return the columns of a tract's stars, of the whole table in memory."""
    rows = table[sky_map.tract(table["coord_ra"], table["coord_dec"]) == tract]
    columns = {"fgcm_id": rows["id"], "isolated_star_id": rows["isolated_star_id"]}
    columns |= {
        "ra": np.rad2deg(np.asarray(rows["coord_ra"])),
        "dec": np.rad2deg(np.asarray(rows["coord_dec"])),
    }
    for i, band in enumerate(BANDS):
        seen = np.asarray(rows["ngood"][:, i]) > 0
        magnitude = np.asarray(rows["mag_std_noabs"][:, i], float) + (offsets or {}).get(band, 0)
        columns[f"mag_{band}"] = np.where(seen, magnitude, np.nan)
        error = np.asarray(rows["magErr_std"][:, i], float)
        columns[f"magErr_{band}"] = np.where(seen, error, np.nan)
        columns[f"ngood_{band}"] = rows["ngood"][:, i]
    return {name: np.asarray(values) for name, values in columns.items()}


def assert_holds(table, columns):
    assert table.colnames == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(np.asarray(table[name]), values, err_msg=name)
        assert table[name].dtype.kind == values.dtype.kind


@pytest.mark.slow
@pytest.mark.parametrize("order", [lambda table: table, in_order])
@pytest.mark.parametrize("kind", ["memory", "fits", "parquet"])
def test_each_tract_has_its_stars(tmp_path, kind, order):
    table = order(star_table())
    stars = stars_of(stored(tmp_path, kind, table))
    tracts, counts = np.unique(
        SKY.tract(
            np.rad2deg(np.asarray(table["coord_ra"])), np.rad2deg(np.asarray(table["coord_dec"]))
        ),
        return_counts=True,
    )
    assert list(stars) == tracts.tolist()
    assert stars.counts == dict(zip(tracts.tolist(), counts.tolist(), strict=True))
    with dask.config.set(scheduler="sync"):
        found = dask.compute(dict(stars))[0]
    for tract, rows in found.items():
        assert_holds(rows, select(table, tract))
        assert rows["ngood_g"].dtype == np.int32
        assert rows["mag_r"].dtype == np.float64


def test_tables_say_what_they_are():
    stars = stars_of(star_table(), offsets=OFFSETS)
    table = stars[next(iter(stars))].compute(scheduler="sync")
    units = {name: str(table[name].unit) for name in table.colnames if table[name].unit}
    mags = {f"{name}_{band}": "mag" for name in ("mag", "magErr") for band in BANDS}
    assert units == {"ra": "deg", "dec": "deg"} | mags
    assert table.meta == {
        "TRACT": next(iter(stars)),
        "BANDS": "g,r,i",
        "SKYMAP": "RingsSkyMap(num_rings=5, ra_start=20.0)",
        "OFFSETS": "0.125000,-0.250000,0.500000",
    }


def test_real_stars(shared):
    path = shared / "data" / "fgcm_run" / "fgcmStandardStars.fits"
    table = Table.read(path)
    sky_map = RingsSkyMap(120)
    catalog = catalog_of(path)
    stars = TractStars(catalog, "griz", sky_map, partition=1000)
    tables = dask.compute(dict(stars), scheduler="sync")[0]
    assert sum(map(len, tables.values())) == len(table) == 4935
    assert len(stars) > 1
    for tract, rows in tables.items():
        mine = np.isin(table["id"], rows["fgcm_id"])
        np.testing.assert_array_equal(rows["fgcm_id"], table["id"][mine])
        west, east, south, north = sky_map.box(tract)
        assert ((rows["ra"] > west) & (rows["ra"] < east)).all()
        assert ((rows["dec"] >= south) & (rows["dec"] < north)).all()
        magnitudes = np.asarray(table["mag_std_noabs"])[mine]
        expected = np.where(magnitudes == 99, np.nan, magnitudes)
        found = np.stack([rows[f"mag_{band}"] for band in "griz"], axis=1)
        np.testing.assert_array_equal(found, expected)
    bad = sum(int(np.isnan(rows["mag_z"]).sum()) for rows in tables.values())
    assert bad == 3


def test_stars_of_a_run():
    run = FgcmRun.open(RUN)
    stars = tract_stars(run, HealpixSkyMap(8), offsets=dict.fromkeys("griz", 0.0))
    assert sum(stars.counts.values()) == len(run.standard_stars)
    assert stars[next(iter(stars))].compute(scheduler="sync").meta["BANDS"] == "g,r,i,z"
    with pytest.raises(ValueError, match=r"no standard_stars; open it with standard_stars="):
        tract_stars(FgcmRun.open(RUN, standard_stars=None), SKY)


# Magnitudes


def test_offsets_are_added():
    table = star_table()
    for offsets in (OFFSETS, delayed(lambda: OFFSETS)()):
        stars = stars_of(table, offsets=offsets)
        for tract in list(stars)[:3]:
            found = stars[tract].compute(scheduler="sync")
            assert_holds(found, select(table, tract, offsets=OFFSETS))


def test_a_band_without_a_level_has_no_magnitudes():
    offsets = {"g": 0.1, "r": np.nan, "i": 0.0}
    stars = stars_of(star_table(), offsets=offsets)
    found = stars[next(iter(stars))].compute(scheduler="sync")
    assert np.isnan(found["mag_r"]).all()
    assert np.isnan(found["magErr_r"]).all()
    assert np.isfinite(found["mag_g"]).any()
    assert found["ngood_r"].any()


def test_values_that_are_no_magnitude():
    table = star_table(6)
    table["coord_ra"], table["coord_dec"] = 0.1, 0.1
    table["mag_std_noabs"] = np.full((6, 3), 20.0)
    table["magErr_std"] = np.full((6, 3), 0.02)
    table["mag_std_noabs"][:, 0] = [99, np.nan, np.inf, -9999, 20, 20]
    table["magErr_std"][:, 0] = [0.02, 0.02, 0.02, 0.02, 99, np.nan]
    stars = stars_of(table)
    (rows,) = dask.compute(*stars.values(), scheduler="sync")
    np.testing.assert_array_equal(rows["mag_g"], [np.nan] * 4 + [20, 20])
    assert np.isnan(rows["magErr_g"]).all()
    assert (rows["mag_r"] == 20).all()
    assert (rows["magErr_r"] == 0.02).all()


def test_bands_without_an_offset():
    match = "bands without a reference offset: r, i; with: g"
    with pytest.raises(ValueError, match=match):
        stars_of(star_table(), offsets={"g": 1.0})
    late = stars_of(star_table(), offsets=delayed({"g": 1.0}))
    with pytest.raises(ValueError, match=match):
        late[next(iter(late))].compute(scheduler="sync")
    with pytest.raises(TypeError, match="offsets are a mapping from band to mag, got 0.3"):
        stars_of(star_table(), offsets=0.3)


@pytest.mark.slow
def test_stars_need_not_be_isolated(tmp_path):
    table = star_table()
    table.remove_column("isolated_star_id")
    stars = stars_of(table)
    paths = stars.write(tmp_path / "out", "{tract}.fits")
    for tract, path in paths.items():
        found = stars[tract].compute(scheduler="sync")
        assert found.colnames[:3] == ["fgcm_id", "ra", "dec"]
        np.testing.assert_array_equal(Table.read(path)["fgcm_id"], found["fgcm_id"])


# Positions


@pytest.mark.slow
def test_stars_without_a_position():
    table = star_table()
    table["coord_ra"][[5, 40]] = np.nan
    table["coord_dec"][[77, 299]] = [-np.inf, 1.6]
    stars = stars_of(table)
    match = r"the standard stars: 4 of 300 stars, in rows 5, 40, 77, 299, have no position on"
    with pytest.warns(RunWarning, match=match):
        assert sum(stars.counts.values()) == 296
    keep = np.delete(np.arange(300), [5, 40, 77, 299])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for tract in stars:
            found = stars[tract].compute(scheduler="sync")
            assert_holds(found, select(table[keep], tract))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::calibration.run.problems.RunWarning")
def test_stars_without_a_position_are_in_no_file(tmp_path):
    table = star_table(100)
    table["coord_ra"][::2] = np.nan
    stars = stars_of(table, partition=9)
    paths = stars.write(tmp_path / "out", "{tract}.fits")
    ids = np.concatenate([Table.read(path)["fgcm_id"] for path in paths.values()])
    assert sorted(ids) == sorted(table["id"][1::2])


@pytest.mark.parametrize(
    ("count", "match"),
    [(0, "there are no stars, so there are no tracts"), (12, "12 of 12 stars, in rows 0, 1, 2")],
)
def test_no_star_in_any_tract(tmp_path, count, match):
    table = star_table(count)
    table["coord_dec"][:] = np.nan
    stars = stars_of(table)
    with pytest.warns(RunWarning, match=match):
        assert len(stars) == 0
    assert stars.write(tmp_path / "out") == {}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["stars.json"]


# Laziness


class Reads:
    """Counts the rows that a catalog gives."""

    def __init__(self, monkeypatch):
        self.rows = {"coord_ra": 0, "id": 0}
        read = Catalog.read

        def counting(catalog, columns=None, rows=None):
            found = read(catalog, columns, rows)
            for name in self.rows:
                self.rows[name] += len(found.get(name, ()))
            return found

        monkeypatch.setattr(Catalog, "read", counting)


def test_nothing_is_read_before_it_is_needed(monkeypatch):
    table = in_order(star_table())
    catalog = catalog_of(table)
    reads = Reads(monkeypatch)
    stars = TractStars(catalog, BANDS, SKY, partition=37)
    assert "300 stars of RingsSkyMap" in repr(stars)
    assert reads.rows == {"coord_ra": 0, "id": 0}
    tracts = list(stars)
    assert reads.rows == {"coord_ra": 300, "id": 0}
    assert f"300 stars in {len(tracts)} tracts" in repr(stars)
    lazy = [stars[tract] for tract in tracts]
    assert reads.rows == {"coord_ra": 300, "id": 0}
    table = lazy[4].compute(scheduler="sync")
    assert reads.rows == {"coord_ra": 300 + 2 * len(table), "id": len(table)}


def test_what_tracts_share_is_in_a_graph_once():
    offsets = delayed(lambda: OFFSETS)()
    stars = stars_of(star_table(), offsets=offsets)
    tracts = list(stars)
    assert len(dict(stars[tracts[0]].dask)) == 3
    together = set().union(*(dict(lazy.dask) for lazy in stars.values()))
    assert len(together) == len(tracts) + 2


def test_keys_and_what_is_no_key():
    stars = stars_of(star_table(40))
    there = list(stars)
    empty = next(tract for tract in range(SKY.n_tracts) if tract not in there)
    assert np.int64(there[0]) in stars
    for key in (empty, -1, SKY.n_tracts, "3", None, 1.0):
        assert key not in stars
        with pytest.raises(KeyError, match=f"tract {key} has no stars; {len(there)} tracts have"):
            stars[key]
    assert stars[np.int64(there[0])].key == stars[there[0]].key


def test_names_depend_on_what_is_computed():
    def key(**changes):
        stars = stars_of(star_table(seed=changes.pop("seed", 1)), **changes)
        return stars[next(iter(stars))].key

    keys = [key(), key(seed=2), key(sky_map=RingsSkyMap(5)), key(offsets=OFFSETS)]
    assert len(set(keys)) == 4
    assert key() == keys[0]
    assert tokenize(stars_of(star_table())) == tokenize(stars_of(star_table()))


def test_it_can_travel():
    stars = stars_of(star_table(), offsets=OFFSETS)
    again = pickle.loads(pickle.dumps(stars))
    assert again.counts == stars.counts
    tract = next(iter(stars))
    expected = stars[tract].compute(scheduler="sync")
    found = again[tract].compute(scheduler="sync")
    assert_holds(found, {name: expected[name] for name in expected.colnames})


def test_wrong_arguments():
    catalog = catalog_of(star_table())
    with pytest.raises(TypeError, match="sky_map must be a SkyMap, got int"):
        TractStars(catalog, BANDS, 120)
    with pytest.raises(ValueError, match="partition is at least 1, got 0"):
        TractStars(catalog, BANDS, SKY, partition=0)


# Files


@pytest.mark.slow
@pytest.mark.parametrize("order", [lambda table: table, in_order])
@pytest.mark.parametrize("kind", ["fits", "parquet"])
@pytest.mark.parametrize("partition", [1, 37, 10_000])
def test_files_hold_the_same_as_tables(tmp_path, monkeypatch, kind, order, partition):
    monkeypatch.setattr(shards, "ROWS", 4)
    monkeypatch.setattr(shards, "TRACTS", 5)
    monkeypatch.setattr(shards, "TASKS", 2)
    table = order(star_table(120))
    stars = stars_of(table, offsets=delayed(OFFSETS), partition=partition)
    done = []
    paths = stars.write(tmp_path / "out", f"t_{{tract:05d}}.{kind}", progress=done.append)
    assert list(paths) == list(stars)
    names = {path.name for path in paths.values()}
    assert set(os.listdir(tmp_path / "out")) == {"stars.json", *names}
    assert sum(done) == len(stars)
    assert len(done) > 1
    for tract, path in paths.items():
        assert path == tmp_path / "out" / f"t_{tract:05d}.{kind}"
        found = read_table(path)
        assert_holds(found, select(table, tract, offsets=OFFSETS))
        assert str(found["mag_g"].unit) == "mag"
        expected = stars[tract].compute(scheduler="sync").meta
        assert {key: found.meta[key] for key in expected} == expected


@pytest.mark.slow
def test_files_are_the_same_whoever_writes_them(tmp_path, client):
    path = stored(tmp_path, "fits", star_table())
    names = "sync", "threads", "cluster"
    for name in names:
        scheduler = {} if name == "cluster" else {"scheduler": name}
        with dask.config.set(**scheduler):
            stars_of(path, offsets=delayed(OFFSETS)).write(tmp_path / name, "{tract}.fits")
    first, *others = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in names)
    assert len(first) > 50
    assert all(other == first for other in others)


@pytest.mark.slow
def test_tables_on_a_cluster(client):
    table = star_table()
    stars = stars_of(table)
    tract = next(iter(stars))
    assert_holds(stars[tract].compute(), select(table, tract))


def test_some_tracts_alone(tmp_path, monkeypatch):
    table = in_order(star_table())
    stars = stars_of(table)
    some = list(stars)[3:6]
    reads = Reads(monkeypatch)
    paths = stars.write(tmp_path / "out", tracts=reversed(some), meta={"NOTE": "abc"})
    assert list(paths) == some
    assert reads.rows["id"] <= 2 * 37  # of the partitions that have them
    for tract, path in paths.items():
        found = read_table(path)
        assert_holds(found, select(table, tract))
        assert found.meta["NOTE"] == "abc"
    assert stars.write(tmp_path / "other", tracts=[]) == {}
    with pytest.raises(KeyError, match=r"tracts -1, 999 have no stars; \d+ tracts have"):
        stars.write(tmp_path / "out", tracts=[999, some[0], -1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fits", "parquet"])
def test_files_that_are_there(tmp_path, kind):
    stars, out, name = stars_of(star_table()), tmp_path / "out", f"{{tract}}.{kind}"
    paths = list(stars.write(out, name).values())
    before = stamps(out)
    assert list(stars.write(out, name).values()) == paths
    assert stamps(out) == before
    gone, damaged = paths[3], paths[7]
    gone.unlink()
    damaged.write_text("mine")
    stars.write(out, name)
    after = stamps(out)
    assert {n for n in after if after[n] != before.get(n)} == {gone.name, damaged.name}
    assert len(read_table(damaged)) == stars.counts[list(stars)[7]]


@pytest.mark.slow
def test_other_stars_are_refused(tmp_path):
    out = tmp_path / "out"
    stars_of(star_table()).write(out, "{tract}.fits")
    others = {
        "offsets": stars_of(star_table(), offsets=OFFSETS),
        "stars": stars_of(star_table(seed=2)),
        "sky_map": stars_of(star_table(), sky_map=RingsSkyMap(5)),
    }
    before = stamps(out)
    for what, other in others.items():
        with pytest.raises(FileExistsError, match=rf"tract stars made otherwise \({what} differ"):
            other.write(out, "{tract}.fits")
    assert stamps(out) == before
    paths = others["sky_map"].write(out, "{tract}.fits", overwrite=True)
    assert set(os.listdir(out)) == {"stars.json", *(path.name for path in paths.values())}


def test_directories_of_something_else(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="is not empty, and holds no tract stars"):
        stars_of(star_table()).write(tmp_path, overwrite=True)
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize("name", ["tract.fits", "{tract}.csv", "{tract}", "{visit}.fits", "{.fits"])
def test_names_of_no_file(tmp_path, name):
    with pytest.raises(ValueError, match=r"it must hold \{tract\} and end in \.fits or \.parquet"):
        stars_of(star_table()).write(tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_places_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        stars_of(star_table()).write(tmp_path / "nowhere" / "out")


def test_parquet_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'skyfold\[parquet\]'"):
        stars_of(star_table()).write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert stars_of(star_table()).write(tmp_path / "out", "{tract}.fits")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["sorting", "writing"])
def test_nothing_half_written_is_left(tmp_path, monkeypatch, when):
    def broken(*args, **kwargs):
        raise OSError("No space left on device")

    stars = stars_of(star_table())
    if when == "sorting":
        monkeypatch.setattr(StarReader, "partition", broken)
    else:
        last = f"{list(stars)[-1]}.fits"
        writer = shards.table_writer

        def some(path, *args, **kwargs):
            return broken() if path.name == last else writer(path, *args, **kwargs)

        monkeypatch.setattr(shards, "table_writer", some)
    with pytest.raises(OSError, match="No space left"), dask.config.set(scheduler="sync"):
        stars.write(tmp_path / "out", "{tract}.fits")
    left = [path for path in (tmp_path / "out").iterdir() if path.name != "stars.json"]
    assert all(path.suffix == ".fits" and not path.name.startswith(".") for path in left)
    assert [path.name for path in left if len(Table.read(path)) == 0] == []
    assert bool(left) == (when == "writing")


def test_a_scratch_file_that_was_cut_short(tmp_path, monkeypatch):
    whole = StarReader.partition
    monkeypatch.setattr(StarReader, "partition", lambda *args: whole(*args)[:-1])
    with pytest.raises(OSError, match=r"ends before row \d+; is the disk full"):
        stars_of(star_table()).write(tmp_path / "out", "{tract}.fits")


def test_a_catalog_that_changes(tmp_path):
    path = stored(tmp_path, "fits", star_table())
    stars = stars_of(path)
    tract = next(iter(stars))
    path.write_bytes(path.read_bytes() + bytes(2880))
    with pytest.raises(OSError, match="changed"):
        stars[tract].compute(scheduler="sync")
    with pytest.raises(OSError, match="changed"):
        stars.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tasks_are_bounded():
    counts = [3, 4, 5, 100, 1, 1, 1, 2, 6]
    places = np.zeros(2 * len(counts), shards.PLACE)
    places["tract"] = np.repeat(np.arange(10, 19), 2)
    places["count"] = np.repeat(counts, 2)
    groups = [np.unique(group["tract"]).tolist() for group in shards.task_groups(places, 16)]
    assert groups == [[10, 11], [12], [13], [14, 15, 16, 17], [18]]
    assert list(shards.task_groups(places[:0], 16)) == []


def test_a_large_tract_is_not_held_whole(tmp_path, monkeypatch):
    """All stars are in one tract, of which no more than a partition and a block are in memory."""
    table = star_table(600)
    table["coord_ra"], table["coord_dec"] = 1.0, 0.5
    monkeypatch.setattr(shards, "ROWS", 20)
    sizes = []
    blocks = shards.star_blocks

    def watched(*args):
        for block in blocks(*args):
            sizes.append(len(block))
            yield block

    monkeypatch.setattr(shards, "star_blocks", watched)
    stars = stars_of(table, partition=15)
    (path,) = stars.write(tmp_path / "out").values()
    assert sizes == [30] * 20
    np.testing.assert_array_equal(read_table(path)["fgcm_id"], table["id"])
