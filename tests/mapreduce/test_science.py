"""The checks of the science, on reference data that is not part of the project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("check", "adapter"), [("check_detection", "detect")])
def test_checks_from_outside(shared, check, adapter):
    command = [sys.executable, str(shared / "checks" / f"{check}.py")]
    command += [str(shared / "data" / "science"), f"tests.mapreduce.science_adapters:{adapter}"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
