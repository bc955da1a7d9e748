"""Training without Snakemake: the same runs as the DAG's, one process a job."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from distillbench.cli import main
from distillbench.config.config import ConfigError
from distillbench.jobs import run, selection, workers
from distillbench.paths import Paths
from distillbench.plan.plan import make_plan
from distillbench.record import read_record, read_shard
from tests.workflow.conftest import HELD, wait_for

ROOT = Path(__file__).parents[2]
CONFIG = {
    "seeds": 2,
    "backends": ["pyg"],
    "plugins": ["more"],
    "datasets": {
        "synthetic": {
            "params": {"nodes": 30, "train": 4},
            "pairs": {
                "gat": {
                    "teacher": {"model": "gat", "hidden": 4, "heads": 2},
                    "student": {"model": "gcn", "hidden": 4},
                    "training": {"epochs": 20, "batch_size": 2},
                    "teacher_training": {"epochs": 2, "batch_size": 2},
                }
            },
        }
    },
    "methods": {"supervised": {}, "at": {}, "broken": {}},
    "profile": False,
    "execution": {"seeds_per_job": 2, "warm_start": False},
}
BROKEN = """
from distillbench.plugin import ALL_TASKS, Method

class Broken(Method):
    paper, tasks, requires = "none", ALL_TASKS, frozenset()

    def terms(self, student, teacher, ctx):
        raise ValueError("as asked")
"""
# read by every Python process, before anything else
WITHOUT = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    absent = name.partition(".")[0] in ("snakemake", "mlflow", "pandas", "matplotlib", "dgl", "scipy", "pyarrow")
    return None if absent else find(name, path, target)

PathFinder.find_spec = find_spec
"""
OPTIONS = ("run", "config.yaml", "--no-snakemake", "--cores", "2")
GOOD = ("--method", "supervised,at")


def write_project(folder):
    """A checkout of its own: nobody edits its code, whose digest is part of every key."""
    for name in ("Snakefile", "workflow", "methods", "datasets", "models"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        folder.mkdir(exist_ok=True)
        copy(ROOT / name, folder / name)
    for name, text in (("more/broken", BROKEN), ("absent/sitecustomize", WITHOUT)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return folder


def environment(folder, *more):
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder / "workflow", *more)))}


def start(folder, *arguments):
    command = [sys.executable, "-m", "distillbench", *OPTIONS, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(folder, folder / "absent"), **pipes)


def call(folder, *arguments):
    """Run the command; returns its exit status and what it printed."""
    process = start(folder, *arguments)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output + errors


def seed_files(folder):
    """Every seed's record: when it was written, and its content."""
    files = sorted(Paths(folder / "results").records())
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was stopped in its middle, and the same command again. Copy the folder before changing anything."""
    folder = write_project(tmp_path_factory.mktemp("run") / "project")
    (folder / "methods/supervised.py").write_text(HELD.replace("/held/", "/supervised/"))
    process = start(folder)
    first = folder / "results/runs/synthetic/pyg/gat/supervised/seed-0.json"
    wait_for(lambda: process.poll() is not None or first.exists())
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=400)
    (folder / "go").touch()
    stopped = SimpleNamespace(status=process.returncode, output=output, seeds=seed_files(folder))
    status, output = call(folder)
    return SimpleNamespace(folder=folder, stopped=stopped, status=status, output=output, seeds=seed_files(folder))


@pytest.fixture
def project(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "project")
    return tmp_path / "project"


def test_a_run_that_is_stopped_keeps_its_finished_seeds(finished):
    stopped = finished.stopped
    assert stopped.status == 128 + signal.SIGTERM
    assert "the same command goes on" in stopped.output
    assert "supervised/0: interrupted" in stopped.output
    assert 0 < len(stopped.seeds) < 6
    assert {name: finished.seeds[name] for name in stopped.seeds} == stopped.seeds  # not trained again


def test_every_seed_has_its_record(finished):
    folders = [f"runs/synthetic/pyg/gat/{method}" for method in ("supervised", "at")]
    for folder in ("teachers/synthetic/pyg/gat", *folders):
        shard = read_shard(finished.folder / "results" / folder / "records-0.json")
        assert [record.status for record in shard] == ["ok", "ok"]
        for record in shard:
            path = finished.folder / "results" / folder / f"seed-{record.seed}.json"
            assert read_record(path) == record
            assert path.with_suffix(".history.csv").exists() and path.with_suffix(".pt").exists()


def test_what_fails_is_named_and_the_rest_goes_on(finished):
    assert finished.status == 1
    assert "synthetic/pyg/gat/broken: 0 of 2 ok (error); seed 0: ValueError: as asked" in finished.output
    (log,) = (finished.folder / "results/logs/run").glob("synthetic/pyg/gat/broken/*.log")
    assert log.read_text().count("Traceback") == 2
    assert "5 of 5 jobs" in finished.output


class _Deadly:
    """Ends the process that reads it."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_process_that_dies_is_named_and_what_needs_it_is_not_started(tmp_path):
    def task(name, needs=(), **arguments):
        return workers.Task(name, arguments, needs, tmp_path / "file", tmp_path / f"{name}.log", (0,))

    tasks = [task("dead", x=_Deadly()), task("wrong", x=1), task("student", ("dead",)), task("pupil", ("student",))]
    told = []
    results = workers.run(tasks, 1, [], lambda task, facts: told.append(task.name))
    assert {name: facts["state"] for name, facts in results.items()} == {
        "dead": "failed",
        "wrong": "failed",
        "student": "not started",
        "pupil": "not started",
    }
    assert sorted(told) == sorted(results)
    assert "exit status 9" in results["dead"]["summary"]
    assert "TypeError" in results["wrong"]["summary"] and "Traceback" in (tmp_path / "wrong.log").read_text()
    assert "dead" in results["student"]["summary"]


def test_the_report_says_what_each_job_took(finished):
    report = json.loads((finished.folder / "results/run.json").read_text())
    assert report["command"].startswith("distillbench run config.yaml --no-snakemake")
    assert report["config"]["file"] == "config.yaml"
    assert report["states"] == {"done": 5}
    assert report["statuses"] == {"ok": 6, "error": 2}
    assert [env["device"].split(":")[0] for env in report["environments"]] in (["cpu"], ["cuda"])
    assert {"torch", "torch-geometric", "python"} <= set(report["environments"][0])
    job = report["jobs"]["synthetic/pyg/gat/at/0"]
    assert (job["state"], job["trained"], job["seeds"]) == ("done", 2, [0, 1])
    assert job["seconds"] > 0 and 0 < job["seconds_per_epoch"] < 10
    assert 50 < job["peak_memory_mb"] < 5000  # torch alone needs more than 50
    assert report["jobs"]["synthetic/pyg/gat/broken/0"]["statuses"] == {"error": 2}


def test_a_second_run_trains_nothing_and_can_be_published(project, finished):
    before = json.loads((project / "results/run.json").read_text())
    data = (project / "results/data/synthetic/data.npz").stat().st_mtime_ns
    status, output = call(project, *GOOD, "--publish", "toy")
    assert status == 0
    assert output.count("; 0 trained in") == 3
    assert seed_files(project) == finished.seeds
    assert (project / "results/data/synthetic/data.npz").stat().st_mtime_ns == data
    after = json.loads((project / "results/run.json").read_text())
    name = "synthetic/pyg/gat/at/0"
    assert after["jobs"][name] == before["jobs"][name]  # what the training took, not what finding it took
    assert after["environments"] == before["environments"]

    published = project / "results/reference/toy"
    files = {str(file.relative_to(published)) for file in published.rglob("*") if file.is_file()}
    expected = {"run.json"}
    for folder in ("teachers/synthetic/pyg/gat", *[f"runs/synthetic/pyg/gat/{m}" for m in ("supervised", "at")]):
        names = ("records-0.json", *[f"seed-{seed}.{end}" for seed in (0, 1) for end in ("json", "history.csv")])
        expected |= {f"{folder}/{name}" for name in names}
    assert files == expected


def test_nothing_finished_is_not_published(tmp_path):
    results = {"broken": {"state": "failed", "summary": ""}, "late": {"state": "done", "statuses": {"timeout": 1}}}
    tasks = [workers.Task(name, {}, (), tmp_path / "records-0.json", tmp_path / "log", (0,)) for name in results]
    with pytest.raises(ConfigError, match="nothing is published"):
        run.publish(tmp_path, tmp_path / "reference/toy", tasks, results)
    assert not (tmp_path / "reference").exists()


def test_snakemake_finds_every_seed_and_trains_none(project, finished):
    targets = [f"results/runs/synthetic/pyg/gat/{method}/records-0.json" for method in ("supervised", "at")]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config.yaml"]
    command += ["--forcerun", "teacher", "distill", "--", *targets]
    done = subprocess.run(
        command, cwd=project, env=environment(project), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("; 0 trained in") == 3
    assert seed_files(project) == finished.seeds


def test_a_part_of_a_shard_is_not_left_for_snakemake_to_take_for_the_whole(project, finished):
    teacher, student = (
        project / "results" / part for part in ("teachers/synthetic/pyg/gat", "runs/synthetic/pyg/gat/at")
    )
    status, output = call(project, "--method", "at", "--seeds", "1")
    assert status == 0
    assert output.count("1 of 1 ok") == 2  # the student's and, since it needs it, the teacher's
    assert not (teacher / "records-0.json").exists() and not (student / "records-0.json").exists()
    assert seed_files(project) == finished.seeds


def test_listing_does_nothing_and_imports_nothing_heavy(tmp_path):
    folder = write_project(tmp_path / "project")
    code = (
        "import sys\nfrom distillbench.cli import main\n"
        f"assert main({[*OPTIONS, *GOOD, '-n']}) == 0\n"
        "heavy = {'torch', 'torch_geometric', 'snakemake', 'mlflow', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [
        "data/synthetic",
        "synthetic/pyg/gat/teacher/0",
        "synthetic/pyg/gat/supervised/0",
        "synthetic/pyg/gat/at/0",
    ]
    assert lines[-1] == "4 jobs, 6 runs"
    assert not (folder / "results").exists()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A config in the working directory, with the methods and data sets of this checkout."""
    config = {**CONFIG, "plugins": [], "methods": {"supervised": {}, "at": {}}, "seeds": 3}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "syntetic"], "--dataset: unknown 'syntetic': did you mean 'synthetic'?"),
        (["--method", "supervized"], "--method: unknown 'supervized': did you mean 'supervised'?"),
        (["--pair", "gatt"], "--pair: unknown 'gatt': did you mean 'gat'?"),
        (["--backend", "dgI"], "backends.0: unknown value 'dgI': did you mean 'dgl'?"),
        (["--set", "seeds"], "--set seeds: must be KEY=VALUE"),
        (["--set", "seeds.x=1"], "seeds.x: 'seeds' is 3, nothing can be set below it"),
        (["--set", "datasets.synthetic.parms.nodes=3"], "unknown key 'parms': did you mean 'params'?"),
        (["--epochs", "1"], "--epochs is for a trial: give it a folder other than 'results', by --results"),
        (["--epochs", "1", "--results", "results/"], "give it a folder other than 'results'"),
        (["--set", "results"], "--set results: must be KEY=VALUE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_cannot_run_says_why(here, capsys, arguments, message):
    assert main([*OPTIONS, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("results").exists()


def test_a_trial_caps_the_epochs_of_all(here, capsys):
    options = selection.Options(Path("config.yaml"), epochs=5, results=Path("trial"))
    plan = run.read_plan(options, ())
    (cell,) = plan.cells
    assert plan.teacher_params(cell, 0)["training"]["epochs"] == 2  # no more than the config has
    assert plan.student_params(cell, "at", 0)["training"]["epochs"] == 5
    assert {task.file.parts[0] for task in run.select(plan, options)} == {"trial"}
    assert main([*OPTIONS, "--epochs", "5", "--results", "trial", "--publish", "x"]) == 2
    assert "a trial (--epochs) is not a result" in capsys.readouterr().err


def test_only_what_is_needed_is_selected(here):
    def names(*settings, **asked):
        options = selection.Options(Path("config.yaml"), **asked)
        return [task.name for task in run.select(run.read_plan(options, settings), options)]

    cell = "synthetic/pyg/gat"
    assert names(methods=("supervised",)) == ["data/synthetic", f"{cell}/supervised/0", f"{cell}/supervised/1"]
    assert names(methods=("teacher",), seeds=[2]) == ["data/synthetic", f"{cell}/teacher/1"]
    assert names(methods=("at",), seeds=[0, 1]) == ["data/synthetic", f"{cell}/teacher/0", f"{cell}/at/0"]
    one_each = names("execution.seeds_per_job=1", methods=("at",))
    assert one_each == ["data/synthetic", *[f"{cell}/{m}/{s}" for m in ("teacher", "at") for s in range(3)]]


def test_a_selected_job_trains_the_seeds_that_were_asked_for(here):
    options = selection.Options(Path("config.yaml"), methods=("at",), seeds=[1, 2])  # of three, two a job
    tasks = run.select(run.read_plan(options, ()), options)
    cell = "synthetic/pyg/gat"
    assert {task.name: task.arguments["params"]["seeds"] for task in tasks if task.seeds} == {
        f"{cell}/{method}/{shard}": [seed] for method in ("teacher", "at") for shard, seed in ((0, 1), (1, 2))
    }


def test_what_is_tuned_waits_for_its_trials_and_these_for_their_teachers(here):
    options = selection.Options(Path("config.yaml"), methods=("at", "supervised"), seeds=[0])
    tasks = {task.name: task for task in run.select(run.read_plan(options, ["tune.trials=3"]), options)}
    tuning, cell = "tuning/synthetic/gat", "synthetic/pyg/gat"
    teacher = f"tuning/{cell}/teacher"
    assert tasks[f"{cell}/at/0"].needs == ("data/synthetic", f"{cell}/teacher/0", f"{tuning}/at")
    assert tasks[f"{tuning}/at"].needs == ("data/synthetic", teacher)
    assert tasks[f"{tuning}/supervised"].needs == tasks[teacher].needs == ("data/synthetic",)
    assert {name for name, task in tasks.items() if task.seeds} == {
        f"{cell}/{m}/0" for m in ("teacher", "at", "supervised")
    }


def test_tuning_without_snakemake(tmp_path):
    folder = write_project(tmp_path / "project")
    epochs = "datasets.synthetic.pairs.gat.training.epochs=2"
    settings = ("--method", "supervised", "--set", epochs, "--set", "tune.trials=2", "--set", "tune.seeds=1")
    status, output = call(folder, *settings, "--publish", "toy")
    assert status == 0 and "2 of 2 trials run" in output
    chosen = json.loads((folder / "results/reference/toy/tuning/synthetic/gat/supervised.json").read_text())["chosen"]
    record = read_record(folder / "results/runs/synthetic/pyg/gat/supervised/seed-1.json")
    assert record.hyperparameters["training"]["learning_rate"] == chosen["training"]["learning_rate"]
    assert record.tuning["trials"] == 2
    # the config by itself tunes nothing: what Snakemake would take for finished is gone, the trials are not
    assert not (folder / "results/tuning/synthetic/gat/supervised.json").exists()
    status, output = call(folder, *settings)
    assert status == 0 and "0 of 2 trials run" in output and "2 of 2 ok" in output and "; 0 trained" in output


def test_a_setting_changes_its_own_entry_only(here):
    shared = yaml.safe_load("a: {training: &same {epochs: 3}}\nb: {training: *same}")
    run._place(shared, ["a", "training", "epochs"], 1)
    assert shared == {"a": {"training": {"epochs": 1}}, "b": {"training": {"epochs": 3}}}


def test_a_data_set_is_written_again_when_its_parameters_or_its_code_are_others(tmp_path):
    source = tmp_path / "source.py"
    source.touch()

    def prepared(nodes):
        params = {"train": 1, "val": 1, "test": 1, "nodes": nodes, "communities": 5, "features": 16}
        params |= {"membership": 0.35, "density": 6.0, "noise": 1.5, "seed": 0}
        arguments = {"results": str(tmp_path / "results"), "name": "mine", "params": params, "files": []}
        file = str(ROOT / "datasets/synthetic.py")
        return workers._prepare(**arguments, file=file, sources=[str(source)])["summary"]

    assert "30 nodes" in prepared(10)
    assert "on disk already" in prepared(10)
    assert "36 nodes" in prepared(12)
    assert "on disk already" in prepared(12)
    written = (tmp_path / "results/data/mine/data.json").stat().st_mtime
    os.utime(source, (written + 10, written + 10))
    assert "36 nodes" in prepared(12)


FROM_A_FILE = '''
"""Numbers from a file."""

from pathlib import Path

import torch

from distillbench.plugin import Dataset, GraphData, Parameters, Split


class FromAFile(Dataset):
    """One number a node."""

    task, setting, source, licence = "graph-multiclass", "inductive", "a test", "none"
    dynamic = True

    class Params(Parameters):
        """path: the file."""

        path: str

    def load(self):
        """Three clouds of two points."""
        x = torch.tensor([float(each) for each in Path(self.params.path).read_text().split()])[:, None]
        parts = Split(*torch.arange(3).split(1))
        y, ptr = torch.tensor([0, 1, 0]), torch.tensor([0, 2, 4, 6])
        return GraphData(x, torch.empty(2, 0, dtype=torch.int64), y, ptr, self.task, self.setting, 2, parts)

    def provenance(self):
        """A test's."""
        return {"canonical": True, "remark": ""}
'''


def test_a_data_set_is_written_again_when_the_file_it_is_read_from_is_another(tmp_path):
    (tmp_path / "own").mkdir()
    plugin, file = tmp_path / "own/from_a_file.py", tmp_path / "numbers.txt"
    plugin.write_text(FROM_A_FILE)
    file.write_text("1 2 3 4 5 6")
    pair = {"teacher": {"model": "mlp", "hidden": 2, "readout": "mean"}, "student": {"model": "mlp", "hidden": 2,
            "readout": "mean"}, "training": {"batch_size": 4}}  # fmt: skip
    entry = {"dataset": "from_a_file", "params": {"path": str(file)}, "pairs": {"p": pair}}
    values = {"results": str(tmp_path / "results"), "plugins": [str(tmp_path / "own")], "seeds": 1, "backends": ["csr"],
              "datasets": {"mine": entry}, "methods": {"supervised": {}}}  # fmt: skip

    def prepared():
        plan = make_plan(values, [], ROOT)
        arguments = {"results": str(plan.paths.root), "file": str(plugin), "sources": [], **plan.data_params("mine")}
        return workers._prepare(**arguments)["summary"]

    assert "3 graphs" in prepared()
    assert "on disk already" in prepared()
    file.write_text("1 2 3 4 5 7")
    os.utime(file, (0, 0))  # an older file, put in the other's place
    assert "3 graphs" in prepared()
    assert "on disk already" in prepared()
