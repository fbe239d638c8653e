"""Doors by which tables come in: FITS, Parquet, ECSV, configurations, and the runs made of them."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table import Table

from calibration import (
    Camera,
    FgcmRun,
    ProductsConfig,
    VisitPhotoCalib,
    build_products,
    calibrate_sources,
    simulate_run,
)
from calibration.tables.files import open_tables, read_table, write_table

from .doors import Door, Inconsistent, digest

COUNT = 60
PHOTO_CALIBS = {
    42: VisitPhotoCalib(42, [3, 7], [(0, 0, 100, 100)] * 2, [[[2.0]]] * 2, [2.0] * 2, [0] * 2)
}
NEEDED = ("visit", "detector", "x", "y", "instFlux", "instFluxErr")


def columns() -> dict[str, Any]:
    """Return sources with columns of all kinds, some of whose values are missing."""
    rng = np.random.default_rng(2)
    gaps = np.arange(COUNT) % 7 == 3
    return {
        "visit": np.full(COUNT, 42),
        "detector": np.ma.array(rng.choice([3, 7], COUNT).astype("i2"), mask=gaps),
        "x": rng.uniform(0, 99, COUNT),
        "y": rng.uniform(0, 99, COUNT),
        "instFlux": rng.uniform(100, 200, COUNT),
        "instFluxErr": rng.uniform(1, 5, COUNT).astype("f4"),
        "id": np.arange(COUNT, dtype="u8") + 2**63,
        "flag": np.ma.array(rng.random(COUNT) < 0.5, mask=gaps),
        "text": np.array(["a", "bcd", "", "SIM-R"])[rng.integers(0, 4, COUNT)],
        "pair": np.ma.array(rng.integers(0, 99, (COUNT, 2)), mask=np.stack([gaps, gaps], axis=1)),
    }


# Seeds


def ours(suffix: str) -> Callable[[Path], None]:
    return lambda folder: write_table(folder / f"a{suffix}", Table(columns(), meta={"VISIT": 42}))


def foreign_fits(folder: Path) -> None:
    """A table with scaled, unread and repeated things, as many programs write them."""
    made = columns()
    formats = {"visit": "K", "detector": "I", "x": "D", "y": "D", "instFlux": "D"}
    formats |= {"instFluxErr": "E", "pair": "2J", "text": "5A"}
    cols = [fits.Column(n, f, array=np.ma.getdata(made[n])) for n, f in formats.items()]
    lists = np.empty(COUNT, object)
    lists[:] = [np.arange(i % 3, dtype="f4") for i in range(COUNT)]
    cols += [
        fits.Column("lists", "PE()", array=lists),
        fits.Column("bits", "3X", array=np.ones((COUNT, 3), bool)),
    ]
    hdu = fits.BinTableHDU.from_columns(cols)
    hdu.header.update({"TNULL2": 3, "TDIM7": "(2,1)"})
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / "a.fits")


def foreign_parquet(folder: Path) -> None:
    """A table of kinds that we do not write, in several row groups."""
    kinds = {"id": pa.uint64()}
    made = {n: pa.array(v.tolist(), kinds.get(n)) for n, v in columns().items()}
    made["text"] = made["text"].dictionary_encode()
    made["days"] = pa.array(range(COUNT), pa.timestamp("s"))
    made["ragged"] = pa.array([[*range(i % 3)] for i in range(COUNT)])
    pq.write_table(pa.table(made), folder / "a.parquet", row_group_size=25, compression="gzip")


@cache
def simulated() -> Path:
    """Return the folder of a run that is there as long as this process."""
    place = mkdtemp()
    atexit.register(shutil.rmtree, place)
    simulate_run(Path(place, "run"), n_visits=2, n_stars=60, observations=False)
    return Path(place, "run")


def run_of_fits(folder: Path) -> None:
    for path in simulated().iterdir():
        if not path.name.startswith(("truth", "simulation", "fgcmStandardPass")):
            shutil.copy(path, folder)


def run_of_parquet(folder: Path) -> None:
    """The same run, its catalogs in Parquet."""
    run_of_fits(folder)
    for path in sorted(folder.glob("fgcm*.fits")):
        if "LookUp" in path.name:
            continue
        (table,) = open_tables(path)
        values = Table(table.read(list(table.columns)), meta=table.meta)
        for name, field in table.columns.items():
            values[name].unit = field.unit or None
        write_table(path.with_suffix(".parquet"), values)
        path.unlink()


def camera(folder: Path) -> None:
    shutil.copy(simulated() / "camera.ecsv", folder / "a.ecsv")


def yaml(folder: Path) -> None:
    shutil.copy(simulated() / "products.yaml", folder / "a.yaml")


def toml(folder: Path) -> None:
    lines = ["tract_stars = false", "cycle_number = 3", "magnitude_error_floor = 0.004"]
    lines += ["[physical_filter_map]", '"SIM-G" = "g"', "[color_terms.g]", 'primary = "g"']
    lines += ['secondary = "r"', "c0 = 0.1", "c1 = -0.5"]
    (folder / "a.toml").write_text("\n".join(lines))


# Uses


def use_table(name: str) -> Callable[[Path], Any]:
    """Read a table whole, by block and by row, calibrate its sources, and read what is written."""

    def use(folder: Path) -> Any:
        (table,) = open_tables(folder / name)
        repr(table)
        names = [n for n, field in table.columns.items() if not field.fault]
        whole = readable(table, names)
        names = list(whole)
        check_parts(table, names, whole)
        with dask.config.set(scheduler="synchronous"):
            report = calibrate_sources(folder / name, PHOTO_CALIBS).write(folder / "out")
        left = [path.name for path in (folder / "out").iterdir() if path.name.startswith(".")]
        if left:
            raise Inconsistent(f"{left} were left behind")
        for why in report.failed.values():
            raise OSError(why)  # as an error of its own
        found = read_table(folder / "out" / "a.parquet")
        facts = [str(report.tally), sorted(report.left_out), table.columns, len(table)]
        return facts, [(n, digest_of(v)) for n, v in whole.items()], digest_of(found["flux"])

    return use


def readable(table: Any, names: list[str]) -> dict[str, Any]:
    """Return columns; of those that lie when they say what they hold, none."""
    found = {}
    for name in names:
        try:
            found |= table.read([name])
        except ValueError:
            if name in NEEDED:
                raise
    return found


def check_parts(table: Any, names: list[str], whole: dict[str, Any]) -> None:
    if not names:
        return
    parts = [*table.blocks(names)]
    rows = np.arange(len(table))[::-3]
    some = table.read(names, rows)
    for name, values in whole.items():
        joined = np.ma.concatenate([values[:0], *(part[name] for part in parts)])
        if digest_of(joined) != digest_of(values):
            raise Inconsistent(f"{name} by block differs from that of the whole")
        if digest_of(some[name]) != digest_of(values[rows]):
            raise Inconsistent(f"{name} by row differs from that of the whole")


def digest_of(values: Any) -> tuple[Any, ...]:
    """Return what tells values from others; whatever is under the mask."""
    mask = np.ma.getmaskarray(values)
    plain = np.where(mask, np.zeros((), values.dtype), np.ma.getdata(values))
    return values.dtype.kind, values.shape, digest(mask), str(plain.tolist())


def use_run(folder: Path) -> Any:
    """Open a run, check it, and write its products."""
    config = ProductsConfig(compose_wcs_jacobian=True)
    with dask.config.set(scheduler="synchronous"):
        run = FgcmRun.open(folder)
        run.check()
        report = build_products(run, config).write(folder / "out")
    left = [path.name for path in (folder / "out").rglob(".*")]
    if left:
        raise Inconsistent(f"{left} were left behind")
    found = {}
    for path in sorted((folder / "out").rglob("*.fits")):
        table = read_table(path)
        found[path.name] = [(n, digest_of(table[n])) for n in table.colnames]
    return str(report).replace(str(folder), ""), found


def use_camera(folder: Path) -> Any:
    found = Camera.open(folder / "a.ecsv")
    return repr(found), [repr(detector) for detector in found.values()]


def use_config(name: str) -> Callable[[Path], Any]:
    return lambda folder: ProductsConfig.open(folder / name)


TABLES = (
    Door("table.fits", ours(".fits"), use_table("a.fits")),
    Door("table.parquet", ours(".parquet"), use_table("a.parquet")),
    Door("foreign.fits", foreign_fits, use_table("a.fits")),
    Door("foreign.parquet", foreign_parquet, use_table("a.parquet")),
    Door("camera.ecsv", camera, use_camera),
    Door("config.yaml", yaml, use_config("a.yaml")),
    Door("config.toml", toml, use_config("a.toml")),
    Door("run of FITS", run_of_fits, use_run),
    Door("run of Parquet", run_of_parquet, use_run),
)
