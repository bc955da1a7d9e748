"""distillbench: a reproducible benchmark of knowledge distillation for graph neural networks."""
