"""The table of profiles: what each column means, and how a reader is shown it. Imports no torch."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from distillbench.tables import NOTHING, backend_label

Record = dict[Hashable, Any]

DISAGREEMENT = 0.10  # of two passes, as a fraction of their mean: past it a figure is not to be trusted

# results/tables/profiles.csv, in this order; a column that no profile has is left out
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
    "edge_flops": "operations of its message passing, by formula (flops.edge_flops)",
    "latency_ms": "one forward pass over the batch, in evaluation mode without autograd, ms: median over the blocks of "
    "both passes, each block the mean of many calls",
    "latency_q25_ms": "its lower quartile",
    "latency_q75_ms": "its upper quartile",
    "graph_latency_ms": "the same for one graph; of a transductive data set the same figure, not measured again",
    "graph_latency_q25_ms": "its lower quartile",
    "graph_latency_q75_ms": "its upper quartile",
    "throughput_per_second": "nodes, or graphs, of the batch per second of latency_ms",
    "throughput_of": "nodes or graphs",
    "exported_latency_ms": "as latency_ms, of the student exported by torch.export",
    "exported_latency_q25_ms": "its lower quartile",
    "exported_latency_q75_ms": "its upper quartile",
    "exported_difference": "largest difference of its outputs from the model's, as a fraction of their largest",
    "exported_status": "ok, or why it is not measured: not exported, or its outputs differ by more than 1e-5",
    "onnx_latency_ms": "as latency_ms, of an MLP in ONNX Runtime, on the CPU",
    "onnx_latency_q25_ms": "its lower quartile",
    "onnx_latency_q75_ms": "its upper quartile",
    "onnx_difference": "as exported_difference",
    "onnx_status": "as exported_status",
    "peak_memory_mb": "memory that one forward pass over the batch needs at its peak, besides model, batch and "
    "libraries, in a fresh process, MB (10^6 bytes): the rise of resident memory; on a GPU, PyTorch's own counter",
    "energy_joules": "energy of one forward pass over the batch, of the whole machine, J, where the config asks for it",
    "energy_status": "ok, or why it is not measured",
    "train_seconds_per_epoch": "training and validation, the method's terms not included, s: median over epochs",
    "repeat_difference": "of all measured figures, the largest difference between the passes, over their mean, "
    "as far as it is more than the measurement resolves (profiling.RESOLUTION)",
    "mistrusted": "figures whose two passes differ by more than a tenth",
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
        return "outputs differ" if _known(r, f"{name}_difference") else "not possible"

    return text


def _flops(r: Record) -> str:
    if not _known(r, "dense_flops"):
        return NOTHING
    return f"{r['dense_flops'] / 1e6:,.1f} + {r['edge_flops'] / 1e6:,.1f}"


def _per_second(r: Record) -> str:
    if not _known(r, "throughput_per_second"):
        return NOTHING
    return f"{r['throughput_per_second']:,.0f} {r['throughput_of']}"


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


def notes(records: Sequence[Record]) -> list[str]:
    """What a reader of ``SPEED`` has to know: what was measured, what is not to be trusted, what could not be."""
    if not any(_known(r, "repeat_difference") for r in records):
        return []  # of a version that measured once
    texts = [
        "Batch: a forward pass in evaluation mode without autograd, over the whole graph or a batch of graphs; median "
        "and quartiles over blocks of calls. One graph: the training graph of median size; “same”: it is the batch.",
        "Peak memory: what the pass over the batch needs besides model, batch and libraries, in a fresh process.",
    ]
    if any(_known(r, "exported_status") for r in records):
        texts.append(
            "Exported: the student by torch.export; ONNX: an MLP in ONNX Runtime. Both give the model's outputs within "
            "1e-5 of their largest, or have no figure."
        )
    flagged = any(_known(r, "mistrusted") for r in records)
    texts.append(
        "Everything was measured in two passes, the second after the first over both models. “Passes differ”: the "
        "largest difference of any figure. "
        + (
            f"† The two differ by more than {100 * DISAGREEMENT:.0f}%: do not trust the figure."
            if flagged
            else f"They agree within {100 * DISAGREEMENT:.0f}% everywhere."
        )
    )
    for name, form in (("exported", "Not exported"), ("onnx", "Not in ONNX Runtime"), ("energy", "No energy")):
        reasons: dict[str, list[str]] = {}
        for r in records:
            if _known(r, f"{name}_status") and r[f"{name}_status"] != "ok":
                reasons.setdefault(str(r[f"{name}_status"]), []).append(_whose(r))
        texts += [f"{form}: {'; '.join(whose)}: {reason}." for reason, whose in reasons.items()]
    return texts


def _whose(r: Record) -> str:
    return f"{r['dataset']} {r['pair']} {backend_label(str(r['backend']))} {r['role']}"
