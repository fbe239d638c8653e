"""A small run, the configuration of its products, and what is compared of them."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np

from calibration.config.config import ProductsConfig
from calibration.products.build import build_products
from calibration.run.problems import RunWarning
from calibration.run.run import FgcmRun
from calibration.tables.files import read_table
from tests.calibration.fgcm_cases import RUN, tables
from tests.conftest import DATA

TABLE = DATA / "atmosphere_table.fits.gz"
CONFIG = ProductsConfig(tract_stars=False, atmosphere_table=str(TABLE))
VISITS = [60600001, 60600004, 60600009, 60601017, 60608003]
NO_ZEROPOINT = 60601017
VISIT = 60600004


@cache
def small_run():
    return FgcmRun.open(RUN)


def make_products(run=None, **config):
    return build_products(small_run() if run is None else run, CONFIG.replace(**config))


@cache
def _tables():
    return tables()


def make_run(change=None, **given):
    """Return the run with its tables in memory, after a change of them; it warns of nothing."""
    parts = {name: table.copy() for name, table in _tables().items()}
    if change is not None:
        change(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        return FgcmRun(**{"camera": RUN / "camera.ecsv", **parts, **given})


def files(directory):
    """Return the bytes of all files, by their names in a directory."""
    paths = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def stamps(directory):
    """Return when files were written: a file that is written again is another one."""
    paths = [path for path in Path(directory).rglob("*") if path.is_file()]
    found = {str(path.relative_to(directory)): path.stat() for path in paths}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


def states(report):
    """Return how many of each state there are, by product, of those that there are any of."""
    return {name: dict(sorted((+counts).items())) for name, counts in report.counts.items()}


def read(directory, product, visit, suffix="fits"):
    return read_table(Path(directory, product, f"{visit}.{suffix}"))


def assert_same_table(one, other):
    assert one.colnames == other.colnames
    for name in one.colnames:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        assert one[name].unit == other[name].unit


class Counted:
    """A function that notes the last argument of every call; visits, of those of products."""

    def __init__(self, function):
        self.function = function
        self.visits = []

    def __call__(self, *args):
        self.visits.append(args[-1])
        return self.function(*args)


def count(monkeypatch, name):
    """Count the calls of a function of `calibration.products.build`."""
    counted = Counted(getattr(__import__("calibration.products.build", fromlist=[name]), name))
    monkeypatch.setattr(f"calibration.products.build.{name}", counted)
    return counted.visits
