"""The table of profiles: what each column means, and how a reader is shown it. Imports no torch."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from distillbench.profiling.trust import BUSY_PERCENT, DISAGREEMENT, RESOLUTION
from distillbench.wording import NOTHING, backend_label

Record = dict[Hashable, Any]

ALWAYS = ("parameters", "latency_ms", "peak_memory_mb")  # columns of the file even where no profile has them

# results/tables/profiles.csv, in this order; a column that no profile has is left out, if not one of ALWAYS
COLUMNS: dict[str, str] = {
    "dataset": "data set",
    "backend": "graph library",
    "pair": "pair of teacher and student",
    "role": "teacher or student",
    "model": "kind of model",
    "skipped": "why nothing was measured",
    "parameters": "number of trainable parameters",
    "weights_bytes": "bytes of the parameters in memory",
    "file_bytes": "bytes of the file of weights, as a run saves it: parameters, buffers and their names",
    "reads_graph": "False: measured without a graph (an MLP)",
    "batch_nodes": "nodes in the batch",
    "batch_graphs": "graphs in the batch; a transductive data set is one graph",
    "batch_edges": "edges of the batch, of the layer that has most",
    "graph_nodes": "nodes of the graph that is measured by itself, the training graph of median size",
    "dense_flops": "operations of dense matrix products in a pass over the batch: counted, multiply and add apart",
    "edge_flops": "operations of its message passing, by formula and library (flops.edge_flops)",
    "inference_status": "ok, or what ended its measurement: the figures of it that are missing do not fit",
    "latency_ms": "one forward pass over the batch, in evaluation mode without autograd, ms: median over the blocks of "
    "both passes, each block the mean of one or more calls",
    "latency_q25_ms": "its lower quartile",
    "latency_q75_ms": "its upper quartile",
    "graph_latency_ms": "the same for one graph; of a transductive data set the same figure, not measured again",
    "graph_latency_q25_ms": "its lower quartile",
    "graph_latency_q75_ms": "its upper quartile",
    "throughput_per_second": "nodes, or graphs, of the batch per second of latency_ms",
    "throughput_of": "nodes or graphs",
    "exported_latency_ms": "as latency_ms, of the student exported by torch.export: a function of features and edges, "
    "which converts the edges for its layers at each call (csr: to compressed rows)",
    "exported_latency_q25_ms": "its lower quartile",
    "exported_latency_q75_ms": "its upper quartile",
    "exported_difference": "largest difference of its outputs from the model's, as a fraction of their largest",
    "exported_status": "ok, or “for N nodes only” where it takes no graph of another size, or why it is not measured: "
    "not exported, or its outputs differ by more than 1e-5",
    "onnx_latency_ms": "as latency_ms, of an MLP in ONNX Runtime, on the CPU",
    "onnx_latency_q25_ms": "its lower quartile",
    "onnx_latency_q75_ms": "its upper quartile",
    "onnx_difference": "as exported_difference",
    "onnx_status": "as exported_status",
    "peak_memory_mb": "memory that one forward pass over the batch needs at its peak, besides model, batch and "
    "libraries, MB (10^6 bytes): the rise of resident memory; on a GPU, PyTorch's own counter. The second pass of a "
    "fresh process: what the first one keeps, as the graph in the form that its layers take, is not counted",
    "energy_joules": "energy of one forward pass over the batch, of the whole machine, J, where the config asks for it",
    "energy_status": "ok, or why it is not measured",
    "train_seconds_per_epoch": "training, with all cores and without the method's terms, and validation, which is done "
    "every epoch here, s: median over epochs",
    "training_status": "ok, or what ended it",
    "repeat_difference": "of all measured figures, the largest difference between the passes, over their mean, "
    "as far as it is more than the measurement resolves (profiling.trust.RESOLUTION)",
    "mistrusted": "figures whose two passes differ by more than a tenth, or that one pass lacks",
    "busy_before_percent": "share of all cores that other processes used before",
    "device": "cpu or cuda",
    "threads": "threads of the CPU that were used",
    "machine": "architecture",
    "measured": "when, UTC",
}


def profile_row(profile: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table: a profile as its JSON file holds it, flat and in the order of COLUMNS.

    Raises KeyError where it has no model.
    """
    machine = profile.get("environment", {})
    values = {**profile, **{name: machine.get(name) for name in ("device", "threads", "machine")}}
    values["model"] = profile["model"]["model"]
    if "mistrusted" in values:
        values["mistrusted"] = ", ".join(values["mistrusted"])
    return {name: values[name] for name in COLUMNS if name in values}


# what a reader is shown: by heading, the text of a row


def _known(record: Record, name: str) -> bool:
    value = record.get(name)
    return value is not None and value != "" and not pd.isna(value)


def _number(name: str, form: str, scale: float = 1.0) -> Callable[[Record], str]:
    return lambda r: form.format(scale * r[name]) if _known(r, name) else NOTHING


def _latency(r: Record) -> str:
    """Median and quartiles over the batch; a dagger where the two passes disagree."""
    if not _known(r, "latency_ms"):
        return NOTHING
    return f"{r['latency_ms']:.2f} ({r['latency_q25_ms']:.2f}–{r['latency_q75_ms']:.2f}){_flag(r, 'latency_ms')}"


def _flag(record: Record, name: str) -> str:
    return " †" if _known(record, "mistrusted") and name in str(record["mistrusted"]).split(", ") else ""


def _flagged(name: str, form: str) -> Callable[[Record], str]:
    number = _number(name, form)
    return lambda r: f"{number(r)}{_flag(r, name)}"


def _one_graph(r: Record) -> str:
    if not _known(r, "graph_latency_ms"):
        return NOTHING
    return "same" if r["graph_latency_ms"] == r["latency_ms"] else _flagged("graph_latency_ms", "{:.2f}")(r)


def _form(name: str) -> Callable[[Record], str]:
    """The latency of a deployed form, or a word where there is none."""
    latency = _flagged(f"{name}_latency_ms", "{:.2f}")

    def text(r: Record) -> str:
        if _known(r, f"{name}_latency_ms") or not _known(r, f"{name}_status"):
            return latency(r)
        differ = _known(r, f"{name}_difference") or "outputs differ" in r[f"{name}_status"]
        return "outputs differ" if differ else "not possible"

    return text


def _flops(r: Record) -> str:
    if not _known(r, "dense_flops"):
        return NOTHING
    edges = f"{r['edge_flops'] / 1e6:,.1f}" if _known(r, "edge_flops") else "?"
    return f"{r['dense_flops'] / 1e6:,.1f} + {edges}"


def _per_second(r: Record) -> str:
    """Made of the latency, and trusted as it is."""
    if not _known(r, "throughput_per_second"):
        return NOTHING
    return f"{r['throughput_per_second']:,.0f} {r['throughput_of']}{_flag(r, 'latency_ms')}"


def _device(r: Record) -> str:
    return f"{r['device']}, {r['threads']:.0f} thread{'s' if r['threads'] != 1 else ''}"


WHOSE: dict[str, Callable[[Record], str]] = {
    "Data set": lambda r: str(r["dataset"]),
    "Pair": lambda r: str(r["pair"]),
    "Library": lambda r: backend_label(str(r["backend"])),
    "Role": lambda r: str(r["role"]),
}
SPEED: dict[str, Callable[[Record], str]] = {
    **WHOSE,
    "Batch, ms (quartiles)": _latency,
    "One graph, ms": _one_graph,
    "Per second": _per_second,
    "Exported, ms": _form("exported"),
    "ONNX, ms": _form("onnx"),
    "Peak memory, MB": _flagged("peak_memory_mb", "{:.1f}"),
    "Energy, J": _flagged("energy_joules", "{:.3g}"),
    "Epoch, s": _flagged("train_seconds_per_epoch", "{:.3g}"),
    "Passes differ": _number("repeat_difference", "{:.0f}%", 100),
    "Device": _device,
}
SIZE: dict[str, Callable[[Record], str]] = {
    **WHOSE,
    "Model": lambda r: str(r["model"]),
    "Parameters": _number("parameters", "{:,.0f}"),
    "File, kB": _number("file_bytes", "{:,.1f}", 1e-3),
    "MFLOP, dense + edges": _flops,
    "Batch: nodes": _number("batch_nodes", "{:,.0f}"),
    "Graphs": _number("batch_graphs", "{:,.0f}"),
    "Edges": _number("batch_edges", "{:,.0f}"),
    "Reads the graph": lambda r: "yes" if r.get("reads_graph", True) else "no",
}
WORDS = frozenset((*WHOSE, "Model", "Reads the graph", "Device"))


UNMEASURED = {
    "inference": "Not all of inference measured",
    "training": "Training not measured",
    "exported": "Not exported",
    "onnx": "Not in ONNX Runtime",
    "energy": "No energy",
}


def notes(records: Sequence[Record]) -> list[str]:
    """What a reader of ``SPEED`` has to know: what was measured, what is not to be trusted, what could not be."""
    skipped = _reasons("Not measured", [(r, r["skipped"]) for r in records if _known(r, "skipped")])
    records = [r for r in records if _known(r, "repeat_difference")]
    if not records:
        return skipped  # none, or of a version that measured once
    texts = [
        "Batch: a forward pass in evaluation mode without autograd, over the whole graph or a batch of graphs; median "
        "and quartiles over blocks of calls. One graph: the training graph of median size; “same”: it is the batch.",
        "Peak memory: what the pass over the batch needs besides model, batch and libraries, the second in a fresh "
        "process: a graph's conversion, which is done once, is neither here nor in the latencies.",
    ]
    if any(_known(r, "train_seconds_per_epoch") for r in records):
        texts.append("Epoch: training with all cores, and validation, every epoch here, without the methods' terms.")
    if any(_known(r, "exported_status") for r in records):
        texts.append(
            "Exported: the student by torch.export, which converts the edges at each call; ONNX: an MLP in ONNX "
            "Runtime. Both give the model's outputs within 1e-5 of their largest, or have no figure."
        )
    flagged = any(_known(r, "mistrusted") for r in records)
    texts.append(
        "Everything was measured in two passes, the second after the first over both models. “Passes differ”: the "
        "largest difference of any figure. "
        + (
            f"† The two differ by more than {100 * DISAGREEMENT:.0f}% and more than can be resolved ({_resolved()}), "
            "or one has no figure: do not trust it."
            if flagged
            else f"They agree within {100 * DISAGREEMENT:.0f}%, or by less than can be resolved ({_resolved()}), "
            "everywhere."
        )
    )
    busy = [r for r in records if _known(r, "busy_before_percent") and r["busy_before_percent"] > BUSY_PERCENT]
    texts += _reasons(
        "Other processes ran on the machine, do not trust these figures",
        [(r, f"{r['busy_before_percent']:.0f}% of all cores were in use before") for r in busy],
    )
    for name, form in UNMEASURED.items():
        told = [(r, str(r[f"{name}_status"])) for r in records if _known(r, f"{name}_status")]
        partly = [(r, status) for r, status in told if status.startswith("for ")]
        texts += _reasons("Exported", partly)
        texts += _reasons(form, [(r, status) for r, status in told if status != "ok" and (r, status) not in partly])
    return texts + skipped


def _resolved() -> str:
    return f"{RESOLUTION['peak_memory_mb']:g} MB, {1000 * RESOLUTION['train_seconds_per_epoch']:g} ms"


def _reasons(what: str, told: Sequence[tuple[Record, str]]) -> list[str]:
    """A sentence for each reason: whose it is, both models of a pair together."""
    whose: dict[str, dict[str, list[str]]] = {}
    for r, reason in told:
        pair = f"{r['dataset']} {r['pair']} {backend_label(str(r['backend']))}"
        whose.setdefault(reason, {}).setdefault(pair, []).append(str(r["role"]))
    named = {reason: [" ".join((pair, ", ".join(roles))) for pair, roles in whose[reason].items()] for reason in whose}
    return [f"{what}: {'; '.join(names)}: {reason}." for reason, names in named.items()]
