"""What must hold of the DAG, on a small config run for real."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest

from distillbench.paths import Cell
from distillbench.plan.figures import FIGURES
from distillbench.record import read_record, read_shard

from .conftest import CONFIG, HELD, ROOT, checkout, wait_for

CELLS = [Cell(dataset, backend, "gat") for dataset in ("digits", "synthetic") for backend in ("pyg", "dgl")]
TABLE = "results/tables/comparison.csv"  # enough where figures and MLflow are not the matter
AFTER_THE_RUNS = {"collect": 1, "compare": 1, "pareto": 1, "report": 1, "track": 1} | {
    f"{figure.module}_figure": len(figure.places(CELLS))
    for figure in FIGURES
    if figure.section == "figures" and figure.wanted(CELLS)
}
METHODS, BACKENDS, SEEDS = ("supervised", "at", "lsp"), ("pyg", "dgl"), 3


def test_every_run_is_in_the_table_and_every_method_in_the_comparison(finished):
    tables = finished.folder / "results/tables"
    runs, comparison = pd.read_parquet(tables / "runs.parquet"), pd.read_csv(tables / "comparison.csv")
    assert len(runs) == 2 * len(BACKENDS) * (1 + len(METHODS)) * SEEDS
    assert set(runs["status"]) == {"ok"}
    assert runs["test"].between(0, 1).all()
    told = [(row.dataset, name, row.method) for row in comparison.itertuples() for name in row.backend.split("+")]
    every = [(data, name, m) for data in CONFIG["datasets"] for name in BACKENDS for m in ("teacher", *METHODS)]
    assert sorted(told) == sorted(every), "each library of each method is in one row"
    assert (comparison["n_ok"] == SEEDS).all()
    pd.testing.assert_frame_equal(pd.read_csv(tables / "runs.csv")[["test", "val"]], runs[["test", "val"]])
    for ending in ("html", "tex", "md"):
        assert "supervised" in (tables / f"comparison.{ending}").read_text()
    for dataset in CONFIG["datasets"]:
        assert (finished.folder / f"results/figures/{dataset}.png").stat().st_size > 10_000


def test_the_table_holds_what_the_records_say(finished):
    runs = pd.read_parquet(finished.folder / "results/tables/runs.parquet")
    students = runs[runs["role"] == "student"]
    assert len(students) == 2 * len(BACKENDS) * len(METHODS) * SEEDS
    for row in students.itertuples():
        folder = finished.folder / "results/runs" / row.dataset / row.backend / row.pair / row.method
        record = read_record(folder / f"seed-{row.seed}.json")
        assert (record.test, record.val, record.key) == (row.test, row.val, row.key)
        history = pd.read_csv(folder / f"seed-{row.seed}.history.csv")
        assert len(history) == record.epochs
        assert history["val"].max() == pytest.approx(record.val, abs=0)


def test_both_libraries_train_to_the_same_scores(finished):
    runs = pd.read_parquet(finished.folder / "results/tables/runs.parquet")
    by = runs.pivot(index=["dataset", "method", "seed"], columns="backend", values="val")
    assert (by["pyg"] - by["dgl"]).abs().max() < 0.02  # a few epochs: rounding has not grown yet


def test_progress_is_visible(finished):
    assert "digits/pyg/gat/lsp: 2 of 2 ok" in finished.output
    log = (finished.folder / "results/logs/runs/digits/dgl/gat/lsp/0.log").read_text()
    assert "seed 1 (run 2 of 2): epoch 4 of 4, loss" in log
    assert "left" in log


def test_a_second_run_has_nothing_to_do(finished):
    assert finished.jobs() == {}
    assert "Nothing to be done" in finished.run()


def test_editing_a_method_reruns_that_method_only(project):
    before = project.records()
    file = project.folder / "methods/at.py"
    file.write_text(file.read_text().replace("z.square()", "z.abs()"))
    shards, cells = 2, 4
    assert project.jobs() == {"distill": shards * cells, "curves_figure": cells, **AFTER_THE_RUNS}
    project.run(TABLE)
    changed = {name for name, content in project.records().items() if content != before[name]}
    assert changed == {name for name in before if "/at/" in name}


def test_editing_the_trainer_reruns_every_run_and_touching_it_none(project):
    file = project.folder / "workflow/distillbench/training/fit.py"
    file.touch()
    assert project.jobs() == {}
    file.write_text(file.read_text() + "# edited\n")
    shards, cells = 2, 4
    runs = {"teacher": shards * cells, "distill": shards * cells * len(METHODS)}
    assert project.jobs() == {**runs, "curves_figure": cells, **AFTER_THE_RUNS}


def test_changing_a_hyperparameter_reruns_that_variant_only(project):
    before = project.records()
    project.configure(methods={**CONFIG["methods"], "at": {"weight": 5}})
    project.run(TABLE)
    changed = {name for name, content in project.records().items() if content != before[name]}
    assert changed == {name for name in before if "/at/" in name}


def test_more_seeds_train_the_new_ones_only(project):
    before = project.records()
    project.configure(seeds=5)
    project.run(TABLE)
    after = project.records()
    assert {name: after[name] for name in before} == before  # not even written again
    new = {Path(name).stem for name in set(after) - set(before)}
    assert new == {"seed-3", "seed-4"}
    assert len(after) == len(before) * 5 // 3
    assert (pd.read_csv(project.folder / "results/tables/comparison.csv")["n_ok"] == 5).all()


def _trainers(folder):
    """Processes that train in this folder: forked from a warm process, or the job itself."""
    found = []
    for process in psutil.process_iter():
        try:
            name = " ".join(process.cmdline())
            if process.cwd() == str(folder) and (
                "distillbench.jobs.warm" in name or ("tmp" in name and "train.py" in name)
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_killed_job_goes_on_at_the_seed_it_was_in(tmp_path, warm):
    """Fault: a training process is killed (SIGKILL) while it trains the second of three seeds.

    Provoked: it is killed while it is made to wait in the second seed, after a checkpoint, with warm and with cold
    starts.
    Promised: the first seed is not trained again, and the next run says that it is on disk already.
    """
    project = checkout(tmp_path / "project")
    digits = json.loads(json.dumps(CONFIG["datasets"]["digits"]))
    digits["pairs"]["gat"] |= {"training": {"epochs": 8}, "teacher_training": {"epochs": 2}}
    small = {"datasets": {"digits": digits}, "backends": ["pyg"], "methods": {"supervised": {}, "held": {}}}
    project.configure(**small, execution={"seeds_per_job": 3, "warm_start": warm, "checkpoint_seconds": 1e-6})
    (project.folder / "methods/held.py").write_text(HELD)
    target = "results/runs/digits/pyg/gat/held/records-0.json"
    run = subprocess.Popen(
        project.command(target),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = project.folder / Path(target).parent
    wait_for(lambda: run.poll() is not None or (folder / "seed-1.checkpoint.pt").exists())
    trainers = _trainers(project.folder)
    assert run.poll() is None and trainers
    for process in trainers:
        process.send_signal(signal.SIGKILL)
    assert run.wait(400) != 0
    assert not (project.folder / target).exists()
    before = project.records()
    assert sum("/held/" in name for name in before) == 1

    (project.folder / "go").touch()
    project.run(target)
    after = project.records()
    assert {name: after[name] for name in before} == before
    assert [record.status for record in read_shard(project.folder / target)] == ["ok"] * 3
    assert "seeds are on disk already" in (project.folder / "results/logs/runs/digits/pyg/gat/held/0.log").read_text()
    assert not list(folder.glob("*.checkpoint.pt"))


def test_runs_that_fail_are_recorded_and_the_rest_goes_on(tmp_path):
    """Fault: a loss becomes NaN; a teacher exceeds its time.

    Provoked: a learning rate of 1e30, and a time budget that no run can hold.
    Promised: the runs have the status diverged and timeout, students of a teacher that failed are skipped with
    that reason, the rest goes on, and the table says how many of how many are ok.
    """
    project = checkout(tmp_path / "project")
    wild = json.loads(json.dumps(CONFIG["datasets"]["digits"]))
    wild["dataset"] = "digits"
    wild["pairs"]["gat"]["training"]["learning_rate"] = 1e30
    wild["pairs"]["gat"]["teacher_training"] = {"epochs": 2}
    datasets = {"digits": CONFIG["datasets"]["digits"], "wild": wild}
    project.configure(seeds=2, backends=["pyg"], datasets=datasets, methods={"supervised": {}, "lsp": {}})
    project.run()
    runs = pd.read_csv(project.folder / "results/tables/runs.csv").set_index(["dataset", "method", "seed"])
    assert set(runs.loc["digits"]["status"]) == {"ok"}
    assert set(runs.loc[("wild", "lsp")]["status"]) == {"diverged"}
    assert runs.loc[("wild", "lsp", 0)]["reason"].startswith("epoch ")
    comparison = pd.read_csv(project.folder / "results/tables/comparison.csv").set_index(["dataset", "method"])
    assert comparison.loc[("wild", "lsp")]["verdict"] == "all failed"
    assert list(comparison.loc[("wild", "lsp")][["n_ok", "n"]]) == [0, 2]

    project.configure(
        seeds=2, backends=["pyg"], datasets=datasets, methods={"supervised": {}, "lsp": {}},
        execution={"seeds_per_job": 2, "run_seconds": 1e-4},
    )  # fmt: skip
    before = project.records()
    project.run(TABLE)
    assert project.records() == before  # finished runs, diverged ones too, are not tried again

    project.configure(
        seeds=3, backends=["pyg"], datasets=datasets, methods={"supervised": {}, "lsp": {}},
        execution={"seeds_per_job": 2, "run_seconds": 1e-4},
    )  # fmt: skip
    project.run(TABLE)
    runs = pd.read_csv(project.folder / "results/tables/runs.csv").set_index(["dataset", "method", "seed"])
    assert runs.loc[("digits", "teacher", 2)]["status"] == "timeout"
    assert runs.loc[("digits", "lsp", 2)]["status"] == "skipped"
    assert "teacher" in runs.loc[("digits", "lsp", 2)]["reason"]
    assert runs.loc[("digits", "lsp", 1)]["status"] == "ok"


def test_without_dgl_its_cells_are_shown_as_skipped(finished, tmp_path):
    """Fault: a graph library is not installed.

    Provoked: DGL is hidden from the import system.
    Promised: its cells are shown as skipped, with the reason; the rest runs.
    """
    project = finished.copy(tmp_path / "project")
    (tmp_path / "without").mkdir()
    (tmp_path / "without/sitecustomize.py").write_text("import sys\nsys.modules['dgl'] = None\n")
    project.environment["PYTHONPATH"] += f":{tmp_path / 'without'}"
    project.run(TABLE)
    comparison = pd.read_csv(project.folder / "results/tables/comparison.csv")
    of_dgl = comparison[comparison["backend"] == "dgl"]
    assert len(of_dgl) == 2 * (1 + len(METHODS))
    assert set(of_dgl["verdict"]) == {"skipped"}
    assert "dgl is not installed" in (project.folder / "results/tables/comparison.md").read_text()
    assert (comparison[comparison["backend"] == "pyg"]["n_ok"] == SEEDS).all()


def test_a_corrupt_shard_is_named_and_nothing_is_lost(project):
    """Fault: a job's file of records is damaged.

    Provoked: a score in it is changed.
    Promised: it is named, and after its deletion nothing is trained again.
    """
    shard = project.folder / "results/runs/digits/pyg/gat/at/records-0.json"
    shard.write_text(shard.read_text().replace('"test": 0.', '"test": 0.9', 1))
    before = project.records()
    output = project.run(TABLE, succeeds=False)
    assert "results/runs/digits/pyg/gat/at/records-0.json: corrupt record" in output
    assert "checksum" in output
    shard.unlink()
    project.run(TABLE)
    assert project.records() == before


def test_a_deleted_shard_is_made_again_from_its_seeds(project):
    """Fault: a job's file of records is deleted.

    Provoked: a file of records is deleted.
    Promised: it is made again from the seeds' records without training.
    """
    (project.folder / "results/runs/digits/pyg/gat/at/records-0.json").unlink()
    assert project.jobs() == {"distill": 1, "curves_figure": 1, **AFTER_THE_RUNS}


def test_a_corrupt_seed_is_named_set_aside_and_trained_again(project):
    """Fault: a seed's record is damaged.

    Provoked: a seed's record and its job's file are damaged.
    Promised: it is named and set aside, and that seed alone is trained again.
    """
    folder = project.folder / "results/runs/digits/pyg/gat/at"
    good = read_record(folder / "seed-1.json")
    (folder / "seed-1.json").write_text('{"key": "')
    (folder / "records-0.json").unlink()
    project.run("results/runs/digits/pyg/gat/at/records-0.json")
    log = (project.folder / "results/logs/runs/digits/pyg/gat/at/0.log").read_text()
    assert "seed-1.json: corrupt record" in log
    assert (folder / "seed-1.json.corrupt").read_text() == '{"key": "'
    again = read_record(folder / "seed-1.json")
    assert (again.test, again.val, again.digests) == (good.test, good.val, good.digests)


def test_a_corrupt_table_is_named(project):
    """Fault: the table of runs is damaged.

    Provoked: the table's file is cut short.
    Promised: it is named, with what to do.
    """
    table = project.folder / "results/tables/runs.parquet"
    table.write_bytes(table.read_bytes()[:100])
    assert "results/tables/runs.parquet: corrupt table" in project.run(TABLE, succeeds=False)


def test_a_plugin_of_the_users_own_runs_from_its_folder(project):
    mine = project.folder / "mine"
    mine.mkdir()
    shutil.copy(project.folder / "methods/kd.py", mine / "mykd.py")
    project.configure(plugins=["mine"], methods={**CONFIG["methods"], "mykd": {"temperature": 3}})
    before = project.records()
    project.run(TABLE)
    after = project.records()
    assert {name: after[name] for name in before} == before
    assert sum("/mykd/" in name for name in after) == 2 * len(BACKENDS) * SEEDS


def test_a_config_that_cannot_run_says_so_on_the_console(project):
    """Fault: a config cannot run.

    Provoked: a config with a misspelt name.
    Promised: the file, the key, the value and the nearest valid one are printed, and nothing runs.
    """
    project.configure(methods={"supervised": {}, "lps": {}})
    output = project.run("-n", succeeds=False)
    assert "config/test.yaml" in output
    assert "unknown method 'lps': did you mean 'lsp'?" in output
    assert "Traceback" not in output


def test_the_default_and_the_smoke_config_make_a_dag(finished):
    for config in ("config/config.yaml", "config/smoke.yaml"):
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--configfile", config],
            cwd=ROOT, capture_output=True, text=True, env=finished.environment | {"PYTHONPATH": str(ROOT / "workflow")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_the_linter_has_nothing_to_say_but_that_jobs_share_one_environment(finished):
    output = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"],
        cwd=finished.folder,
        env=finished.environment,
        capture_output=True,
        text=True,
    )
    lints = {line.strip() for line in (output.stdout + output.stderr).splitlines() if line.startswith("    * ")}
    assert lints == {"* Specify a conda environment or container for each rule.:"}


def test_the_records_are_in_mlflow(finished):
    synced = json.loads((finished.folder / "results/mlflow/synced.json").read_text())
    assert synced["added"] == len(finished.records()) + len(CONFIG["datasets"])  # and a summary for each data set


def test_records_of_another_config_never_enter_the_tables(project):
    """Fault: records of another config lie in the results folder.

    Provoked: a hyper-parameter is changed and the table asked for alone.
    Promised: the table refuses them and names them.
    """
    project.configure(methods={**CONFIG["methods"], "at": {"weight": 5}})
    table = project.folder / "results/tables/runs.csv"
    table.unlink()
    output = project.run("--rerun-triggers", "mtime", "--force", "results/tables/runs.csv", succeeds=False)
    assert "at/records-0.json: was trained with other hyper-parameters than the config asks for" in output
    assert not table.exists()


@pytest.mark.parametrize("how", ["triggered by times alone", "copied without metadata"])
def test_records_of_other_code_never_enter_the_tables(project, how):
    """Fault: the code is edited between two halves of a run, and Snakemake does not know what code its jobs had.

    Provoked: the trainer is edited; then the run goes on by times alone, or in a copy without Snakemake's metadata.
    Promised: the table of runs refuses records of other code and names them; undoing the edit is the way out.
    """
    before, file = project.records(), project.folder / "workflow/distillbench/training/fit.py"
    table = project.folder / "results/tables/runs.csv"
    if how == "copied without metadata":
        shutil.rmtree(project.folder / ".snakemake")
    arguments = ["--rerun-triggers", "mtime"] if how == "triggered by times alone" else []
    trainer, runs = file.read_text(), table.read_bytes()
    file.write_text(trainer + "# edited\n")
    output = project.run(TABLE, *arguments, succeeds=False)
    shards = list(project.folder.glob("results/*/*/*/*/**/records-*.json"))
    assert len(shards) == 2 * 2 * len(BACKENDS) * (1 + len(METHODS))  # two of each cell and model
    for shard in shards:
        assert f"{shard.relative_to(project.folder)}: seed" in output
    assert "trained by other code than is here. Delete it and run snakemake again" in output
    assert project.records() == before and not table.exists()
    file.write_text(trainer)
    project.run(TABLE, *arguments)
    assert project.records() == before and table.read_bytes() == runs


def test_a_library_that_is_there_but_does_not_import_is_skipped_with_its_error(tmp_path):
    """Fault: a graph library is installed and does not import.

    Provoked: DGL is replaced by a module that raises.
    Promised: its runs are skipped with its error as the reason.
    """
    project = checkout(tmp_path / "project")
    (tmp_path / "broken/dgl").mkdir(parents=True)
    (tmp_path / "broken/dgl/__init__.py").write_text("raise ImportError('GraphBolt is not for this torch')\n")
    project.environment["PYTHONPATH"] += f":{tmp_path / 'broken'}"
    digits = {"digits": CONFIG["datasets"]["digits"]}
    project.configure(seeds=1, backends=["dgl"], datasets=digits, methods={"supervised": {}}, profile=True)
    project.run(TABLE, "results/tables/profiles.csv")
    runs = pd.read_csv(project.folder / "results/tables/runs.csv")
    assert set(runs["status"]) == {"skipped"}
    assert runs["reason"].str.contains("GraphBolt is not for this torch").all()
    profiles = pd.read_csv(project.folder / "results/tables/profiles.csv")
    assert profiles["skipped"].str.contains("GraphBolt").all()
