"""Fixtures for all tests."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

CHECKOUT = Path(__file__).resolve().parents[1]
DATA = CHECKOUT / "tests" / "data"
# Worker processes start with this process's search path, and import mappers of test files from it.
sys.path.insert(0, str(CHECKOUT))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference data, which is not part of the project."""
    path = Path(os.environ.get("SKYFOLD_SHARED", CHECKOUT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"there is no reference data at {path}; set SKYFOLD_SHARED")
    return path


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Return a cluster of two processes, on any free port; expected failures are not logged."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """Make the cluster the place where everything is computed."""
    with Client(cluster) as client:
        yield client


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let matplotlib not be installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
