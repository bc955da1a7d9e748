"""What can be expected to go wrong in a run becomes its status."""

import errno
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distillbench.data.graph_data import write_data
from distillbench.plugins import load
from distillbench.record import RecordError
from distillbench.training import experiment

ROOT = Path(__file__).parents[2]
CODE = """
import resource, sys
from pathlib import Path
from distillbench.training.experiment import Experiment
model = {"model": "mlp", "hidden": int(sys.argv[2])}
params = {"backend": "pyg", "dataset_file": sys.argv[3], "dataset_params": {}, "model": model}
params |= {"training": {"epochs": 1}, "protocol": {}}
experiment = Experiment(params, Path(sys.argv[1]))
used = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
print(experiment.run(0))
"""


@pytest.mark.parametrize(("hidden", "status"), [(8, "ok"), (50_000_000, "oom")])
def test_an_allocation_that_fails_is_out_of_memory(tmp_path, hidden, status):
    """Fault: memory runs out in training, for real (an allocation fails).

    Provoked: a process with a limit of 1 GB more address space than it has (ulimit -v) trains a model of 400 GB.
    Promised: the run ends with the status oom instead of a traceback; within the limit it is ok.
    """
    file = ROOT / "datasets/synthetic.py"
    plugin = load("dataset", file)
    dataset = plugin(plugin.Params())
    write_data(tmp_path, "synthetic", dataset, dataset.load())
    command = [sys.executable, "-c", CODE, str(tmp_path), str(hidden), str(file)]
    environment = {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert f"Outcome(status='{status}'" in done.stdout, done.stderr


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_what_is_not_finite_after_training_is_no_result(tmp_path, one_thread, monkeypatch, role):
    """Fault: a trained model gives NaN or infinite numbers on the test part, or a teacher does for its students.

    Provoked: a student sees features near the largest float in the test graphs only; a NaN is put into what a trained
    teacher hands to its students.
    Promised: the run has the status diverged with that reason, and no score; a NaN has an argmax, too.
    """
    file = ROOT / "datasets/synthetic.py"
    plugin = load("dataset", file)
    dataset = plugin(plugin.Params())
    data = dataset.load()
    model = {"model": "mlp", "hidden": 64, "layers": 4}
    params = {"backend": "csr", "dataset_file": str(file), "dataset_params": {}, "model": model}
    params |= {"training": {"epochs": 2}, "protocol": {}}
    if role == "student":
        x = data.x.clone()
        x[data.graph_ptr[data.split.test[0]] :] = 3e38
        data = replace(data, x=x)
        supervised = {"supervised": str(ROOT / "methods/supervised.py")}
        params |= {"teacher_model": model, "method": {"files": supervised, "params": {}, "requires": []}}
        said = "predictions on the test part are not finite"
    else:
        whole = experiment.teacher_outputs
        damaged = lambda *of: replace(found := whole(*of), hidden=(found.hidden[0] * float("nan"), *found.hidden[1:]))  # noqa: E731
        monkeypatch.setattr(experiment, "teacher_outputs", damaged)
        said = "outputs for students are not finite"
    write_data(tmp_path, "synthetic", dataset, data)
    outcome = experiment.Experiment(params, tmp_path).run(0)
    assert (outcome.status, outcome.reason) == ("diverged", said)
    assert outcome.test is None and outcome.weights is None and len(outcome.history) == 2


@pytest.mark.parametrize(
    "raised, status",
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "prior.npy"), "error"),
        (AssertionError(), "error"),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), None),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (RecordError("seed-0.json: corrupt record"), None),
    ],
    ids=lambda of: type(of).__name__,
)
def test_what_another_try_may_not_meet_fails_the_job_and_all_else_is_recorded(
    tmp_path, one_thread, monkeypatch, raised, status
):
    def fit(*_, **__):
        raise raised

    file = ROOT / "datasets/synthetic.py"
    plugin = load("dataset", file)
    dataset = plugin(plugin.Params())
    write_data(tmp_path, "synthetic", dataset, dataset.load())
    params = {"backend": "csr", "dataset_file": str(file), "dataset_params": {}, "model": {"model": "mlp", "hidden": 2}}
    run = experiment.Experiment({**params, "training": {"epochs": 1}, "protocol": {}}, tmp_path).run
    monkeypatch.setattr(experiment, "fit", fit)
    if status is None:
        with pytest.raises(type(raised), match=re.escape(str(raised))):
            run(0)
    else:
        said = f": {raised}" if str(raised) else ""
        assert run(0) == experiment.Outcome(status, f"{type(raised).__name__}{said}")
