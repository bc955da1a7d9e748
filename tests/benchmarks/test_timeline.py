"""Where a run's time went: worked by hand for a run of a few jobs."""

import time
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks.timeline import IDLE, core_seconds, idle, overhead, read_jobs
from distillbench import durations
from distillbench.data.graph_data import write_data
from distillbench.models import backends
from distillbench.plugins import load
from distillbench.training import experiment, fit
from distillbench.training.inputs import save_outputs

ROOT = Path(__file__).parents[2]
BEGAN = datetime(2026, 1, 2, 3, 4, 0).timestamp()


def write(logs, name, ended, line):
    """A log whose last line was written ``ended`` seconds after the run began."""
    path = logs / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"begins\n{datetime.fromtimestamp(BEGAN + ended):%Y-%m-%d %H:%M:%S},000 INFO {line}\n")


@pytest.fixture
def logs(tmp_path):
    """Two cores, 60 s: data 2-6, a teacher 6-26 beside a student 10-30, a profile 32-40, the table 41-45."""
    write(tmp_path, "data/digits.log", 6, "took 4.00 s: start 1.00, library 0.00, imports 1.00, rest 2.00")
    before = "start 1.00, library 3.00, imports 1.00, data 1.00"
    training = f"{before}, training 11.00, evaluation 2.00, writing 0.50, rest 0.50"
    write(tmp_path, "teachers/digits/pyg/gat/0.log", 26, f"took 20.00 s: {training}")
    write(tmp_path, "runs/digits/pyg/gat/kd/0.log", 30, f"took 20.00 s: {training}")
    profile = "start 1.00, library 0.00, imports 1.00, pause 0.50, rest 5.50"
    write(tmp_path, "profiles/digits/pyg/gat.log", 40, f"took 8.00 s: {profile}")
    write(tmp_path, "collect.log", 45, "took 4.00 s: start 1.00, library 0.00, imports 2.00, rest 1.00")
    return tmp_path


def test_every_second_of_every_core_is_in_the_account(logs):
    jobs = read_jobs(logs, 2, BEGAN, BEGAN + 60)
    found = core_seconds(jobs, 2, BEGAN, BEGAN + 60)
    assert found == pytest.approx({
        "training": 22, "evaluation": 4, "profiling": 11, "pause before profiling": 1,
        "start of jobs' processes": 6, "imports of modules": 7,
        "waiting for a library's import": 6, "reading data": 2, "writing records and weights": 1,
        "rest of jobs that train": 1, "data sets": 2, "collect": 1,
        IDLE[0]: 4,  # both cores until second 2
        IDLE[1]: 4 + 4 + 4 + 4,  # one core 2-6, 6-10, 26-30; both 30-32
        IDLE[2]: 2 + 4,  # both 40-41, one 41-45
        IDLE[3]: 30,
    })  # fmt: skip
    assert sum(found.values()) == pytest.approx(2 * 60)
    assert overhead(found) == pytest.approx(1 - (22 + 4 + 11) / 120)


def test_jobs_of_another_time_and_logs_of_another_kind_are_not_counted(logs):
    write(logs, "compare.log", 70, "took 4.00 s: start 1.00, library 0.00, imports 2.00, rest 1.00")
    write(logs, "pareto.log", 44, "ValueError: as asked")
    (logs / "report.log").write_text("")
    assert len(read_jobs(logs, 2, BEGAN, BEGAN + 60)) == 5


def test_each_table_that_takes_long_has_a_name_of_its_own(tmp_path):
    for name in ("collect", "compare", "pareto"):
        write(tmp_path, f"{name}.log", 45, "took 4.00 s: start 1.00, library 0.00, imports 2.00, rest 1.00")
    rest = {name for job in read_jobs(tmp_path, 2, BEGAN, BEGAN + 60) for name in job.parts}
    assert rest >= {"collect", "compare", "further tables"}


def test_a_core_is_idle_when_no_job_holds_it(logs):
    jobs = read_jobs(logs, 2, BEGAN, BEGAN + 60)
    assert idle(jobs, 2, BEGAN + 32, BEGAN + 40) == 0  # the profile has both
    assert idle(jobs, 2, BEGAN + 24, BEGAN + 31) == pytest.approx(4 + 2)
    assert idle([], 2, 0.0, 5.0) == 10


def test_time_within_is_not_counted_twice(monkeypatch):
    clock = iter([0.0, 2.0, 5.0, 9.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(durations, "_seconds", {})
    with durations.spending("training"), durations.spending("data"):
        pass
    line = durations.spent_line(10.0, {"start": 0.5})
    assert line == "took 10.00 s: start 0.50, training 6.00, data 3.00, rest 0.50"
    assert durations.read_spent(f"2026-01-02 03:04:05,000 INFO {line}") == (
        10.0,
        {"start": 0.5, "training": 6.0, "data": 3.0, "rest": 0.5},
    )
    assert durations.read_spent("2026-01-02 03:04:05,000 INFO digits: 5 of 5 ok") is None


def test_what_a_run_does_is_counted_as_what_it_is(tmp_path, monkeypatch):
    """Of each piece of work: what its time is counted as, innermost; worked out from the steps of a run."""
    counted = []

    def noted(patch, module, name):
        function = getattr(module, name)

        def call(*arguments, **options):
            counted.append((name, durations._outer[-1]))
            return function(*arguments, **options)

        patch.setattr(module, name, call)

    file = ROOT / "datasets/synthetic.py"
    plugin = load("dataset", file)
    dataset = plugin(plugin.Params())
    write_data(tmp_path, "synthetic", dataset, dataset.load())
    model = {"model": "mlp", "hidden": 4}
    params = {"backend": "csr", "dataset_file": str(file), "dataset_params": {}, "model": model}
    params |= {"training": {"epochs": 2}, "protocol": {}}
    for module, name in ((fit, "predict"), (experiment, "predict"), (experiment, "load_outputs")):
        noted(monkeypatch, module, name)
    with monkeypatch.context() as patch, durations.spending("data"):
        noted(patch, backends.importlib, "import_module")  # torch uses it, too, when it first trains
        cell = experiment.Experiment(params, tmp_path)
    assert ("import_module", "imports") in counted
    counted.clear()
    with durations.spending("training"):
        teacher = cell.run(0)
    validated = tested = ("predict", "evaluation")
    stored = validated  # the predictions of the selected weights
    assert counted == [validated, validated, stored, tested]
    counted.clear()
    save_outputs(tmp_path / "outputs.pt", teacher.outputs)
    with durations.spending("training"):
        cell.run(0, teacher_outputs=[tmp_path / "outputs.pt"], evaluate_test=False)
    assert counted == [("load_outputs", "data"), validated, validated]
