"""How names and numbers are written, in every table, figure and sentence."""

import math
from collections.abc import Iterable

BACKENDS = {"pyg": "PyG", "dgl": "DGL", "csr": "CSR"}  # in the order in which people are shown them
METRICS = {
    "accuracy": "accuracy", "micro_f1": "micro-F1", "mean_class_accuracy": "mean class accuracy", "roc_auc": "ROC AUC",
}  # fmt: skip
NOTHING = "–"
TORCHS = ("RuntimeError", "NotImplementedError", "AcceleratorError", "OutOfMemoryError", "DGLError", "AssertionError")


def backend_label(backend: str) -> str:
    """How people write the library's name: PyG, DGL, CSR; of several joined by ``+``, ``PyG, DGL``."""
    return ", ".join(BACKENDS.get(name, name) for name in backend.split("+"))


def backend_order(backend: str) -> tuple[int, str]:
    """Sort key: PyG, DGL, CSR, then any other by name."""
    first = backend.split("+")[0]
    return list(BACKENDS).index(first) if first in BACKENDS else len(BACKENDS), backend


def metric_label(metric: str) -> str:
    """How people write the metric's name."""
    return METRICS.get(metric, metric)


def reason_in_words(reason: str) -> str:
    """Why a run has no result, for readers: on one line, and without what torch says of sizes and allocators.

    ``out of memory: DefaultCPUAllocator: can't allocate …`` is ``out of memory``, ``RuntimeError: mat1 and mat2 …`` is
    ``RuntimeError, whose text is in runs.csv``. What a data set or a method says is kept, cut where it is long.
    """
    text = " ".join(reason.split())
    if text.lower().startswith("out of memory"):
        return "out of memory"
    kind, colon, _ = text.partition(": ")
    if colon and kind.removeprefix("torch.") in TORCHS:
        return f"{kind}, whose text is in runs.csv"
    return f"{text[:157]}…" if len(text) > 158 else text


def signed(fraction: float, digits: int = 2) -> str:
    """A difference of fractions as percentage points with its sign: ``+2.31``, ``−0.40``, ``0.00``; – where NaN."""
    if math.isnan(fraction):
        return NOTHING
    text = f"{100 * fraction:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def table_row(texts: Iterable[str]) -> str:
    """One row of a Markdown table, of texts that are escaped already."""
    return f"| {' | '.join(texts)} |"


def markdown_text(text: str) -> str:
    """Escape what Markdown would read as markup; pipes would end a table cell."""
    escaped = "".join(f"\\{char}" if char in "\\|*`[]~" else char for char in " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
