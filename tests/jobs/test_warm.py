"""Jobs forked from a warm process behave as jobs of their own."""

import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from distillbench.durations import read_spent
from distillbench.jobs import warm
from tests.needs import needs_dgl

WORKFLOW = Path(warm.__file__).parents[2]
JOBS = """
import os, sys, time
from pathlib import Path

def greet(name):
    modules = [m for m in ("dgl", "pandas", "torch", "distillbench.models.gnn") if m in sys.modules]
    return f"hello {name} from {os.getpid()} in {Path.cwd().name}, {os.environ['COLOUR']}, {modules}"

def fail():
    raise ValueError("as asked")

def die():
    os.kill(os.getpid(), 9)

def sleep(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)
"""

NOBODY = ""


def name_of(process, host=None, made=0.0):
    """A process as an owner of servers."""
    return f"{host or socket.gethostname()}:{process.pid}:{psutil.Process(process.pid).create_time() + made}"


@pytest.fixture(scope="module")
def owner():
    """A process that stands for Snakemake's."""
    process = subprocess.Popen(["sleep", "3600"])
    yield name_of(process)
    process.kill()
    process.wait()


@pytest.fixture
def scratch():
    """A folder for temporary files, with an address short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="db", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def client(tmp_path, owner):
    (tmp_path / "myjobs.py").write_text(JOBS)
    (tmp_path / "here").mkdir()

    def start(function, arguments=None, owner=owner, library="tables", folder="here", **environment):
        call = f"call('myjobs:{function}', {arguments or {}}, log='log', library='{library}')"
        code = f"from distillbench.jobs.warm import call; {call}"
        path = f"{WORKFLOW}:{tmp_path}"
        environment = {**os.environ, "PYTHONPATH": path, "COLOUR": "green", "DISTILLBENCH_OWNER": owner, **environment}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path / folder, env=environment, **pipes)

    return start


@pytest.mark.parametrize(
    ("library", "modules"),
    [("tables", "['pandas']"), ("csr", "['torch']"), pytest.param("dgl", "['dgl', 'torch']", marks=needs_dgl)],
)
def test_a_job_has_its_own_process_folder_environment_and_the_library(client, library, modules):
    outputs = [client("greet", {"name": "x"}, library=library).communicate(timeout=120)[0] for _ in range(2)]
    for output in outputs:
        assert f"in here, green, {modules}" in output
    assert outputs[0] != outputs[1]  # another process


def test_a_job_has_its_own_folder_environment_and_code_not_those_of_the_job_that_started_the_server(client, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/myjobs.py").write_text(JOBS.replace("hello", "welcome"))
    output, _ = client("greet", {"name": "x"}).communicate(timeout=120)
    assert "hello x" in output and "in here, green, ['pandas']" in output
    path = f"{WORKFLOW}:{tmp_path}/there"
    output, _ = client("greet", {"name": "x"}, folder="there", COLOUR="red", PYTHONPATH=path).communicate(timeout=120)
    assert "welcome x" in output and "in there, red, ['pandas']" in output


def test_the_log_ends_in_where_the_time_went(client, tmp_path):
    for cold in ({}, {"owner": NOBODY}):
        client("greet", {"name": "x"}, **cold).communicate(timeout=120)
        found = read_spent((tmp_path / "here/log").read_text().splitlines()[-1])
        assert list(found.parts) == ["start", "library", "imports", "rest"]
        assert found.total == pytest.approx(sum(found.parts.values()), abs=0.03)  # each is rounded


def test_a_cold_job_does_the_same(client):
    output = client("greet", {"name": "x"}, owner=NOBODY).communicate(timeout=120)[0]
    assert "in here, green, []" in output


def test_a_process_knows_itself_as_an_owner():
    assert warm._process(warm.owner()).pid == os.getpid()


@pytest.mark.parametrize(
    "elsewhere", [{"host": "another.machine"}, {"made": -60.0}], ids=["another machine", "its number was given again"]
)
def test_without_its_owner_here_a_job_is_cold_and_no_server_is_started(client, scratch, elsewhere):
    with subprocess.Popen(["sleep", "3600"]) as process:
        absent = name_of(process, **elsewhere)
        output, _ = client("greet", {"name": "x"}, owner=absent, TMPDIR=str(scratch)).communicate(timeout=120)
        process.kill()
    assert "in here, green, []" in output
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("name", ["", "1234", "host:x:1", f"{socket.gethostname()}:{10**30}:1"])
def test_what_names_no_process_is_no_owner(name):
    assert warm._process(name) is None


def test_a_server_without_an_owner_imports_nothing(tmp_path, monkeypatch):
    imported = []
    monkeypatch.setattr(warm.importlib, "import_module", imported.append)
    with pytest.raises(ProcessLookupError, match=r"another\.machine:1:1: no such process"):
        warm.serve("csr", "another.machine:1:1", tmp_path / "x.sock")
    assert imported == []


def test_a_job_that_no_server_took_is_cold(client, scratch, owner):
    """A server that accepts the job and ends, as if killed, before a child has begun it."""
    folder = scratch / f"distillbench-{os.getuid()}"
    folder.mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    name = warm.hashlib.sha256(f"{sys.executable}:{owner}:tables".encode()).hexdigest()[:16]
    listener.bind(str(folder / f"{name}.sock"))
    listener.listen()
    process = client("greet", {"name": "x"}, TMPDIR=str(scratch))
    listener.settimeout(120)
    listener.accept()[0].close()
    output, errors = process.communicate(timeout=120)
    listener.close()
    assert "in here, green, []" in output, errors


def test_a_server_that_cannot_start_is_tried_once_and_the_log_says_why(client, scratch, tmp_path):
    broken = scratch / "broken"
    broken.mkdir()
    (broken / "pyarrow.py").write_text("raise ImportError('built for another machine')")
    path = f"{broken}:{WORKFLOW}:{tmp_path}"
    logs = []
    for _ in range(2):
        process = client("greet", {"name": "x"}, TMPDIR=str(scratch), PYTHONPATH=path)
        output, errors = process.communicate(timeout=120)
        assert "in here, green, []" in output, errors
        text = (tmp_path / "here/log").read_text()
        logs.append(text[sum(map(len, logs)) :])
    assert "WARNING no warm process with tables: ImportError: built for another machine" in logs[0]
    assert "WARNING" not in logs[1]
    (traceback,) = scratch.glob("distillbench-*/*.err")
    assert "Traceback" in traceback.read_text()
    assert len(list(scratch.glob("distillbench-*/*.failed"))) == 1


def test_where_an_address_would_be_too_long_a_job_is_cold(client, scratch, tmp_path):
    deep = scratch / ("x" * 100)
    deep.mkdir()
    output, _ = client("greet", {"name": "x"}, TMPDIR=str(deep)).communicate(timeout=120)
    assert "in here, green, []" in output
    assert "too long for a socket's address" in (tmp_path / "here/log").read_text()
    assert not list(deep.glob("*/*.err"))  # nothing was started


@pytest.mark.parametrize("kind", ["file", "link", "open to others"])
def test_a_folder_that_others_may_have_made_is_not_used(client, scratch, tmp_path, kind):
    folder = scratch / f"distillbench-{os.getuid()}"
    if kind == "file":
        folder.touch(0o600)
    elif kind == "link":
        (scratch / "theirs").mkdir(mode=0o700)
        folder.symlink_to(scratch / "theirs")
    else:
        folder.mkdir()
        folder.chmod(0o770)
    output, _ = client("greet", {"name": "x"}, TMPDIR=str(scratch)).communicate(timeout=120)
    assert "in here, green, []" in output
    assert "WARNING" in (tmp_path / "here/log").read_text()
    assert not list(scratch.glob("*/*"))


@pytest.mark.parametrize(("installed", "library"), [(["csr", "pyg"], "csr"), ([], None)])
def test_a_data_set_is_prepared_beside_a_library_that_is_installed(monkeypatch, installed, library):
    asked = []
    monkeypatch.setattr(warm, "call", lambda *_, **options: asked.append(options["library"]))
    config = {"results": "results", "libraries": installed, "execution": {"warm_start": True}}
    job = SimpleNamespace(
        config=config,
        input=SimpleNamespace(plugin="digits.py"),
        params=SimpleNamespace(data={"name": "digits", "params": {}}),
        log=["log"],
    )
    runpy.run_path(str(WORKFLOW / "scripts/dataset.py"), {"snakemake": job})
    assert asked == [library]


@pytest.mark.parametrize("warm_owner", [True, False], ids=["warm", "cold"])
def test_a_failing_job_fails_and_says_where_to_look(client, tmp_path, warm_owner):
    process = client("fail") if warm_owner else client("fail", owner=NOBODY)
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
    deadline = time.monotonic() + 120
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job = psutil.Process(int((tmp_path / "pid").read_text()))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    gone, _ = psutil.wait_procs([job], timeout=120)
    assert gone == [job] or job.status() == psutil.STATUS_ZOMBIE


def test_the_server_ends_with_its_owner(client):
    owner = subprocess.Popen(["sleep", "3600"])
    name = name_of(owner)
    client("greet", {"name": "x"}, owner=name).communicate(timeout=120)
    servers = [p for p in psutil.process_iter() if f"distillbench.jobs.warm tables {name} " in " ".join(_command(p))]
    assert len(servers) == 1
    owner.kill()
    owner.wait()
    gone, _ = psutil.wait_procs(servers, timeout=120)
    assert gone == servers


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []
