"""The notebooks run from top to bottom, and their committed outputs are fit to be seen."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.conftest import CHECKOUT

NOTEBOOKS = {path.name: path for path in sorted((CHECKOUT / "notebooks").glob("*.ipynb"))}
NEEDS = "notebooks are executed by nbclient and ipykernel: pip install 'skyfold[test]'"
LARGEST = 700_000  # bytes
OF_A_MACHINE = re.compile(r"/(?:tmp|home|root|Users|usr|opt|mnt|var|work)/\S+|\b[A-Z]:\\\S+")
ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")

each = pytest.mark.parametrize("name", NOTEBOOKS)


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(notebook):
    """Yield everything that outputs say in words."""
    for output in outputs(notebook):
        said = {"stream": output.get("text", ""), **output.get("data", {})}
        for kind, text in said.items():
            if not kind.startswith("image/"):
                yield re.sub(r"base64,[\w+/=]*", "", "".join(text))


def kinds(notebook):
    """Return of what kinds the outputs of each code cell are."""
    return [
        sorted({kind for output in cell["outputs"] for kind in output.get("data", ["text"])})
        for cell in code_cells(notebook)
    ]


@pytest.fixture
def committed(name):
    return json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))


def test_there_are_notebooks():
    assert list(NOTEBOOKS) == [
        "01_first_map_reduce.ipynb",
        "02_fgcm_products.ipynb",
        "03_scaling_out.ipynb",
    ]


@pytest.mark.slow
@each
def test_runs_from_top_to_bottom(name, committed, tmp_path, monkeypatch):
    """Without an error or a warning, and with outputs like those that are committed."""
    nbclient = pytest.importorskip("nbclient", reason=NEEDS)
    pytest.importorskip("ipykernel", reason=NEEDS)
    import nbformat

    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    folder = tmp_path / "folder"
    folder.mkdir()
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=120,
        startup_timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    assert [output["text"] for output in outputs(notebook) if output.get("name") == "stderr"] == []
    assert kinds(notebook) == kinds(committed)


@each
def test_what_is_committed_was_run_in_order(committed):
    counts = [cell["execution_count"] for cell in code_cells(committed)]
    assert counts == list(range(1, len(counts) + 1))
    assert all(cell["metadata"] == {} for cell in committed["cells"])
    assert not any(output["output_type"] == "error" for output in outputs(committed))
    assert not any(output.get("name") == "stderr" for output in outputs(committed))


@each
def test_what_is_committed_has_pictures_and_is_small(name, committed):
    pictures = [output for output in outputs(committed) if "image/png" in output.get("data", {})]
    assert pictures
    assert NOTEBOOKS[name].stat().st_size < LARGEST


@each
def test_what_is_committed_says_nothing_of_the_machine(committed):
    for text in texts(committed):
        assert OF_A_MACHINE.findall(text) == []
        assert set(ADDRESS.findall(text)) <= {"127.0.0.1"}
