"""The models, on any backend: layers are the backend's, everything around them is written once, here.

Weights have names common to all libraries and are initialised by name, so one seed gives equal weights everywhere and a
difference between libraries is a finding, not an accident.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillbench.config.specs import DGCNNSpec, GATSpec, LayeredSpec, PluginSpec, Spec, predicts_graphs
from distillbench.models.backends.base import Backend, Graph
from distillbench.params import Parameters, TaskName
from distillbench.plugins import PluginError, load
from distillbench.seeds import generator

_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {"relu": F.relu, "elu": F.elu, "leaky_relu": F.leaky_relu}


class Output(NamedTuple):
    """What a model computes, as the distillation methods see it.

    logits: [N, C], or [G, C] for graph-level tasks. hidden: one [N, D_l] tensor per hidden layer, before the
    activation unless the spec's ``tap`` says otherwise. edge_index: the edges used by each hidden layer: [2, E_l],
    empty for an MLP, which uses none. dynamic: whether the model drew these edges itself, layer by layer; else they are
    the graph's own.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]
    edge_index: tuple[Tensor, ...]
    dynamic: bool = False

    def on_own_edges(self, layer: int) -> bool:
        """Whether a hidden layer used the graph's own edges, and not none or such as it drew."""
        return not self.dynamic and self.edge_index[layer].shape[1] > 0


class Model(nn.Module):
    """Base of the models that are plug-ins: one class a file, in ``models/`` or a folder of the config's ``plugins``.

    ``Mine(params, backend, d_in, d_out)(graph, x [N, d_in]) -> Output``. Layers are the backend's (``backend.conv``,
    equal on all libraries), plain torch on ``graph.edge_index``, or one library's own on ``graph.native``.

    Class attributes:
        paper: first author and year. tasks: that it can do: ALL_TASKS and its like.
        libraries: those that it runs with, if not all: frozenset({"pyg"}).
        edges: which it uses, if not the "graph"'s own: "none", or "drawn" (it draws its own; see Output.dynamic).
        Params: its options in a config, and a property ``hidden_dims``, the widths of the hidden layers in ``Output``.
    """

    paper: ClassVar[str]
    tasks: ClassVar[frozenset[TaskName]]
    libraries: ClassVar[frozenset[str]] = frozenset({"pyg", "dgl", "csr"})
    edges: ClassVar[str] = "graph"
    Params: type[Parameters] = Parameters

    def __init__(self, params: Any, backend: Backend, d_in: int, d_out: int) -> None:
        super().__init__()
        self.params = params

    def forward(self, graph: Graph, x: Tensor) -> Output:
        """Logits and hidden features of one graph, or of several as one."""
        raise NotImplementedError

    def edge_flops(self, out: Output, library: str) -> int | None:
        """Operations of message passing in the pass that gave ``out``, see profiling.flops; None: not known."""
        return None


class GNN(nn.Module):
    """A model as its spec says: GAT, GCN, SAGE, GIN, MLP, DGCNN, or a plug-in.

    ``GNN(spec, backend, d_in, d_out)(graph, x [N, d_in]) -> Output``.
    """

    def __init__(self, spec: Spec, backend: Backend, d_in: int, d_out: int) -> None:
        super().__init__()
        self.spec, self.d_in, self.d_out, self.of_graphs = spec, d_in, d_out, predicts_graphs(spec)
        arguments = (backend, d_in, d_out)
        if isinstance(spec, PluginSpec):
            self.body: nn.Module = load("model", spec.declared.path)(spec, *arguments)
        else:
            self.body = _DGCNN(spec, *arguments) if isinstance(spec, DGCNNSpec) else _Layers(spec, *arguments)

    def forward(self, graph: Graph, x: Tensor) -> Output:
        """See the class. Raises PluginError where a plug-in's output is not what Output says, or its input changes."""
        if not isinstance(self.spec, PluginSpec):
            own: Output = self.body(graph, x)
            return own
        version = None if x.is_inference() else x._version
        out: Output = self.body(graph, x)
        if problem := self._problem(out, graph, x, version):
            raise PluginError(f"{self.spec.declared.path}: {problem}")
        return out

    def _problem(self, out: Any, graph: Graph, x: Tensor, version: int | None) -> str | None:
        if not isinstance(out, Output):
            return f"forward returned a {type(out).__name__}, must be an Output(logits, hidden, edge_index)"
        if version is not None and x._version != version:
            return "forward writes into its input x, which later steps and runs are given, too: x = x.clone() first"
        widths, (nodes, rows) = self.spec.hidden_dims, (len(x), graph.num_graphs if self.of_graphs else len(x))
        found = [tuple(h.shape) for h in out.hidden]
        if found != [(nodes, width) for width in widths]:
            return f"hidden features are {list(map(list, found))}, hidden_dims says {list(widths)} for {nodes} nodes"
        if tuple(out.logits.shape) != (rows, self.d_out):
            return f"logits are {list(out.logits.shape)}, must be {[rows, self.d_out]}"
        if len(out.edge_index) != len(out.hidden):
            return f"edges of {len(out.edge_index)} layers for {len(out.hidden)} hidden layers"
        if wrong := [str(each.dtype) for each in (out.logits, *out.hidden) if each.dtype != x.dtype]:
            return f"logits or hidden features are {wrong[0]}, must be {x.dtype} as x is"
        return None


class _Layers(nn.Module):
    """GAT, GCN, SAGE, GIN, MLP: convolutions one after another, with an optional linear residual from the second on."""

    def __init__(self, spec: LayeredSpec | GATSpec, backend: Backend, d_in: int, d_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.activation = _ACTIVATIONS[spec.activation]
        widths = [spec.hidden] * spec.layers if spec.readout else [spec.hidden] * (spec.layers - 1) + [d_out]
        heads = spec.heads_per_layer if isinstance(spec, GATSpec) else (1,) * spec.layers
        self.convs, self.residuals, self.biases = nn.ModuleList(), nn.ModuleDict(), nn.ParameterList()
        biases = isinstance(spec, GATSpec) and spec.biases
        for layer, (width, count) in enumerate(zip(widths, heads, strict=True)):
            self.convs.append(_conv(spec, backend, d_in, width, count))
            averaged = layer == spec.layers - 1 and not spec.readout
            d_out_of_layer = width if biases and averaged else width * count
            if spec.residual and (layer > 0 or biases):
                self.residuals[str(layer)] = nn.Linear(d_in, d_out_of_layer, bias=biases)
            if biases:
                self.biases.append(nn.Parameter(torch.zeros(d_out_of_layer)))
            d_in = width * count
        if spec.readout:
            self.classifier = nn.Linear(d_in, d_out)

    def forward(self, graph: Graph, x: Tensor) -> Output:
        hidden = []
        for layer, conv in enumerate(self.convs):
            x = F.dropout(x, self.spec.dropout, self.training)
            out = conv(graph, x)
            last = layer == len(self.convs) - 1 and not self.spec.readout
            if self.biases:
                out = (out.mean(dim=1) if last else out.flatten(1)) + self.biases[layer]
            if str(layer) in self.residuals:
                residual = self.residuals[str(layer)]
                if last and out.ndim == 3:
                    # the heads' mean residual is that of their mean weights: one product instead of one per head
                    weights = residual.get_parameter("weight").view(*out.shape[1:], -1)
                    out = out.mean(dim=1) + F.linear(x, weights.mean(dim=0))
                else:
                    out = out + residual(x).view_as(out)
            if last:
                logits = out.mean(dim=1) if out.ndim == 3 else out
                break
            out = out.flatten(1)
            x = self.activation(out)
            hidden.append(x if self.spec.tap == "after" else out)
        else:
            logits = self.classifier(_pool(x, graph, self.spec.readout or "mean"))
        # an MLP does not touch the graph
        edges = graph.edge_index if self.spec.model != "mlp" else torch.empty(2, 0, dtype=torch.int64, device=x.device)
        return Output(logits, tuple(hidden), (edges,) * len(hidden))


def _conv(spec: LayeredSpec | GATSpec, backend: Backend, d_in: int, d_out: int, heads: int) -> nn.Module:
    if isinstance(spec, GATSpec):
        return backend.conv("gat", d_in, d_out, heads=heads, negative_slope=spec.negative_slope)
    if spec.model == "mlp":
        return _NodeLinear(d_in, d_out)
    if spec.model == "gin":
        layers = [nn.Linear(d_in, d_out), nn.BatchNorm1d(d_out), nn.ReLU(), nn.Linear(d_out, d_out)]
        return backend.conv("gin", d_in, d_out, nn=nn.Sequential(*layers))
    return backend.conv(spec.model, d_in, d_out)


class _NodeLinear(nn.Linear):
    """A layer of an MLP: the graph is not touched."""

    def forward(self, graph: Graph, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class _DGCNN(nn.Module):
    """Wang et al., Dynamic Graph CNN for Learning on Point Clouds, TOG 2019 (classification network)."""

    def __init__(self, spec: DGCNNSpec, backend: Backend, d_in: int, d_out: int) -> None:
        super().__init__()
        self.spec, self.backend = spec, backend
        self.convs = nn.ModuleList()
        for width in spec.widths:
            self.convs.append(backend.conv("edge", d_in, width))
            d_in = width
        self.embedding = nn.Linear(sum(spec.widths), spec.embedding, bias=False)
        self.norm = nn.BatchNorm1d(spec.embedding)
        head: OrderedDict[str, nn.Module] = OrderedDict()
        d_in = 2 * spec.embedding
        for layer, width in enumerate(spec.head):
            # as in the authors' network: no bias in the first layer of the head, bias in the others
            head[f"linear{layer}"] = nn.Linear(d_in, width, bias=layer > 0)
            head[f"norm{layer}"] = nn.BatchNorm1d(width)
            head[f"activation{layer}"] = nn.LeakyReLU(spec.negative_slope)
            head[f"dropout{layer}"] = nn.Dropout(spec.dropout)
            d_in = width
        head["classifier"] = nn.Linear(d_in, d_out)
        self.head = nn.Sequential(head)

    def forward(self, graph: Graph, x: Tensor) -> Output:
        hidden, edges, activated = [], [], []
        for conv in self.convs:
            edges.append(graph.neighbours(x, self.spec.k))
            out = conv(self.backend.with_edges(graph, edges[-1]), x)
            x = F.leaky_relu(out, self.spec.negative_slope)
            hidden.append(x if self.spec.tap == "after" else out)
            activated.append(x)
        x = self.norm(self.embedding(torch.cat(activated, dim=1)))
        x = F.leaky_relu(x, self.spec.negative_slope)
        logits = self.head(torch.cat([_pool(x, graph, "max"), _pool(x, graph, "mean")], dim=1))
        return Output(logits, tuple(hidden), tuple(edges), dynamic=True)


def _pool(x: Tensor, graph: Graph, how: str) -> Tensor:
    """[G, D]: mean or max over the nodes of each graph."""
    sizes = graph.ptr.diff()
    if int(sizes.min()) == int(sizes.max()):
        cloud = x.view(len(sizes), -1, x.shape[1])
        return cloud.amax(dim=1) if how == "max" else cloud.mean(dim=1)
    reduce = {"max": "amax", "mean": "mean"}[how]
    index = graph.graph_of_node[:, None].expand_as(x)
    return x.new_zeros(len(sizes), x.shape[1]).scatter_reduce(0, index, x, reduce, include_self=False)


_CONSTANT = ".layer.eps"  # of a GIN's layer of a library: PyG and DGL shape it differently


def canonical_names(model: nn.Module) -> dict[str, str]:
    """From the names common to all libraries to this library's names, for every parameter and buffer of a model."""
    renamed = {}
    convs = {
        f"{name}.layer.": module.canonical for name, module in model.named_modules() if hasattr(module, "canonical")
    }
    for own in model.state_dict():
        prefix = next((p for p in convs if own.startswith(p)), None)
        common = own
        if prefix:
            local = own.removeprefix(prefix)
            match = next((p for p in convs[prefix] if local == p or local.startswith(f"{p}.")), None)
            local = convs[prefix][match] + local.removeprefix(match) if match else local
            common = prefix.removesuffix("layer.") + local
        renamed[common] = own
    return renamed


def canonical_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's parameters and buffers under their common names."""
    state = model.state_dict()
    return {
        common: state[own].detach().cpu().clone()
        for common, own in canonical_names(model).items()
        if not own.endswith(_CONSTANT)
    }


def load_canonical(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights saved by ``canonical_state``, from any backend.

    Raises:
        KeyError: the names are not this model's. RuntimeError: the shapes are not. The model is unchanged then.
    """
    names = {common: own for common, own in canonical_names(model).items() if not own.endswith(_CONSTANT)}
    if names.keys() != state.keys():
        raise KeyError(f"weights of another model: {', '.join(sorted(names.keys() ^ state.keys()))}")
    own_state = model.state_dict()
    for common, own in names.items():
        if own_state[own].shape != state[common].shape:
            raise RuntimeError(f"{common}: {tuple(state[common].shape)} does not fit {tuple(own_state[own].shape)}")
    for common, own in names.items():
        own_state[own].copy_(state[common])


def initialise(model: nn.Module, seed: int, scope: str) -> None:
    """Draw initial weights by name: Glorot-uniform matrices and attention vectors, zero biases, unit batch norms.

    Each parameter has its own generator from (seed, scope, name), so neither the library's order of construction nor
    its defaults matter.
    """
    parameters = dict(model.named_parameters())
    for common, own in canonical_names(model).items():
        if own not in parameters:
            continue
        parameter = parameters[own].data
        if parameter.ndim >= 2:
            bound = (6 / (parameter.shape[-2] + parameter.shape[-1])) ** 0.5
            random = generator(seed, scope, common)
            parameter.copy_(torch.rand(parameter.shape, generator=random) * 2 * bound - bound)
        elif common.split(".")[-1] in ("weight", "bias"):  # any other, such as a temperature, keeps its own beginning
            parameter.fill_(1.0 if common.endswith("weight") else 0.0)


def initialise_around(model: nn.Module, wrapper: nn.Module, seed: int, scope: str) -> None:
    """Initialise what a ``wrapper`` has besides the ``model`` in it, by name; the model's own weights stay."""
    if wrapper is not model:
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        initialise(wrapper, seed, scope)
        model.load_state_dict(kept)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
