"""Model specifications: what a config says of a teacher or a student. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from distillbench.params import ALL_TASKS, Parameters
from distillbench.plugins import Declaration, PluginError, available, declaration, find, kind_of

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


BuiltIn = Annotated[LayeredSpec | GATSpec | DGCNNSpec, Field(discriminator="model")]
_ALL = ", ".join(sorted(ALL_TASKS))
ABOUT = {  # of each model the tasks it is for, and what it is
    "gat": (_ALL, "graph attention network: Velickovic et al., ICLR 2018"),
    "gcn": (_ALL, "graph convolutional network: Kipf and Welling, ICLR 2017"),
    "sage": (_ALL, "GraphSAGE with the mean over neighbours: Hamilton et al., NeurIPS 2017"),
    "gin": (_ALL, "graph isomorphism network: Xu et al., ICLR 2019"),
    "mlp": (_ALL, "a network that does not touch the graph"),
    "dgcnn": ("graph-multiclass, point clouds", "edge convolutions on nearest neighbours: Wang et al., TOG 2019"),
}
MODELS = tuple(ABOUT)


class PluginSpec(Parameters):
    """Of a model that is a plug-in (see models.gnn.Model): its own ``Params``, and ``model``, its name."""

    declared: ClassVar[Declaration]
    model: str

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Width of each hidden layer; the plug-in's own says so."""
        raise NotImplementedError(f"{self.declared.path}: hidden_dims")


Spec = LayeredSpec | GATSpec | DGCNNSpec | PluginSpec
FOLDERS = "models"  # in the context of a validation: the folders of models that are plug-ins


def _spec(value: Any, built_in: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """A specification by the name of its model: of one here, or of a plug-in's file."""
    name = value.get("model") if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        return built_in(value)
    if name in MODELS:
        own = [file for folder in _folders(info) if (file := folder / f"{name}.py").is_file()]
        if own and kind_of(own[0]) == "model":
            raise ValueError(f"{own[0]}: {name!r} is a model that is built in; give the file another name")
        return built_in(value)
    folders = _folders(info)
    try:
        file = find("model", name, folders)
    except PluginError as error:
        known = [*MODELS, *available(folders)]
        if name in available(folders):
            raise ValueError(str(error)) from None
        raise PydanticCustomError("unknown_model", "unknown model", {"tag": name, "known": known}) from None
    try:
        return plugin_spec(name, file).model_validate(value)
    except PluginError as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        raise PydanticCustomError("model_options", "options of a model", {"errors": error.errors()}) from None


def _folders(info: ValidationInfo) -> Sequence[Path]:
    folders: Sequence[Path] = (info.context or {}).get(FOLDERS, ())
    return folders


ModelSpec = Annotated[SerializeAsAny[BuiltIn], WrapValidator(_spec)]
_ADAPTER: TypeAdapter[Spec] = TypeAdapter(BuiltIn)


def plugin_spec(name: str, file: Path, _made: dict[Any, type[PluginSpec]] = {}) -> type[PluginSpec]:  # noqa: B006
    """The specification of a model that is a plug-in. Raises PluginError where the file declares none."""
    key = (name, file, file.stat().st_mtime_ns)
    if key not in _made:
        declared = declaration("model", file)
        made: Any = create_model(name, __base__=(declared.params, PluginSpec), model=(str, ...))
        made.declared = declared
        _made[key] = made
    return _made[key]


def read_spec(values: Mapping[str, Any], files: Mapping[str, str]) -> Spec:
    """What a job's parameters say of a model. files: of the plug-ins among the models, by name."""
    if file := files.get(values["model"]):
        return plugin_spec(values["model"], Path(file)).model_validate(values)
    return _ADAPTER.validate_python(values)


def plugin_of(spec: Spec) -> Declaration | None:
    """What a model that is a plug-in declares; None of one that is built in."""
    return spec.declared if isinstance(spec, PluginSpec) else None


def predicts_graphs(spec: Spec) -> bool:
    """Whether the model has one output per graph rather than per node."""
    if isinstance(spec, PluginSpec):
        of_graphs = spec.declared.tasks <= {"graph-multiclass"}
        return bool(getattr(spec, "readout", None)) if hasattr(spec, "readout") else of_graphs
    return isinstance(spec, DGCNNSpec) or spec.readout is not None


def uses_edges(spec: Spec) -> bool:
    """Whether the model passes messages at all."""
    declared = plugin_of(spec)
    return declared.attributes.get("edges", "graph") != "none" if declared else spec.model != "mlp"


def needs_edges(spec: Spec) -> bool:
    """Whether the graph's own edges have to be there: not for a model that draws its own, or uses none."""
    declared = plugin_of(spec)
    if declared:
        return bool(declared.attributes.get("edges", "graph") == "graph")
    return spec.model not in ("dgcnn", "mlp")
