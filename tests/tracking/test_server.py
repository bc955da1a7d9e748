"""An MLflow server on PostgreSQL that several people write to"""

import multiprocessing
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from distillbench.mlflow_store import TrackingError, import_mlflow
from distillbench.server import main, serve
from distillbench.tracking import sync
from tests.tracking.conftest import put, record

SEEDS = 4
WITHOUT_POSTGRES = not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`python -m distillbench.server` in a folder that PostgreSQL's user can enter, too."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="distillbench-test-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "distillbench.server", "--folder", self.folder.name, "--port", str(self.port)]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder.parent)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.2)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self):
        """Everything at once, PostgreSQL as well, as in a power cut."""
        everything = [self.process_of_psutil(), *self.process_of_psutil().children(recursive=True)]
        for each in everything:
            each.kill()
        psutil.wait_procs(everything, timeout=30)
        self.process.wait()

    def process_of_psutil(self):
        return psutil.Process(self.process.pid)

    @property
    def login(self):
        return {
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": (self.folder / "admin-password").read_text(),
        }


@pytest.fixture(scope="module")
def server():
    if WITHOUT_POSTGRES:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = Server()
    server.start()
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 143
    shutil.rmtree(server.folder)


@pytest.fixture
def login(server, monkeypatch):
    for name, value in server.login.items():
        monkeypatch.setenv(name, value)


def runs_of(uri, experiment):
    """Everything that MLflow has of an experiment's runs, by their records."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    number = client.get_experiment_by_name(experiment).experiment_id
    runs = {}
    for run in client.search_runs([number], max_results=1000):
        tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
        curve = [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, "curves/loss")]
        files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        info = (run.info.status, run.info.start_time, run.info.end_time, run.info.run_name)
        found = (tags, run.data.metrics, run.data.params, curve, files, info)
        runs.setdefault(tags["distillbench.run"], []).append(found)
    return runs


def write(folder, uri):
    report = sync(folder, uri, prefix=f"{folder.name}/")
    assert (report.added, report.problems) == (SEEDS, ())


def test_eight_writers_while_the_server_is_killed_and_restarted(server, login, tmp_path):
    """Fault: the tracking server and its PostgreSQL are killed (SIGKILL) while eight processes write, and restarted.

    Provoked: eight results folders are synced at once; when the first runs have arrived everything is killed.
    Promised: the writers wait and go on by themselves; every record arrives, complete and once.
    """
    folders = [tmp_path / f"person-{i}" for i in range(8)]
    for i, folder in enumerate(folders):
        for seed in range(SEEDS):
            put(folder, record(seed=seed, test=(1 + i) / 100 + seed / 1000))
    import_mlflow()  # once, here: the writers are forks
    writers = [multiprocessing.get_context("fork").Process(target=write, args=(f, server.uri)) for f in folders]
    for writer in writers:
        writer.start()
    from mlflow import MlflowClient

    client, deadline = MlflowClient(server.uri), time.monotonic() + 120
    while len(client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=500)) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    server.kill()
    assert any(writer.is_alive() for writer in writers)
    server.start()
    for writer in writers:
        writer.join(400)
        assert writer.exitcode == 0
    for i, folder in enumerate(folders):
        runs = runs_of(server.uri, f"{folder.name}/digits")
        assert sorted(runs) == sorted(f"digits/pyg/gat/lsp/{seed}" for seed in range(SEEDS))
        for seed in range(SEEDS):
            (only,) = runs[f"digits/pyg/gat/lsp/{seed}"]
            tags, metrics, _, curve, files, (status, *_) = only
            assert status == "FINISHED" and "distillbench.digest" in tags
            assert metrics["test"] == pytest.approx((1 + i) / 100 + seed / 1000) and len(curve) == 3
            assert files == [f"seed-{seed}.history.csv", f"seed-{seed}.json"]


def test_an_sqlite_store_is_moved_to_the_server_by_syncing_again(server, login, results):
    assert sync(results).added == 5
    assert sync(results, server.uri, prefix="moved/").added == 5
    assert sync(results, server.uri, prefix="moved/") == (0, 0, 5, ())
    before = runs_of(f"sqlite:///{results}/mlflow/mlflow.db", "digits")
    assert len(before) == 5 and runs_of(server.uri, "moved/digits") == before


@pytest.mark.parametrize("password", ["wrong", None])
def test_who_has_no_password_is_refused_by_name(server, results, monkeypatch, password):
    """Fault: somebody writes to the tracking server without the password.

    Provoked: a sync with a wrong password, and one with none.
    Promised: nothing is written, and the error names the two environment variables, but not the password.
    """
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    if password:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as error:
        sync(results, server.uri, prefix="refused/")
    assert "wrong" not in str(error.value)


def test_secrets_are_their_owners_and_nobody_listens_beyond_this_machine(server):
    for name in ("admin-password", "secret-key", "basic-auth.ini"):
        assert stat.S_IMODE((server.folder / name).stat().st_mode) == 0o600
    processes = [server.process_of_psutil(), *server.process_of_psutil().children(recursive=True)]
    listening = {c.laddr.ip for each in processes for c in each.net_connections("inet") if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}  # and PostgreSQL by its socket file alone


def test_beyond_this_machine_the_server_has_to_know_its_names(tmp_path, capsys):
    """Fault: the tracking server is told to listen beyond this machine, without the names that it answers to.

    Provoked: `--host 0.0.0.0` without `--allowed-hosts`.
    Promised: it does not start, and the error says what is missing.
    """
    with pytest.raises(TrackingError, match=r"--host 0\.0\.0\.0: .*--allowed-hosts"):
        serve(tmp_path, "0.0.0.0", 5000, None)
    assert main(["--folder", str(tmp_path), "--host", "0.0.0.0"]) == 1
    assert "distillbench.server: --host 0.0.0.0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TrackingError, match=f"port {port} is in use"):
            serve(tmp_path, "127.0.0.1", port, None)
