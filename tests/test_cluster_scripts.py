"""The scripts in examples/cluster: they run skyfold on a cluster, and leave nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from calibration.cli import main as skyfold
from calibration.simulate.run import simulate_camera, simulate_run
from mapreduce import read_exposure, simulate_exposure
from tests.conftest import CHECKOUT
from tests.support import assert_same

SCRIPTS = CHECKOUT / "examples" / "cluster"
BATCH, SLURM = SCRIPTS / "batch.sh", SCRIPTS / "slurm.sh"
BASH = shutil.which("bash")
LOOPBACK = next(
    name
    for name, addresses in psutil.net_if_addrs().items()
    if any(address.address == "127.0.0.1" for address in addresses)
)
PRODUCTS = ("photo_calibs", "atmospheres", "tract_stars")

pytestmark = pytest.mark.skipif(BASH is None, reason="there is no bash")

# As SLURM's: that many tasks, all of which end with it.
SRUN = """\
for word; do case $word in --ntasks=*) n=${word#*=};; --*) ;; *) break;; esac; shift; done
echo "$n" >> srun.log
trap 'kill $(jobs -p)' TERM
while [ "$n" -gt 0 ]; do "$@" & n=$((n - 1)); done
wait; wait
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with input, and what a local run makes of it."""
    folder = tmp_path_factory.mktemp("made")
    simulate_exposure(300, seed=1).exposure.write(folder / "sky.fits")
    simulate_run(folder / "run", n_visits=3, n_stars=50, camera=simulate_camera(2, 1))
    for command in (
        ["map", folder / "sky.fits", folder / "flat.fits", "--mapper", "background"],
        ["products", folder / "run", folder / "products"],
    ):
        done = CliRunner().invoke(skyfold, [*map(str, command), "--no-progress"])
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a current folder of its own, with commands that this Python runs."""
    shims = {"skyfold": "-m calibration.cli", "dask": "-m dask", "python3": ""}
    shims = {name: f'exec {sys.executable} {words} "$@"\n' for name, words in shims.items()}
    monkeypatch.chdir(tmp_path)
    for name, text in {**shims, "srun": SRUN}.items():
        command(name, text)
    return tmp_path


def command(name, text):
    """Make a command of the current folder."""
    path = Path("bin", name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{BASH}\n{text}")
    path.chmod(0o755)


def environment(made, **more):
    bin_ = Path("bin").absolute()
    inputs = {"EXPOSURE": made / "sky.fits", "FGCM_RUN": made / "run", "OUT": "out"}
    paths = {"PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": CHECKOUT, "TMPDIR": Path.cwd()}
    values = {**inputs, **paths, "INTERFACE": LOOPBACK, "WORKERS": 2, "PATIENCE": 60, **more}
    return {**os.environ, **{name: str(value) for name, value in values.items()}}


def started(script, made, **more):
    """Start a script; its output goes to a file, which no process that outlives it keeps open."""
    with open("out.log", "w") as log:
        return subprocess.Popen(
            [BASH, script],
            env=environment(made, **more),
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=heed_interrupts,
        )


def heed_interrupts():
    """Undo what a shell does to its background jobs, of which the tests may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process):
    """Return the exit code and the output of a script, once nothing of its cluster is left."""
    code = process.wait(timeout=120)
    assert not cluster_processes()
    return code, Path("out.log").read_text()


def cluster_processes():
    """Return the processes of a cluster in the current folder."""
    here, found = str(Path.cwd()), []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        facts = process.info
        if facts["cwd"] == here and facts["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(facts["cmdline"] or ()))
    return [line for line in found if "dask" in line or "spawn_main" in line]


def says(text, seconds=60):
    """Wait until a script says something."""
    until = time.monotonic() + seconds
    while text not in Path("out.log").read_text():
        assert time.monotonic() < until, Path("out.log").read_text()
        time.sleep(0.05)


def assert_same_products(ours, expected):
    for product in PRODUCTS:
        names = sorted(path.name for path in (expected / product).iterdir())
        assert names
        assert sorted(path.name for path in (ours / product).iterdir()) == names
        for name in names:
            assert (ours / product / name).read_bytes() == (expected / product / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("script", [BATCH, SLURM], ids=lambda path: path.stem)
def test_a_job_makes_what_a_local_run_makes(script, made, folder):
    slurm = {"SLURM_NTASKS": 2, "SLURM_CPUS_PER_TASK": 1, "SLURM_MEM_PER_CPU": 1000}
    slurm["SLURM_SUBMIT_DIR"] = SCRIPTS
    code, said = ended(started(script, made, **slurm if script == SLURM else {}))
    assert code == 0, said
    assert re.search(r"^2 workers at tcp://127\.0\.0\.1:\d+$", said, re.MULTILINE)
    flat, expected = (read_exposure(f / "flat.fits").compute() for f in (folder / "out", made))
    assert_same(flat, expected)
    assert_same_products(folder / "out" / "products", made / "products")
    assert sorted(os.listdir("out")) == ["flat.fits", "products"]
    assert Path("srun.log").exists() == (script == SLURM)


@pytest.mark.slow
def test_what_is_complete_is_kept_and_the_first_failure_is_passed_on(made, folder):
    Path("out").mkdir()
    Path("out", "flat.fits").write_text("complete")
    command("fails", 'echo "$@"\nexit 7\n')
    code, said = ended(started(BATCH, made, SKYFOLD="fails", WORKERS=1))
    assert code == 7
    assert re.search(r"^products .*/run out/products --scheduler tcp://", said, re.MULTILINE)
    assert not re.search(r"^map", said, re.MULTILINE)
    (logs,) = Path("out").glob("cluster.*")
    assert said.endswith(f"exit code 7; the logs of the cluster are in {logs}\n")
    assert "tcp://" in (logs / "workers.log").read_text()


@pytest.mark.slow
def test_a_signal_ends_everything(made, folder):
    command("waits", "trap 'echo told; exit 1' INT\necho waits\nwhile :; do sleep 0.1; done\n")
    process = started(BATCH, made, SKYFOLD="waits", WORKERS=1)
    says("waits")
    assert cluster_processes()
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 143
    assert "told" in said


@pytest.mark.slow
def test_without_workers_it_does_not_wait(made, folder):
    code, said = ended(started(BATCH, made, LAUNCH="false"))
    assert code == 1
    assert "the workers have ended" in said


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["EXPOSURE", "FGCM_RUN", "OUT"])
def test_what_is_to_be_done_must_be_said(missing, made, folder):
    code, said = ended(started(BATCH, made, **{missing: ""}))
    assert code != 0
    assert f"{missing}: which " in said
    assert not Path("out").exists()


# The scripts as texts


@pytest.mark.parametrize("script", [BATCH, SLURM], ids=lambda path: path.stem)
def test_syntax(script):
    subprocess.run([BASH, "-n", script], check=True)


def test_slurm_runs_the_commands_of_the_batch_script():
    text = SLURM.read_text()
    assert text.splitlines()[-1].startswith("exec bash ")
    assert text.splitlines()[-1].endswith('/batch.sh"')
    assert not re.search(r"^\s*(skyfold|dask) ", text, re.MULTILINE)
    cards = re.findall(r"^#SBATCH (--[\w-]+)=\S+$", text, re.MULTILINE)
    assert len(cards) == text.count("\n#SBATCH")
    assert text.index("#SBATCH") < text.index("set -euo")  # SLURM stops reading at a command


def test_the_documents_show_the_commands():
    section = (CHECKOUT / "docs" / "cluster.md").read_text()
    for script in (BATCH, SLURM):
        assert str(script.relative_to(CHECKOUT)) in section
    shown = re.findall(r"^    skyfold (.*)$", section, re.MULTILINE)
    run = re.findall(r'watched "\$SKYFOLD" (.*) --no-progress$', BATCH.read_text(), re.MULTILINE)
    assert len(run) == 2
    assert [words.replace("$flat", "$OUT/flat.fits") for words in run] == shown
