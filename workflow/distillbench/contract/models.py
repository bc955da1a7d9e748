"""What every model must hold: outputs of the right shapes, equal on all its libraries, whatever the numbering.

It is tried on the small graphs of distillbench.contract.toys, in float64.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from distillbench.config.specs import PluginSpec, plugin_spec, predicts_graphs
from distillbench.config.variants import explain
from distillbench.contract.toys import data_of, in_double, renumbered
from distillbench.data.graph_data import GraphData
from distillbench.models.backends import get_backend, missing_reason
from distillbench.models.gnn import GNN, Output, canonical_state, initialise, load_canonical
from distillbench.params import TaskName
from distillbench.plugins import PluginError, load
from distillbench.training.inputs import Batch, Inputs

TOLERANCE = 1e-9  # of float64, relative to the largest entry
OF_LIBRARIES = 1e-5  # whose layers have coefficients in float32


class Trial(NamedTuple):
    """A model for a task, on all libraries that it is tried with."""

    spec: PluginSpec
    task: TaskName
    libraries: tuple[str, ...]

    @property
    def data(self) -> GraphData:
        """Small graphs for the task; clouds where the model draws its edges."""
        return data_of(self.task, clouds=self.spec.declared.attributes.get("edges") == "drawn")

    def model(self, library: str, seed: int = 0) -> GNN:
        """The model with the initial weights of a seed, in evaluation mode."""
        data = self.data
        model = GNN(self.spec, get_backend(library), data.x.shape[1], data.num_classes)
        initialise(model, seed, "student")
        return model.double().eval()

    def batch(self, library: str, data: GraphData | None = None, graphs: Tensor | None = None) -> Batch:
        """Graphs of the data as one, all of them by default."""
        data = data or self.data
        inputs = Inputs(in_double(data), get_backend(library), torch.device("cpu"), batch_size=data.num_graphs)
        (batch,) = inputs.ordered(torch.arange(data.num_graphs) if graphs is None else graphs)
        return batch

    def output(self, library: str) -> Output:
        """Of all graphs."""
        batch = self.batch(library)
        return run(self.model(library), batch)


def run(model: GNN, batch: Batch) -> Output:
    """The model's output for a batch."""
    out: Output = model(batch.graph, batch.x)
    return out


def shapes(trial: Trial, library: str) -> Iterator[str]:
    """The output is what Output says, and the hidden layers are those of hidden_dims."""
    out, data = trial.output(library), trial.data
    rows = data.num_graphs if trial.task == "graph-multiclass" else data.num_nodes
    if tuple(out.logits.shape) != (rows, data.num_classes):
        yield f"logits are {list(out.logits.shape)}, must be {[rows, data.num_classes]}"
    found, widths = [list(h.shape) for h in out.hidden], trial.spec.hidden_dims
    if found != [[data.num_nodes, width] for width in widths]:
        yield f"hidden features are {found}; hidden_dims says {list(widths)}, of {data.num_nodes} nodes"
    if len(out.edge_index) != len(out.hidden):
        yield f"edges of {len(out.edge_index)} layers for {len(out.hidden)} hidden layers"
    if not all(bool(torch.isfinite(each).all()) for each in (out.logits, *out.hidden)):
        yield "logits or hidden features are not finite"


def edges(trial: Trial, library: str) -> Iterator[str]:
    """The edges of each layer are what the class states: the graph's, its own, or none."""
    out, stated = trial.output(library), trial.spec.declared.attributes.get("edges", "graph")
    own = trial.batch(library).graph.edge_index
    found = "none" if not any(e.shape[1] for e in out.edge_index) else "drawn" if out.dynamic else "graph"
    if found != stated:
        yield f"the class states edges = {stated!r}, and they are {found!r} (dynamic = {out.dynamic})"
    elif found == "graph" and not all(torch.equal(each, own) for each in out.edge_index):
        yield "edge_index is not graph.edge_index: state edges = 'drawn' and give Output(..., dynamic=True)"


def gradients(trial: Trial, library: str) -> Iterator[str]:
    """Every trained parameter gets a gradient."""
    model = trial.model(library).train()
    batch = trial.batch(library)
    torch.autograd.backward(run(model, batch).logits.square().sum())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (parameter.grad is None or not bool(torch.isfinite(parameter.grad).all())):
            yield f"{name} has no gradient, or none that is finite"


def repeats(trial: Trial, library: str) -> Iterator[str]:
    """Out of training, the same input gives the same output; and so does a model with its weights loaded."""
    model, batch = trial.model(library), trial.batch(library)
    first, second = run(model, batch), run(model, batch)
    if not torch.equal(first.logits, second.logits):
        yield "two evaluations of one input differ: dropout or other random numbers outside of training"
    other = trial.model(library, seed=1)
    if torch.equal(run(other, batch).logits, first.logits):
        yield "two seeds give the same model: are the weights parameters?"
    load_canonical(other, {name: value.double() for name, value in canonical_state(model).items()})
    if not _near(run(other, batch).logits, first.logits):
        yield "with the weights of another model loaded it is not that model: state that is no parameter and no buffer"


def numbering(trial: Trial, library: str) -> Iterator[str]:
    """Nodes and graphs in another order have the same outputs."""
    data = trial.data
    other = renumbered(data, torch.Generator().manual_seed(3))
    model = trial.model(library)
    ours, theirs = (run(model, trial.batch(library, each)) for each in (data, other))
    place = {tuple(row): number for number, row in enumerate(other.x.tolist())}
    nodes = torch.tensor([place[tuple(row)] for row in data.x.tolist()])
    rows = nodes
    if trial.task == "graph-multiclass":
        rows = other.graph_ptr[1:].contiguous()  # the graph of each graph's first node
        rows = torch.searchsorted(rows, nodes[data.graph_ptr[:-1]], right=True)
    if not _near(theirs.logits[rows], ours.logits):
        yield "logits depend on the numbers of nodes or graphs"
    if not all(_near(b[nodes], a) for a, b in zip(ours.hidden, theirs.hidden, strict=True)):
        yield "hidden features depend on the numbers of nodes or graphs"


def separation(trial: Trial, library: str) -> Iterator[str]:
    """Graphs side by side are as each by itself."""
    data, model = trial.data, trial.model(library)
    if data.num_graphs == 1:
        return
    whole = run(model, trial.batch(library))
    alone = [run(model, trial.batch(library, graphs=torch.tensor([graph]))) for graph in range(data.num_graphs)]
    if not _near(torch.cat([out.logits for out in alone]), whole.logits):
        yield "logits of a graph depend on the graphs beside it (out of training)"


def taps(trial: Trial, library: str) -> Iterator[str]:
    """What methods see of a hidden layer changes nothing in the model."""
    if "tap" not in type(trial.spec).model_fields:
        return
    batch = trial.batch(library)
    outs = [run(_with(trial, tap=tap).model(library), batch) for tap in ("before", "after")]
    if not torch.equal(outs[0].logits, outs[1].logits):
        yield "logits differ with tap: before and tap: after"
    if all(torch.equal(a, b) for a, b in zip(outs[0].hidden, outs[1].hidden, strict=True)):
        yield "hidden features are the same before and after the activation: tap is not used"


def _with(trial: Trial, **options: object) -> Trial:
    return trial._replace(spec=trial.spec.model_copy(update=options))


def libraries(trial: Trial, library: str) -> Iterator[str]:
    """The same seed gives the same weights, outputs and gradients on every library."""
    first = trial.libraries[0]
    if library == first:
        return
    states = [canonical_state(trial.model(name)) for name in (first, library)]
    if states[0].keys() != states[1].keys():
        yield f"weights have other names with {library}: {', '.join(sorted(states[0].keys() ^ states[1].keys()))}"
        return
    if different := [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]:
        yield f"initial weights differ from those with {first}: {', '.join(different)}"
    found = []
    for name in (first, library):
        model, batch = trial.model(name), trial.batch(name)
        batch = replace(batch, x=batch.x.clone().requires_grad_())
        out = run(model, batch)
        torch.autograd.backward(out.logits.square().sum())
        found.append([out.logits, *out.hidden, batch.x.grad])
    names = ["logits", *(f"hidden[{number}]" for number in range(len(found[0]) - 2)), "gradients at x"]
    for name, a, b in zip(names, *found, strict=True):
        if a is None or b is None or not _near(a, b, OF_LIBRARIES):
            yield f"{name} differ from those with {first}"


def _near(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    a, b = a.detach(), b.detach()
    return bool((a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max())))


Check = Callable[[Trial, str], Iterator[str]]
CHECKS: tuple[Check, ...] = (shapes, edges, gradients, repeats, numbering, separation, taps, libraries)


def check_model(path: Path, asked: Sequence[str] = ()) -> bool:
    """Try a model on every task that it states with every library that it names; print what holds and what does not."""
    try:
        load("model", path)
        kind = plugin_spec(path.stem, path)
    except (PluginError, ImportError) as error:
        print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    declared = kind.declared
    try:
        spec = kind.model_validate({"model": path.stem, **declared.attributes.get("tried_with", {})})
    except ValidationError as error:
        wrong = "; ".join(explain("tried_with", each) for each in error.errors())
        print(f"{path}: {wrong} (tried_with: the options that the model is checked with)", file=sys.stderr)
        return False
    stated = sorted(declared.attributes.get("libraries", {"pyg", "dgl", "csr"}), key=["pyg", "dgl", "csr"].index)
    wanted = [name for name in stated if not asked or name in asked]
    missing = {name: reason for name in wanted if (reason := missing_reason(name))}
    there = tuple(name for name in wanted if name not in missing)
    print(f"{path}: {', '.join(sorted(declared.tasks))}; {', '.join(there) or 'no library'}")
    failures: dict[str, dict[str, list[str]]] = {}
    for task in sorted(declared.tasks):
        trial = Trial(_for_task(spec, task), task, there)
        for check in CHECKS:
            if check is not shapes and "shapes" in failures:
                continue
            for library in there:
                for problem in _problems(check, trial, library):
                    failures.setdefault(check.__name__, {}).setdefault(problem, []).append(f"{task}, {library}")
    for check in CHECKS:
        unseen = "shapes" in failures and check is not shapes
        status = "failed" if check.__name__ in failures else "skipped" if unseen or not there else "passed"
        print(f"  {status:8} {check.__name__:11} {(check.__doc__ or '').partition(chr(10))[0]}")
        for problem, places in failures.get(check.__name__, {}).items():
            print(f"           {places[0]}{f' and {len(places) - 1} more' if places[1:] else ''}: {problem}")
    for name, reason in missing.items():
        print(f"  skipped  {name}: {reason}")
    return not failures and bool(there)


def _for_task(spec: PluginSpec, task: TaskName) -> PluginSpec:
    """With a readout, if it has one, where the task is about graphs."""
    if task == "graph-multiclass" and not predicts_graphs(spec) and "readout" in type(spec).model_fields:
        return spec.model_copy(update={"readout": "mean"})
    return spec


def _problems(check: Check, trial: Trial, library: str) -> list[str]:
    try:
        with torch.random.fork_rng():
            return list(check(trial, library))
    except Exception as error:  # the model is somebody's code
        frame = error.__traceback__
        while frame and frame.tb_next and frame.tb_frame.f_code.co_filename != str(trial.spec.declared.path):
            frame = frame.tb_next
        line = frame.tb_lineno if frame else 0
        return [f"line {line}: {type(error).__name__}: {error}"]
