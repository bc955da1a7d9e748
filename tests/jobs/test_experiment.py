"""What can be expected to go wrong in a run becomes its status."""

import subprocess
import sys
from pathlib import Path

import pytest

from distillbench.data import write_data
from distillbench.plugins import load

ROOT = Path(__file__).parents[2]
CODE = """
import resource, sys
from pathlib import Path
from distillbench.experiment import Experiment
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
