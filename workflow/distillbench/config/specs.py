"""Model specifications: what a config says of a teacher or a student. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from distillbench.params import Parameters

Dropout = Annotated[float, Field(ge=0, lt=1)]


class _Spec(Parameters):
    """tap: whether methods see hidden features before or after the activation."""

    dropout: Dropout = 0.0
    tap: Literal["before", "after"] = "before"


class LayeredSpec(_Spec):
    """GCN, SAGE, GIN or MLP: ``layers`` layers, all but the last ``hidden`` units wide.

    readout: for graph-level tasks; then all layers are hidden, and a linear layer classifies the pooled features.
    """

    model: Literal["gcn", "sage", "gin", "mlp"]
    hidden: PositiveInt
    layers: Annotated[int, Field(ge=2)] = 2
    residual: bool = False
    activation: Literal["relu", "elu", "leaky_relu"] = "relu"
    readout: Literal["mean", "max"] | None = None

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Width of each hidden layer."""
        return (self.hidden,) * (self.layers if self.readout else self.layers - 1)


class GATSpec(_Spec):
    """GAT: ``hidden`` units per head; heads are concatenated in hidden layers and averaged in the last.

    residual: from the second layer on, a linear map without bias, heads averaged with the layer's (Yang et al. 2020).
    biases: the network of Joshi et al. (2022) instead: biases, and a linear residual with bias at every layer, in the
    last one added after the heads are averaged.
    """

    model: Literal["gat"]
    hidden: PositiveInt
    layers: Annotated[int, Field(ge=2)] = 2
    heads: PositiveInt | tuple[PositiveInt, ...] = 1
    residual: bool = True
    biases: bool = False
    activation: Literal["relu", "elu", "leaky_relu"] = "elu"
    negative_slope: NonNegativeFloat = 0.2
    readout: Literal["mean", "max"] | None = None

    @model_validator(mode="after")
    def _heads_for_each_layer(self) -> "GATSpec":
        if isinstance(self.heads, tuple) and len(self.heads) != self.layers:
            raise ValueError(f"heads: {list(self.heads)} has {len(self.heads)} entries for {self.layers} layers")
        return self

    @property
    def heads_per_layer(self) -> tuple[int, ...]:
        """Number of heads of each layer."""
        return self.heads if isinstance(self.heads, tuple) else (self.heads,) * self.layers

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Width of each hidden layer, heads concatenated."""
        widths = tuple(self.hidden * heads for heads in self.heads_per_layer)
        return widths if self.readout else widths[:-1]


class DGCNNSpec(_Spec):
    """DGCNN (Wang et al., TOG 2019): edge convolutions on k-nn graphs redrawn from each layer's features.

    widths: of the edge convolutions. embedding: units before the readout (max and mean, concatenated).
    head: units of the classifier's hidden layers. dropout: in the head.
    """

    model: Literal["dgcnn"]
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    embedding: PositiveInt
    head: tuple[PositiveInt, ...] = ()
    k: PositiveInt = 20
    negative_slope: PositiveFloat = 0.2

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Width of each edge convolution."""
        return self.widths


ModelSpec = Annotated[LayeredSpec | GATSpec | DGCNNSpec, Field(discriminator="model")]
ABOUT = {  # of each model the tasks it is for, and what it is
    "gat": ("nodes, graphs", "graph attention network: Velickovic et al., ICLR 2018"),
    "gcn": ("nodes, graphs", "graph convolutional network: Kipf and Welling, ICLR 2017"),
    "sage": ("nodes, graphs", "GraphSAGE with the mean over neighbours: Hamilton et al., NeurIPS 2017"),
    "gin": ("nodes, graphs", "graph isomorphism network: Xu et al., ICLR 2019"),
    "mlp": ("nodes, graphs", "a network that does not touch the graph"),
    "dgcnn": ("point clouds", "edge convolutions on graphs of nearest neighbours: Wang et al., TOG 2019"),
}
MODELS = tuple(ABOUT)


def predicts_graphs(spec: LayeredSpec | GATSpec | DGCNNSpec) -> bool:
    """Whether the model has one output per graph rather than per node."""
    return isinstance(spec, DGCNNSpec) or spec.readout is not None


def uses_edges(spec: LayeredSpec | GATSpec | DGCNNSpec) -> bool:
    """Whether the model passes messages at all."""
    return spec.model != "mlp"
