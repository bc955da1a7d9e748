"""When a measured figure is to be trusted. Imports no torch."""

DISAGREEMENT = 0.10  # of two passes, as a fraction of their mean: past it a figure is not to be trusted
# what two passes may differ by without a meaning: Linux counts resident pages in batches per processor, and a run's
# history has tenths of milliseconds
RESOLUTION = {"peak_memory_mb": 0.3, "train_seconds_per_epoch": 0.0002}
BUSY_PERCENT = 20.0  # of all cores used by others: past it a profile is not to be trusted
# by what failed or not (its column of status is named so), the figures that there are none of beside an error
FIGURES_OF = {
    "inference": ("peak_memory_mb", "latency_ms", "graph_latency_ms"),
    "exported": ("exported_latency_ms",),
    "onnx": ("onnx_latency_ms",),
    "energy": ("energy_joules",),
    "training": ("train_seconds_per_epoch",),
}
