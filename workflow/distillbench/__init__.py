"""distillbench: a reproducible benchmark of knowledge distillation for graph neural networks.

Nothing here imports torch. What plug-ins import is in distillbench.plugin, the command in distillbench.cli.
"""

__version__ = "0.2.0.dev0"
