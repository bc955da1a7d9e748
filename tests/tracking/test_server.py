"""An MLflow server on PostgreSQL that several people write to"""

import http.client
import multiprocessing
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from distillbench.cli import main
from distillbench.tracking.server import _postgres, serve
from distillbench.tracking.store import TrackingError, import_mlflow
from distillbench.tracking.sync import sync
from tests.needs import POSTGRES, WITHOUT_POSTGRES, needs_postgres
from tests.tracking.conftest import free_port, put, record

SEEDS = 4
NAME = "mlflow.example.org"  # as behind a proxy
PATIENCE = 200  # seconds for what takes one or two on a machine with nothing else to do


@pytest.fixture
def shared():
    """A folder that PostgreSQL's user can enter, too."""
    folder = shared_folder()
    yield folder
    shutil.rmtree(folder)


def shared_folder():
    folder = Path(tempfile.mkdtemp(prefix="distillbench-test-"))
    folder.chmod(0o755)
    return folder


class Server:
    """`distillbench server` with the name that a proxy in front of it has."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def begin(self, *options):
        command = [
            sys.executable,
            "-m",
            "distillbench",
            "server",
            "--folder",
            self.folder.name,
            "--port",
            str(self.port),
        ]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--allowed-hosts", NAME, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder.parent,
                env={**os.environ, "TMPDIR": str(self.folder)},  # what a killed one leaves there goes with the folder
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # tests under nohup have it ignored
            )

    def start(self, *options):
        self.begin(*options)
        wait_for(lambda: self.process.poll() is not None or self.listens(), self.log)
        assert self.process.poll() is None, self.log()

    def listens(self):
        with socket.socket() as probe:
            return not probe.connect_ex(("127.0.0.1", self.port))

    def log(self):
        return (self.folder / "log").read_text()

    def everything(self):
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def postgres(self):
        """The first of PostgreSQL's processes."""
        return min((each for each in self.everything() if each.name() == "postgres"), key=lambda each: each.pid)

    def kill(self):
        """Everything at once, PostgreSQL as well, as in a power cut."""
        everything = self.everything()
        for each in everything:
            with suppress(psutil.NoSuchProcess):  # one that ended by itself meanwhile, as PostgreSQL's workers do
                each.kill()
        self.process.wait()
        wait_for(lambda: not alive(everything))

    @property
    def login(self):
        return {
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": (self.folder / "admin-password").read_text(),
        }


def wait_for(condition, said=str):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)


def alive(processes):
    return [each for each in processes if each.is_running()]  # a zombie, too: PostgreSQL takes it for one that runs


@pytest.fixture(scope="module")
def one_server():
    if POSTGRES is None:
        pytest.skip(WITHOUT_POSTGRES)
    server = Server(shared_folder())
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 143
    shutil.rmtree(server.folder)


@pytest.fixture
def server(one_server):
    """One server for all tests; after one that ended it, it is started again."""
    if one_server.process is None or one_server.process.poll() is not None:
        one_server.start()
    return one_server


@pytest.fixture
def login(server, monkeypatch):
    log_in(monkeypatch, **server.login)


def log_in(monkeypatch, **names):
    for name, value in names.items():
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

    client, deadline = MlflowClient(server.uri), time.monotonic() + PATIENCE
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
    connections = [connection for each in server.everything() for connection in each.net_connections("inet")]
    listening = {connection.laddr.ip for connection in connections if connection.status == "LISTEN"}
    assert listening == {"127.0.0.1"}  # and PostgreSQL by its socket file alone


def test_artifacts_are_their_owners(server, login, results):
    """Fault: somebody else who is logged in on the tracking server's machine looks for its artifacts.

    Provoked: runs with artifacts are synced.
    Promised: the folder of artifacts and all that is in it are open to their owner alone.
    """
    assert sync(results, server.uri, prefix="private/").added == 5
    artifacts = server.folder / "artifacts"
    assert len([path for path in artifacts.rglob("*") if path.is_file()]) >= 10
    assert not [path for path in (artifacts, *artifacts.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o077]


@pytest.mark.parametrize(
    "host, origin, status",
    [
        (NAME, f"https://{NAME}", 200),
        (NAME, f"http://{NAME}", 200),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 200),
        (NAME, "https://evil.example.com", 403),
        (NAME, f"https://{NAME}.evil.com", 403),
        ("10.evil.com:{port}", None, 403),
    ],
)
def test_pages_of_the_server_may_write_and_no_others(server, host, origin, status):
    """Fault: a page of somebody else's, open in the browser of who may use the tracking server, sends requests to it.

    Provoked: requests with that page's origin; one to a name that it had resolve to the server's address.
    Promised: they are refused, and those of the server's own page are not, behind a proxy or on its machine.
    """
    headers = {"Host": host, "Content-Type": "application/json", "Authorization": basic(server.login)}
    if origin:
        headers["Origin"] = origin.format(port=server.port)
    headers["Host"] = host.format(port=server.port)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("POST", "/ajax-api/2.0/mlflow/experiments/search", '{"max_results": 1}', headers)
    assert connection.getresponse().status == status


def test_who_forgets_the_prefix_replaces_nobodys_runs(server, login, results, tmp_path, monkeypatch):
    """Fault: two people write to one tracking server and the second forgets --prefix.

    Provoked: the same runs of another folder, with the password that both use and with an account of the second's own.
    Promised: nothing is replaced, and the error names --prefix; moving the folder is no fault, and what replaces it may
    take over. The second's account may not write into the first one's experiment even then.
    """
    assert sync(results, server.uri, prefix="ours/").added == 5
    before = runs_of(server.uri, "ours/digits")
    other = tmp_path / "other"
    put(other, record(test=0.1))
    report = sync(other, server.uri, prefix="ours/")
    assert report[:3] == (0, 0, 0) and "--prefix" in report.problems[0]
    add_account(server.uri, "bob", "bob's long password")
    with monkeypatch.context() as bob:
        log_in(bob, MLFLOW_TRACKING_USERNAME="bob", MLFLOW_TRACKING_PASSWORD="bob's long password")
        assert sync(other, server.uri, prefix="bob/").added == 1
        with pytest.raises(TrackingError, match=r"Permission denied.*--prefix"):
            sync(other, server.uri, prefix="ours/", take_over=True)
    assert runs_of(server.uri, "ours/digits") == before
    assert sync(results.rename(tmp_path / "moved"), server.uri, prefix="ours/") == (0, 0, 5, ())
    assert sync(other, server.uri, prefix="ours/", take_over=True).replaced == 1


def add_account(uri, name, password):
    """As docs/tracking.md says."""
    from mlflow.server import get_app_client

    get_app_client("basic-auth", uri).create_user(name, password)


def basic(login):
    return "Basic " + b64encode(":".join(login.values()).encode()).decode()


def test_a_second_server_in_one_folder_is_refused(server, capsys):
    """Fault: a second tracking server is started in the folder of one that runs.

    Provoked: the command is run again, with another port.
    Promised: it says that one is running and ends; the first goes on.
    """
    assert main(["server", "--folder", str(server.folder), "--port", str(free_port())]) == 1
    assert "a tracking server is already running" in capsys.readouterr().err
    assert server.process.poll() is None and alive([server.postgres()])


@pytest.mark.parametrize("sign", [signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_the_server_ends_all_of_it(server, sign):
    """Fault: the terminal of the tracking server is closed, or the process is killed.

    Provoked: SIGHUP and SIGKILL to the process of `distillbench server` alone.
    Promised: PostgreSQL and MLflow end as well, and the next start goes on (the tests after this one need it).
    """
    everything, socket_folder = server.everything(), socket_folder_of(server.postgres())
    assert len(everything) > 5 and socket_folder.exists()
    server.process.send_signal(sign)
    assert server.process.wait(PATIENCE) == (129 if sign == signal.SIGHUP else -sign)
    wait_for(lambda: not alive(everything), lambda: str(alive(everything)))
    assert sign == signal.SIGKILL or not socket_folder.exists()


def socket_folder_of(postgres):
    return Path(next(word.partition("=")[2] for word in postgres.cmdline() if word.startswith("unix_socket_dir")))


def test_the_end_of_postgresql_is_noticed(server):
    """Fault: PostgreSQL ends by itself, or is killed, while MLflow goes on.

    Provoked: SIGKILL to PostgreSQL's first process.
    Promised: the server ends with an error that names PostgreSQL and its log, and the next start goes on.
    """
    everything = server.everything()
    server.postgres().kill()
    assert server.process.wait(PATIENCE) == 1
    wait_for(lambda: not alive(everything), lambda: str(alive(everything)))
    assert f"{server.folder}: PostgreSQL has ended by itself (status -9); its log is {server.folder}/postgres.log" in (
        server.log()
    )


def test_a_lost_password_is_told_how_to_be_made_anew(server, results, monkeypatch, capsys):
    """Fault: the file with the tracking server's password is deleted.

    Provoked: the next start, then one with `--new-password`.
    Promised: the first ends and says what to do; the second makes a password that is let in, and the runs are there.
    """
    with monkeypatch.context() as old:
        log_in(old, **server.login)
        assert sync(results, server.uri, prefix="kept/").added == 5
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 143
    (server.folder / "admin-password").unlink()
    assert main(["server", "--folder", str(server.folder), "--port", str(server.port)]) == 1
    assert "admin-password is gone" in (said := capsys.readouterr().err)
    assert f"--folder {server.folder} --new-password" in said
    server.start("--new-password")
    log_in(monkeypatch, **server.login)
    assert sync(results, server.uri, prefix="kept/") == (0, 0, 5, ())


@needs_postgres
def test_a_first_start_that_is_killed_is_made_up_for(shared):
    """Fault: the tracking server is killed while its database is made for the first time.

    Provoked: SIGKILL of all its processes once the first files are there.
    Promised: the next start makes the database anew.
    """
    server = Server(shared)
    server.begin()
    wait_for((shared / ".postgres.draft" / "PG_VERSION").exists, server.log)
    server.kill()
    assert not (shared / "postgres").exists()
    with _postgres(shared) as (_, process):
        assert process.poll() is None


@needs_postgres
def test_postgresql_that_does_not_start_is_named_with_its_own_words(shared):
    """Fault: PostgreSQL does not start, such as on a database of another version.

    Provoked: a database that says it is of version 9.
    Promised: the error has what PostgreSQL said last, and where the rest of its log is.
    """
    with _postgres(shared):
        pass
    (shared / "postgres" / "PG_VERSION").write_text("9\n")
    with (
        pytest.raises(TrackingError, match=r"does not start; its log is .*/postgres\.log and ends: .*version 9"),
        _postgres(shared),
    ):
        pass


@needs_postgres
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only then PostgreSQL runs as another user")
def test_a_folder_that_postgresql_cannot_enter_is_named(shared):
    """Fault: the tracking server's folder is below one that PostgreSQL's user cannot enter, such as /root.

    Provoked: started as root in a folder whose parent is open to root alone.
    Promised: the error names the folder, the user and what to do; nothing is started.
    """
    shared.chmod(0o700)
    with pytest.raises(TrackingError, match=r"/inner: PostgreSQL runs as user postgres, who cannot enter .*--folder"):
        serve(shared / "inner", "127.0.0.1", free_port(), None)
    assert not (shared / "inner" / "postgres").exists()


@pytest.mark.parametrize("names", ["*", "http://mlflow.example.org", "mlflow.example.org, *.example.org"])
def test_patterns_and_addresses_are_no_names(tmp_path, names):
    with pytest.raises(TrackingError, match=r"--allowed-hosts .*without http:// and without"):
        serve(tmp_path, "0.0.0.0", 5000, names)


def test_beyond_this_machine_the_server_has_to_know_its_names(tmp_path, capsys):
    """Fault: the tracking server is told to listen beyond this machine, without the names that it answers to.

    Provoked: `--host 0.0.0.0` without `--allowed-hosts`.
    Promised: it does not start, and the error says what is missing.
    """
    with pytest.raises(TrackingError, match=r"--host 0\.0\.0\.0: .*--allowed-hosts"):
        serve(tmp_path, "0.0.0.0", 5000, None)
    assert main(["server", "--folder", str(tmp_path), "--host", "0.0.0.0"]) == 1
    assert "Error: --host 0.0.0.0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TrackingError, match=f"port {port} is in use"):
            serve(tmp_path, "127.0.0.1", port, None)
