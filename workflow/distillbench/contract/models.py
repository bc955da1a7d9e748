"""What every model must hold: outputs of the right shapes, equal on all its libraries, whatever the numbering.

It is tried on the small graphs of distillbench.contract.toys, in float64.
"""

import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from distillbench.config.specs import MODELS, PluginSpec, plugin_spec, predicts_graphs
from distillbench.config.variants import explain
from distillbench.contract.toys import data_of, in_double, renumbered
from distillbench.data.graph_data import GraphData
from distillbench.models.backends import get_backend, missing_reason
from distillbench.models.gnn import GNN, Model, Output, canonical_state, initialise, load_canonical
from distillbench.params import TaskName
from distillbench.plugins import PluginError, find, load
from distillbench.seeds import shared_generators
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
    out = trial.output(library)  # GNN looks at all but this
    if not all(bool(torch.isfinite(each).all()) for each in (out.logits, *out.hidden)):
        yield "logits or hidden features are not finite"


def edges(trial: Trial, library: str) -> Iterator[str]:
    """The edges are what the class states: the graph's, its own, or none."""
    out, stated = trial.output(library), trial.spec.declared.attributes.get("edges", "graph")
    batch = trial.batch(library)
    if out.dynamic != (stated == "drawn"):
        yield f"the class states edges = {stated!r}, and Output says dynamic = {out.dynamic}"
    elif stated == "graph" and not all(
        not each.shape[1] or torch.equal(each, batch.graph.edge_index) for each in out.edge_index
    ):
        yield "edge_index is not graph.edge_index: state edges = 'drawn' and give Output(..., dynamic=True)"
    elif stated == "none" and any(each.shape[1] for each in out.edge_index):
        yield "the class states edges = 'none', and Output has some"
    if not trial.data.edge_index.shape[1]:
        return
    loops = torch.arange(trial.data.num_nodes).expand(2, -1)
    bare = run(trial.model(library), trial.batch(library, replace(trial.data, edge_index=loops)))
    if stated == "none" and not torch.equal(bare.logits, out.logits):
        yield "the class states edges = 'none', and its logits are others on a graph with other edges"
    if stated == "graph" and torch.equal(bare.logits, out.logits):
        yield "the class states edges = 'graph', and its logits are the same on one with other edges: 'none'"


def gradients(trial: Trial, library: str) -> Iterator[str]:
    """Every parameter is trained by the logits, and hidden features can be."""
    model = trial.model(library).train()
    out = run(model, trial.batch(library))
    for number, hidden in enumerate(out.hidden):
        if not hidden.requires_grad:
            yield f"hidden[{number}] has no gradient: a method that matches it would train nothing"
    torch.autograd.backward(out.logits.square().sum())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (parameter.grad is None or not bool(torch.isfinite(parameter.grad).all())):
            yield f"{name} has no gradient, or none that is finite"


def repeats(trial: Trial, library: str) -> Iterator[str]:
    """A seed gives one model, whatever was drawn before; it gives one output; and its weights are all of it."""
    model, batch = trial.model(library), trial.batch(library)
    with shared_generators(1):
        other = trial.model(library)
    if different := _different(canonical_state(model), canonical_state(other)):
        yield f"one seed gives two models: {', '.join(different)} is drawn in __init__: give it a constant"
    run(model.train(), batch)  # which may set state
    model.eval()
    random = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():  # as if trained, constants as well
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random, dtype=parameter.dtype))
    first, second = run(model, batch), run(model, batch)
    if not torch.equal(first.logits, second.logits):
        yield "two evaluations of one input differ: dropout or other random numbers outside of training"
    other = trial.model(library, seed=1)
    load_canonical(other, {name: value.double() for name, value in canonical_state(model).items()})
    if not _near(run(other, batch).logits, first.logits):
        yield "with the weights of another model loaded it is not that model: state that is no parameter and no buffer"


def operations(trial: Trial, library: str) -> Iterator[str]:
    """edge_flops, where there is one, gives a number of operations."""
    model = trial.model(library)
    assert isinstance(model.body, Model)
    found = model.body.edge_flops(run(model, trial.batch(library)), library)
    if found is not None and (type(found) is not int or found < 0):
        yield f"edge_flops gives {found!r}, must be an int of at least 0, or None"


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
    try:
        tapped = [trial._replace(spec=_changed(trial.spec, tap=tap)) for tap in ("before", "after")]
    except ValidationError:
        return  # no such option
    batch = trial.batch(library)
    with shared_generators(0):
        outs = [run(each.model(library), batch) for each in tapped]
    if not _near(outs[0].logits, outs[1].logits):
        yield "logits differ with tap: before and tap: after"
    if outs[0].hidden and all(torch.equal(a, b) for a, b in zip(outs[0].hidden, outs[1].hidden, strict=True)):
        yield "hidden features are the same before and after the activation: tap is not used"


def _changed(spec: PluginSpec, **options: object) -> PluginSpec:
    """The specification with other options. Raises ValidationError where it has none like these."""
    return type(spec).model_validate({**spec.model_dump(), **options})


def libraries(trial: Trial, library: str) -> Iterator[str]:
    """The same seed gives the same weights, outputs and gradients on every library."""
    first = trial.libraries[0]
    if library == first:
        return
    states = [canonical_state(trial.model(name)) for name in (first, library)]
    if states[0].keys() != states[1].keys():
        yield f"weights have other names with {library}: {', '.join(sorted(states[0].keys() ^ states[1].keys()))}"
        return
    if different := _different(*states):
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


def _different(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    return [name for name, value in ours.items() if not torch.equal(value, theirs[name])]


def _near(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    a, b = a.detach(), b.detach()
    return bool((a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max())))


Check = Callable[[Trial, str], Iterator[str]]
CHECKS: tuple[Check, ...] = (shapes, edges, gradients, repeats, numbering, separation, taps, libraries, operations)


def check_model(path: Path, asked: Sequence[str] = ()) -> bool:
    """Try a model on every task that it states with every library that it names; print what holds and what does not."""
    try:
        if path.stem in MODELS:
            raise PluginError(f"{path}: {path.stem!r} is a model that is built in; give the file another name")
        find("model", path.stem, [path.parent])  # as a config does
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
        unseen = ("shapes" in failures and check is not shapes) or (check is libraries and len(there) == 1)
        status = "failed" if check.__name__ in failures else "skipped" if unseen or not there else "passed"
        print(f"  {status:8} {check.__name__:11} {(check.__doc__ or '').partition(chr(10))[0]}")
        for problem, places in failures.get(check.__name__, {}).items():
            print(f"           {places[0]}{f' and {len(places) - 1} more' if places[1:] else ''}: {problem}")
    for name, reason in missing.items():
        print(f"  skipped  {name}: {reason}")
    return not failures and bool(there)


def _for_task(spec: PluginSpec, task: TaskName) -> PluginSpec:
    """With a readout, if it has one, where the task is about graphs, and without where it is about nodes."""
    field = type(spec).model_fields.get("readout")
    if field is None or predicts_graphs(spec) == (task == "graph-multiclass"):
        return spec
    words = re.findall(r"'(\w+)'", str(field.annotation))  # of a Literal, maybe one of None as well
    for value in words if task == "graph-multiclass" else [None]:
        try:
            return _changed(spec, readout=value)
        except ValidationError:
            continue
    return spec


def _problems(check: Check, trial: Trial, library: str) -> list[str]:
    try:
        with shared_generators(0):
            return list(check(trial, library))
    except PluginError as error:
        return [str(error).removeprefix(f"{trial.spec.declared.path}: ")]
    except Exception as error:  # the model is somebody's code
        own = trial.spec.declared.path.resolve()
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == own]
        return [f"line {lines[-1]}: {type(error).__name__}: {error}" if lines else f"{type(error).__name__}: {error}"]
