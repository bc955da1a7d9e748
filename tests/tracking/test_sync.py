"""What a sync to MLflow promises: every record is shown, once, as it is on disk, whatever interrupts it."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillbench.cli import main
from distillbench.data.cards import write_card
from distillbench.tracking import sync as tracking
from distillbench.tracking.store import TrackingError
from distillbench.tracking.sync import sync, ui
from tests.cards import card_of

from .conftest import LOSS, VAL, client, free_port, ids, put, record, runs

WORKFLOW = Path(tracking.__file__).parents[2]


def milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() * 1000)


def test_every_record_becomes_one_run_and_a_second_sync_adds_nothing(results: Path) -> None:
    written: list[tuple[int, int, str]] = []
    assert sync(results, progress=lambda *step: written.append(step)) == (5, 0, 0, ())
    assert [(done, total) for done, total, _ in written] == [(n, 5) for n in range(1, 6)]
    before = ids(results)
    assert set(before) == {f"digits/pyg/gat/{name}" for name in ("teacher/0", "lsp/0", "lsp/1", "kd/0", "kd/1")}
    assert sync(results) == (0, 0, 5, ())
    assert ids(results) == before


def test_a_run_shows_what_its_record_says(results: Path) -> None:
    sync(results)
    run = runs(results)["digits/pyg/gat/lsp/0"]
    assert run.info.run_name == "lsp · pyg · gat · seed 0"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"method.weight": "100.0", "method.layers": "[[-1, -1]]", "training.lr": "0.01"}
    finals = {"val": 0.8, "test": 0.75, "epochs": 3, "best_epoch": 1, "params": 1234, "train_seconds": 6.0}
    assert finals.items() <= run.data.metrics.items()
    tags = {
        "method": "lsp",
        "backend": "pyg",
        "pair": "gat",
        "role": "student",
        "seed": "0",
        "status": "ok",
        "key": "k",
    }
    assert (tags | {"dataset": "digits", "environment.device": "cpu"}).items() <= run.data.tags.items()
    artifacts = {item.path: item.file_size for item in client(results).list_artifacts(run.info.run_id)}
    folder = results / "runs/digits/pyg/gat/lsp"
    assert artifacts == {name: (folder / name).stat().st_size for name in ("seed-0.json", "seed-0.history.csv")}


def test_times_are_those_of_the_run_not_of_the_sync(results: Path) -> None:
    sync(results)
    run = runs(results)["digits/pyg/gat/lsp/0"]
    assert run.info.start_time == milliseconds("2026-01-02T03:04:05.250")
    assert run.info.end_time == milliseconds("2026-01-02T03:04:11.500")
    curve = client(results).get_metric_history(run.info.run_id, "curves/loss")
    assert [point.timestamp - run.info.start_time for point in curve] == [2000, 4000, 6000]


def test_curves_are_complete_and_apart_from_the_final_metrics(results: Path) -> None:
    sync(results)
    run = runs(results)["digits/pyg/gat/lsp/0"]
    for name, values in {"loss": LOSS, "task": [loss / 2 for loss in LOSS], "val": VAL}.items():
        curve = client(results).get_metric_history(run.info.run_id, f"curves/{name}")
        assert [(point.step, point.value) for point in curve] == list(enumerate(values))
    assert "curves/structure" not in run.data.metrics  # an empty cell is no value
    assert run.data.metrics["val"] == 0.8  # the selected epoch's; the curve ends at 0.7
    assert (run.data.metrics["curves/val"], run.data.metrics["curves/loss"]) == (0.7, 0.4)  # of the last epoch


def test_every_run_shows_its_own_numbers(results: Path) -> None:
    own = [("kd", 0), ("kd", 1), ("lsp", 0), ("lsp", 1)]
    for n, (method, seed) in enumerate(own):
        scores = {"val": 0.5 + n / 100, "test": 0.4 + n / 100, "test_metrics": {"roc_auc": 0.9 + n / 100}}
        path = put(results, record(method=method, seed=seed, epochs=2, best_epoch=2, **scores))
        path.with_name(f"seed-{seed}.history.csv").write_text(
            f"epoch,seconds,loss,val\n1,1.5,{n},\n2,3.0,{n + 10},0.{n}\n"
        )
    sync(results)
    shown = runs(results)
    for n, (method, seed) in enumerate(own):
        run = shown[f"digits/pyg/gat/{method}/{seed}"]
        assert (run.data.tags["method"], run.data.tags["seed"]) == (method, str(seed))
        assert run.data.metrics == {
            "val": 0.5 + n / 100, "test": 0.4 + n / 100, "test_roc_auc": 0.9 + n / 100, "epochs": 2, "best_epoch": 2,
            "params": 1234, "train_seconds": 6.0, "curves/loss": n + 10, "curves/val": n / 10,
        }  # fmt: skip
        loss, val = (client(results).get_metric_history(run.info.run_id, f"curves/{name}") for name in ("loss", "val"))
        assert [(point.step, point.value) for point in loss] == [(1, n), (2, n + 10)]
        assert [(point.step, point.value) for point in val] == [(2, n / 10)]  # the first epoch was not evaluated


def test_more_metrics_and_params_than_one_call_may_carry(results: Path) -> None:
    many = {f"p{n}": n for n in range(250)} | {"long": "x" * 10_000}
    path = put(results, record(method="fitnet", epochs=500, hyperparameters=many))
    rows = "".join(f"{epoch},{epoch / 10},{1 / (epoch + 1)},nan,0.5\n" for epoch in range(500))
    path.with_name("seed-0.history.csv").write_text("epoch,seconds,loss,ωeight?,val\n" + rows)
    assert sync(results).problems == ()
    run = runs(results)["digits/pyg/gat/fitnet/0"]
    assert len(run.data.params) == 251
    assert run.data.params["long"] == "x" * 6000
    for name in ("loss", "ωeight_", "val"):
        history = client(results).get_metric_history(run.info.run_id, f"curves/{name}")
        assert sorted(point.step for point in history) == list(range(500))
    loss = client(results).get_metric_history(run.info.run_id, "curves/loss")
    assert {point.step: point.value for point in loss} == {epoch: 1 / (epoch + 1) for epoch in range(500)}
    assert run.data.metrics["curves/loss"] == 1 / 500  # of the last epoch, whichever call wrote it


def test_a_changed_record_replaces_just_its_run(results: Path) -> None:
    sync(results)
    before = ids(results)
    put(results, record(method="kd", seed=1, test=0.5))
    assert sync(results) == (0, 1, 4, ())
    after = ids(results)
    assert {identity for identity in after if after[identity] != before[identity]} == {"digits/pyg/gat/kd/1"}
    assert runs(results)["digits/pyg/gat/kd/1"].data.metrics["test"] == 0.5


def test_a_changed_history_replaces_its_run(results: Path) -> None:
    sync(results)
    history = results / "runs/digits/pyg/gat/kd/seed-0.history.csv"
    history.write_text(history.read_text().replace("0.9", "0.95"))
    assert sync(results) == (0, 1, 4, ())


def test_runs_on_later_pages_of_an_experiment_are_known() -> None:
    """MLflow lists a thousand runs at most, and says where the next begin."""

    class Page(list):
        token: str | None = None

    def listed(name: str, token: str | None = None) -> Page:
        page = Page([SimpleNamespace(data=SimpleNamespace(tags={"distillbench.run": name}))])
        page.token = token
        return page

    pages = {None: listed("digits/pyg/gat/kd/0", "next"), "next": listed("digits/pyg/gat/kd/1")}
    paged = SimpleNamespace(search_runs=lambda experiments, max_results, page_token: pages[page_token])
    assert set(tracking._present(paged, "1")) == {"digits/pyg/gat/kd/0", "digits/pyg/gat/kd/1"}


def test_a_run_whose_record_is_gone_stays(results: Path) -> None:
    sync(results)
    before = ids(results)
    (results / "runs/digits/pyg/gat/kd/seed-0.json").unlink()
    assert sync(results) == (0, 0, 4, ())
    assert ids(results) == before


def test_a_run_that_was_deleted_in_the_page_comes_back(results: Path) -> None:
    sync(results)
    before = ids(results)
    client(results).delete_run(before.pop("digits/pyg/gat/kd/1"))
    assert sync(results) == (1, 0, 4, ())
    after = ids(results)
    assert before.items() <= after.items() and set(after) - set(before) == {"digits/pyg/gat/kd/1"}


def test_a_corrupt_record_is_named_and_the_others_are_synced(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corrupt = results / "runs/digits/pyg/gat/kd/seed-0.json"
    corrupt.write_text(corrupt.read_text().replace("0.75", "0.99"))
    assert main(["sync", "--results", str(results)]) == 1
    output = capsys.readouterr()
    assert f"{corrupt}: corrupt record" in output.err
    assert "4 runs added" in output.out
    assert "1 problems" in output.out
    assert set(runs(results)) == {f"digits/pyg/gat/{name}" for name in ("teacher/0", "lsp/0", "lsp/1", "kd/1")}


def test_a_damaged_or_missing_history_is_named_and_its_run_shown(results: Path) -> None:
    damaged = results / "runs/digits/pyg/gat/kd/seed-0.history.csv"
    damaged.write_text(damaged.read_text() + "3,8.0,0.")
    (results / "runs/digits/pyg/gat/kd/seed-1.history.csv").unlink()
    report = sync(results)
    assert report[:3] == (5, 0, 0)
    assert [str(damaged) in report.problems[0], "seed-1.json: its history is missing" in report.problems[1]] == [
        True
    ] * 2
    assert runs(results)["digits/pyg/gat/kd/0"].data.metrics["test"] == 0.75


def test_two_files_of_the_same_run_are_named(results: Path) -> None:
    folder = results / "runs/digits/pyg/gat/kd"
    shutil.copy(folder / "seed-0.json", folder / "seed-7.json")
    (problem,) = sync(results).problems
    assert "seed-7.json" in problem
    assert "seed-0.json" in problem


@pytest.mark.parametrize("call", range(6))
def test_a_sync_interrupted_within_a_run_is_repaired_without_duplicates(
    results: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    from mlflow import MlflowClient

    # calls for a run with more curve points and params than one call takes: the third of five has them
    monkeypatch.setattr(tracking, "METRICS_A_CALL", 3)
    monkeypatch.setattr(tracking, "PARAMS_A_CALL", 2)
    names = ("create_run", "log_batch", "set_terminated")
    calls: list[str] = []
    begun = 0
    with monkeypatch.context() as patch:
        for name in names:
            original = getattr(MlflowClient, name)

            def stop(self: Any, *args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
                nonlocal begun
                begun += name == "create_run"
                if begun == 3:
                    if len(calls) == call:
                        raise KeyboardInterrupt
                    calls.append(name)
                return original(self, *args, **kwargs)

            patch.setattr(MlflowClient, name, stop)
        with pytest.raises(KeyboardInterrupt):
            sync(results)
    complete = {name: run.info.run_id for name, run in runs(results).items() if tracking.DIGEST_TAG in run.data.tags}
    assert len(complete) == 2
    report = sync(results)
    assert (report.added + report.replaced, report.skipped) == (3, 2)
    repaired = runs(results)
    assert {run.info.status for run in repaired.values()} == {"FINISHED"}
    assert complete.items() <= {name: run.info.run_id for name, run in repaired.items()}.items()
    shutil.rmtree(results / "mlflow")  # a quiet sync has the same runs
    sync(results)
    quiet = runs(results)
    assert repaired.keys() == quiet.keys()
    for name, run in quiet.items():
        assert (repaired[name].data.metrics, repaired[name].data.params) == (run.data.metrics, run.data.params)


def test_a_sync_killed_before_it_deleted_the_replaced_run_leaves_no_duplicate(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    sync(results)
    put(results, record(method="kd", seed=1, test=0.5))

    def killed(self: Any, run_id: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "delete_run", killed)
        with pytest.raises(KeyboardInterrupt):
            sync(results)
    assert sync(results) == (0, 0, 5, ())
    assert runs(results)["digits/pyg/gat/kd/1"].data.metrics["test"] == 0.5


@pytest.mark.parametrize(("status", "shown"), [("diverged", "FAILED"), ("oom", "FAILED"), ("skipped", "FINISHED")])
def test_a_run_that_is_not_ok_says_so(results: Path, status: str, shown: str) -> None:
    nothing = dict.fromkeys(("val", "test", "epochs", "best_epoch", "params", "train_seconds"))
    put(results, record(backend="dgl", status=status, reason="why", started="", ended="", **nothing), history=False)
    assert sync(results) == (6, 0, 0, ())
    run = runs(results)["digits/dgl/gat/lsp/0"]
    assert run.info.status == shown
    assert (run.data.tags["status"], run.data.tags["reason"]) == (status, "why")
    assert run.data.metrics == {}


def test_one_summary_per_data_set_holds_tables_figure_and_data(results: Path) -> None:
    put(results, record(dataset="mnist5k"))
    for name in ("tables/comparison.csv", "tables/comparison.tex", "tables/runs.parquet", "figures/digits.png"):
        (results / name).parent.mkdir(exist_ok=True)
        (results / name).write_text(name)
    card = results / "data/digits/data.json"
    write_card(card, card_of())
    assert sync(results) == (8, 0, 0, ())
    summary = runs(results)["digits/summary"]
    mlflow = client(results)
    assert [item.path for item in mlflow.list_artifacts(summary.info.run_id, "figures")] == ["figures/digits.png"]
    tables = [item.path for item in mlflow.list_artifacts(summary.info.run_id, "tables")]
    assert tables == ["tables/comparison.csv", "tables/comparison.tex"]
    for run in runs(results).values():
        (data,) = run.inputs.dataset_inputs
        assert (data.dataset.name, data.dataset.digest) == ("digits", "01234567")
        assert json.loads(data.dataset.profile)["nodes"] == 1797
    (results / "tables/comparison.csv").write_text("new")
    assert sync(results) == (0, 2, 6, ())


def test_two_syncs_at_once_meet_a_fresh_store_and_leave_no_duplicates(results: Path) -> None:
    shutil.rmtree(results / "mlflow")
    command = [sys.executable, "-m", "distillbench", "sync", "--results", str(results)]
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = sorted(process.communicate(timeout=200)[0].splitlines()[-1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0].startswith("MLflow: 0 runs added, 0 replaced, 5 up to date")
    assert printed[1].startswith("MLflow: 5 runs added")
    assert len(runs(results)) == 5
    assert not list((results / "mlflow").glob(".mlflow.db.*"))


def test_in_a_moved_results_folder_the_view_is_written_anew_and_the_old_one_kept(results: Path) -> None:
    before = sync(results)
    moved = results.rename(results.with_name("moved"))
    report = sync(moved)
    assert report.problems == ()
    assert (report.added, report.skipped) == (before.added, 0)
    assert (moved / "mlflow/mlflow.db.moved").exists()
    assert sync(moved).skipped == before.added


def test_the_page_of_a_moved_folder_or_of_another_mlflow_is_refused_with_the_way_out(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: a results folder was moved, or written by another version of MLflow, and is opened in the browser.

    Provoked: the folder is renamed; the version of its database's tables is changed.
    Promised: no page opens that shows less than there is: the reader is told which command writes it anew.
    """
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("a page was opened"))
    sync(results)
    moved = results.rename(results.with_name("moved"))
    said = rf"mlflow\.db: has its artifacts in .*moved or copied\. distillbench sync --results {moved} writes it anew"
    with pytest.raises(TrackingError, match=said):
        ui(moved, free_port())
    sync(moved)
    with closing(sqlite3.connect(moved / "mlflow/mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'another'")
    with pytest.raises(TrackingError, match=r"mlflow\.db: of another version of MLflow .*Delete it, and"):
        ui(moved, free_port())


@pytest.mark.parametrize("damage", ["cut short", "pages overwritten"])
def test_a_store_with_damaged_pages_is_told_to_be_written_anew(results: Path, damage: str) -> None:
    """Fault: MLflow's SQLite store is cut short, or pages of it are overwritten.

    Provoked: half of the file is cut off; the heads of twenty pages are overwritten.
    Promised: the store is named with what to do, and after its deletion a sync writes it anew from the records. (SQLite
    finds what breaks its structure; a number changed within a page is not found, and the records stay the truth.)
    """
    sync(results)
    store = results / "mlflow" / "mlflow.db"
    content = bytearray(store.read_bytes())
    if damage == "cut short":
        content = content[: len(content) // 2]
    else:
        for page in range(10, 30):
            content[page * 4096 : page * 4096 + 16] = b"\xff" * 16
    store.write_bytes(content)
    with pytest.raises(TrackingError, match=r"mlflow\.db: .*delete it and sync again"):
        sync(results)
    store.unlink()
    # as a user does it, by a process of its own: this one's connections are to the file that was deleted
    command = [sys.executable, "-m", "distillbench", "sync", "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "5 runs added" in done.stdout


def test_a_damaged_store_is_told_to_be_written_anew(results: Path) -> None:
    (results / "mlflow" / "mlflow.db").write_text("no database " * 100)
    with pytest.raises(TrackingError, match=r"mlflow\.db: not an MLflow store .* delete it and sync again"):
        sync(results)


def test_a_password_is_never_shown_and_an_address_is_no_status(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: a tracking server with the password in its address does not answer.

    Provoked: a sync to a port with 401 in its number on which nobody listens, and to a folder.
    Promised: the error says so, without the password, and does not blame name and password.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 14401))
        for uri in ("http://admin:top-secret@127.0.0.1:14401", "file://admin:top-secret@127.0.0.1/mlruns"):
            assert main(["sync", "--results", str(results), "--uri", uri]) == 1
            said = capsys.readouterr().err
            assert "…@127.0.0.1" in said and "top-secret" not in said and "MLFLOW_TRACKING_PASSWORD" not in said


def test_a_folder_as_store_is_refused(results: Path) -> None:
    with pytest.raises(TrackingError, match=r"'mlruns'.*sqlite"):
        sync(results, "mlruns")


def test_importing_the_module_imports_neither_mlflow_nor_torch() -> None:
    code = (
        "import sys, distillbench.tracking.sync; print([name for name in ('mlflow', 'torch') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout == "[]\n"
