"""The code in README and docs/ runs, from top to bottom, as a reader would paste it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run -->\n)?```(python|sh)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)\)")


def blocks(document):
    """Return the blocks that are run, as (language, code)."""
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [(language, code) for skip, language, code in found if not skip]


def script(document):
    """Return a program that runs the blocks of a document one after the other."""
    lines = ["import subprocess"]
    for language, code in blocks(document):
        shell = f"subprocess.run(['bash', '-ec', {code!r}], check=True)"
        lines.append(code if language == "python" else shell)
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_code_runs(document, tmp_path):
    if not blocks(document):
        pytest.skip("there is no code to run")
    # Scripts, and the package, of the environment that runs the tests.
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    done = subprocess.run(
        [sys.executable, "-c", script(document)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    targets = [t for t in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in t]
    missing = [target for target in targets if not Path(document.parent, target).exists()]
    assert missing == []
