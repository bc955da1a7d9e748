"""Jobs forked from a warm process behave as jobs of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from distillbench import warm
from distillbench.backends import missing_reason
from distillbench.spent import read_spent

WORKFLOW = Path(warm.__file__).parents[1]
JOBS = """
import os, sys, time
from pathlib import Path

def greet(name):
    modules = [m for m in ("dgl", "pandas", "torch", "distillbench.models") if m in sys.modules]
    return f"hello {name} from {os.getpid()} in {Path.cwd().name}, {os.environ['COLOUR']}, {modules}"

def fail():
    raise ValueError("as asked")

def die():
    os.kill(os.getpid(), 9)

def sleep(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(60)
"""

pytestmark = pytest.mark.skipif(bool(missing_reason("dgl")), reason="dgl is not installed")


@pytest.fixture(scope="module")
def owner():
    """A process that stands for Snakemake's."""
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def client(tmp_path, owner):
    (tmp_path / "myjobs.py").write_text(JOBS)
    (tmp_path / "here").mkdir()

    def start(function, arguments=None, owner_pid=owner.pid, library="dgl"):
        call = f"call('myjobs:{function}', {arguments or {}}, log='log', library='{library}')"
        code = f"from distillbench.warm import call; {call}"
        environment = {**os.environ, "PYTHONPATH": f"{WORKFLOW}:{tmp_path}", "COLOUR": "green"}
        environment["DISTILLBENCH_OWNER"] = str(owner_pid)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path / "here", env=environment, **pipes)

    return start


def test_a_job_has_its_own_process_folder_environment_and_the_library(client):
    outputs = [client("greet", {"name": "x"}).communicate(timeout=120)[0] for _ in range(2)]
    for output in outputs:
        assert "in here, green, ['dgl', 'torch']" in output
    assert outputs[0] != outputs[1]  # another process


def test_a_job_of_tables_has_no_torch(client):
    output = client("greet", {"name": "x"}, library="tables").communicate(timeout=120)[0]
    assert "in here, green, ['pandas']" in output


def test_the_log_ends_in_where_the_time_went(client, tmp_path):
    for owner in (None, 0):
        client("greet", {"name": "x"}, **({} if owner is None else {"owner_pid": owner})).communicate(timeout=120)
        found = read_spent((tmp_path / "here/log").read_text().splitlines()[-1])
        assert list(found.parts) == ["start", "library", "imports", "rest"]
        assert found.total == pytest.approx(sum(found.parts.values()), abs=0.03)  # each is rounded


def test_a_cold_job_does_the_same(client):
    output = client("greet", {"name": "x"}, owner_pid=0).communicate(timeout=120)[0]
    assert "in here, green, []" in output


@pytest.mark.parametrize("warm_owner", [True, False], ids=["warm", "cold"])
def test_a_failing_job_fails_and_says_where_to_look(client, tmp_path, warm_owner):
    process = client("fail") if warm_owner else client("fail", owner_pid=0)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "ValueError: as asked" in errors
    assert "Traceback" in (tmp_path / "here/log").read_text()


def test_a_job_that_is_killed_fails(client):
    process = client("die")
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "exit status -9" in errors


def test_a_job_ends_when_its_client_is_killed(client, tmp_path):
    process = client("sleep", {"file": str(tmp_path / "pid")})
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job = psutil.Process(int((tmp_path / "pid").read_text()))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    gone, _ = psutil.wait_procs([job], timeout=10)
    assert gone == [job] or job.status() == psutil.STATUS_ZOMBIE


def test_the_server_ends_with_its_owner(client):
    owner = subprocess.Popen(["sleep", "300"])
    client("greet", {"name": "x"}, owner_pid=owner.pid).communicate(timeout=120)
    servers = [p for p in psutil.process_iter() if f"distillbench.warm dgl {owner.pid} " in " ".join(_command(p))]
    assert len(servers) == 1
    owner.kill()
    owner.wait()
    gone, _ = psutil.wait_procs(servers, timeout=10)
    assert gone == servers


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []
