"""The paper's picture: the structure of a feature space, as the distances from one marked point to the others.

Yang, Qiu, Song, Tao, Wang: Distilling Knowledge from Graph Convolutional Networks. CVPR 2020 (the figures of learned
feature spaces). Teacher, student with a method, student alone: with the selected weights, and after given epochs of
training. One graph or cloud of the test part is drawn, of one seed; no label of it is looked at.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distillbench.config.config import ConfigError
from distillbench.data.graph_data import GraphData, Split
from distillbench.figures.structure_panels import (
    HOPS,
    MOST_NODES,
    Panel,
    View,
    draw_panels,
    ego_network,
    feature_distances,
    lay_out,
    links_among,
    project,
)
from distillbench.models.gnn import GNN, canonical_state, load_canonical
from distillbench.params import TEACHER
from distillbench.paths import Cell, Paths
from distillbench.plan.tuning import with_chosen
from distillbench.record import Record, RecordError, file_digest, read_shard
from distillbench.training.experiment import Experiment
from distillbench.training.inputs import Inputs, load_tensors
from distillbench.wording import backend_label

State = dict[str, Tensor]  # weights under their common names


def structure_figure(results: str, records: list[str], params: dict[str, Any], png: str, svg: str) -> str:
    """Draw the figure of one cell. Returns a line that sums the job up.

    records: the shards with the seed, of the teacher and then of each student. params: see Plan.structure_params.

    Raises:
        ConfigError: no such graph or node. RecordError: stored files that are not those of the record.
    """
    seed, (of_student, of_teacher), epochs = params["seed"], params["layers"], params["epochs"]
    roles = {TEACHER: params["teacher"], **params["students"]}
    cell = Cell(*(params["teacher"][name] for name in Cell._fields))
    paths = Paths(results)
    runs = {
        role: Run(_record_of(seed, Path(shard)), paths.runs(cell, role))
        for role, shard in zip(roles, records, strict=True)
    }
    teacher = Observed(roles[TEACHER], paths.data(cell.dataset))
    view = view_of(teacher.data, teacher.dataset.split(teacher.data, seed), seed, params["graph"], params["node"])
    panel_of_teacher = teacher.selected(runs[TEACHER], view, of_teacher)
    del teacher  # one copy of the data at a time is enough
    columns = {}
    for method, own in params["students"].items():
        student = Observed(with_chosen(own), paths.data(cell.dataset))
        columns[f"student with {method}" if own["method"]["requires"] else f"student alone ({method})"] = [
            *student.after(epochs, runs[method], runs[TEACHER], view, of_student),
            student.selected(runs[method], view, of_student),
        ]
    draw_panels(
        view,
        panel_of_teacher,
        columns,
        [*(f"after epoch {epoch}" for epoch in epochs), "selected epoch"],
        title=f"{cell.dataset}, {cell.pair}, {backend_label(cell.backend)}: structure of the feature space",
        text=f"Seed {seed}, {view.text}. Hidden layer of the student: {_named(of_student)}, of the teacher: "
        f"{_named(of_teacher)}.",
        png=Path(png),
        svg=Path(svg),
    )
    return f"{'/'.join(cell)}: {png}"


def view_of(data: GraphData, split: Split, seed: int, graph: int, node: int | None) -> View:
    """The ``graph``-th graph of the test part and the marked node, laid out.

    Without ``node``: of a cloud the point furthest from its centre; of a graph a node of medium degree (a node of the
    test part, where one graph holds all parts). Raises ConfigError where there is no such graph or node.
    """
    transductive, cloud = data.setting == "transductive", not data.edge_index.shape[1]
    graphs, what = torch.tensor([0]) if transductive else split.test, "cloud" if cloud else "graph"
    if not 0 <= graph < len(graphs):
        there = f"{what}s 0 to {len(graphs) - 1}" if len(graphs) > 1 else f"{what} 0 only"
        raise ConfigError(f"structure.graph: {graph}: the test part of seed {seed} has {there}")
    number = int(graphs[graph])
    one = data.graph(number)
    if node is not None and not 0 <= node < one.num_nodes:
        raise ConfigError(f"structure.node: {node}: {what} {graph} of the test part has nodes 0 to {one.num_nodes - 1}")
    if cloud:
        x = one.x.double().numpy()
        marked = int(np.linalg.norm(x - x.mean(axis=0), axis=1).argmax()) if node is None else node
        nodes = np.roll(np.arange(len(x)), -marked)
        text = f"cloud {graph} of the test part: {len(x)} points, marked is point {marked}"
        return View(number, nodes, *project(x[nodes]), np.empty((0, 2), np.int64), text)
    edges = one.edge_index.numpy()
    candidates = split.test.sort().values.numpy() if transductive else np.arange(one.num_nodes)
    by_degree = candidates[np.argsort(np.bincount(edges[1])[candidates], kind="stable")]
    marked = int(by_degree[len(by_degree) // 2]) if node is None else node
    nodes, within = ego_network(edges, marked, MOST_NODES), len(ego_network(edges, marked, one.num_nodes))
    links = links_among(nodes, edges)
    where = "the graph" if transductive else f"graph {graph} of the test part"
    shown = "all" if len(nodes) == within else f"{len(nodes) - 1} of the"
    text = f"{where}: node {marked} is marked; {shown} {within - 1} others within {HOPS} links of it are drawn"
    return View(number, nodes, lay_out(len(nodes), links), np.arange(len(nodes)), links, text)


class Run(NamedTuple):
    """A finished run and the folder that its files are in."""

    record: Record
    folder: Path

    @property
    def problem(self) -> str:
        """Why there are no weights of it, if so."""
        return "" if self.record.status == "ok" else f"no run: {self.record.status}: {self.record.reason}"

    def file(self, name: str) -> Path:
        """Its weights or outputs. Raises RecordError where they are not those that the record speaks of."""
        path = self.folder / f"seed-{self.record.seed}.{'pt' if name == 'weights' else 'outputs.pt'}"
        if not path.exists() or file_digest(path) != self.record.digests[name]:
            state = "does not match its record" if path.exists() else "is missing"
            raise RecordError(f"{path}: {state}. Delete it and {self.folder}/records-*.json, and run snakemake again.")
        return path

    def losses(self) -> dict[int, float]:
        """The training loss of every epoch."""
        with (self.folder / f"seed-{self.record.seed}.history.csv").open() as file:
            return {int(row["epoch"]): float(row["loss"]) for row in csv.DictReader(file)}


class _Enough(BaseException):  # which no run is to take for an error
    """The last epoch that was asked for is over."""


class Watched(NamedTuple):
    """Weights and training losses after epochs of a run, and why it ended before the last of them, if it did."""

    states: dict[int, State]
    losses: dict[int, float]
    reason: str


class Observed(Experiment):
    """An experiment whose model can be looked at while it is trained, and afterwards."""

    model: GNN

    def _model(self, seed: int, role: str, d_in: int) -> GNN:
        self.model = super()._model(seed, role, d_in)
        return self.model

    def watch(self, seed: int, epochs: Iterable[int], teacher_outputs: Sequence[Path] = ()) -> Watched:
        """Train the run of ``seed`` anew until the last of ``epochs`` is over.

        A seed fixes a run, so these are the weights that the stored run had (on a CPU, bit for bit). The run is stopped
        rather than planned shorter: its learning rate may depend on its length.
        """
        wanted = set(epochs)
        states: dict[int, State] = {}
        losses: dict[int, float] = {}

        def look(row: dict[str, float], _: int) -> None:
            epoch = int(row["epoch"])
            if epoch in wanted:
                states[epoch], losses[epoch] = canonical_state(self.model), row["loss"]
            if epoch == max(wanted):
                raise _Enough

        seconds = self.params["run_seconds"]
        try:
            outcome = self.run(seed, teacher_outputs=teacher_outputs, run_seconds=seconds, progress=look)
        except _Enough:
            return Watched(states, losses, "")
        ended = f"training ended after epoch {len(outcome.history)}"
        return Watched(states, losses, ended if outcome.status == "ok" else f"{outcome.status}: {outcome.reason}")

    def after(self, epochs: list[int], run: Run, teacher: Run, view: View, layer: int) -> list[Panel]:
        """A panel for each of ``epochs`` of a student's run."""
        needs_teacher = bool(self.params["method"]["requires"])
        if not epochs or (needs_teacher and teacher.problem):
            return [Panel(None, run.problem)] * len(epochs)
        seen = self.watch(run.record.seed, epochs, [teacher.file("outputs")] if needs_teacher else [])
        # on another kind of processor the last bits of a sum may differ, and a run goes its own way from there
        stored = run.losses()
        same = all(stored.get(epoch, loss) == loss for epoch, loss in seen.losses.items())
        return [
            self._panel(seen.states[epoch], view, layer, "" if same else "trained anew: not exactly the stored run")
            if epoch in seen.states
            else Panel(None, f"no weights: {seen.reason}")
            for epoch in epochs
        ]

    def selected(self, run: Run, view: View, layer: int) -> Panel:
        """A panel for the selected weights of a run."""
        if run.problem:
            return Panel(None, run.problem)
        state = load_tensors(run.file("weights"))
        return self._panel(state, view, layer, f"epoch {run.record.best_epoch} of {self.training.epochs}")

    def _panel(self, state: State, view: View, layer: int, note: str) -> Panel:
        distances = self.distances(state, view, layer)
        return Panel(distances, note) if np.isfinite(distances).all() else Panel(None, "features are not finite")

    @torch.no_grad()
    def distances(self, state: State, view: View, layer: int) -> np.ndarray:
        """Distances [P] in the features of a hidden layer, from the view's marked node to each of those drawn."""
        role = "student" if "method" in self.params else TEACHER
        model = self._model(0, role, self.data.x.shape[1])  # whose weights are replaced
        load_canonical(model, state)
        model.eval()
        inputs = Inputs(self.data, self.backend, self.device, self.training.batch_size)
        [batch] = inputs.ordered(torch.tensor([view.graph]))
        features = model(batch.graph, batch.x).hidden[layer]
        return feature_distances(features.cpu().numpy()[view.nodes])


def _record_of(seed: int, shard: Path) -> Record:
    return next(record for record in read_shard(shard) if record.seed == seed)


def _named(layer: int) -> str:
    return "last" if layer == -1 else str(layer)
