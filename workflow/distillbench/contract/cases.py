"""What the contract tries a method on. Imports no torch."""

from typing import NamedTuple

from distillbench.params import TaskName
from distillbench.plugins import Declaration


class Case(NamedTuple):
    """What a method is tried on: a task, a student, point clouds or graphs, one graph or several."""

    task: TaskName
    student: str  # gat, gin, dgcnn or mlp
    clouds: bool = False
    transductive: bool = False

    def __str__(self) -> str:
        data = "clouds" if self.clouds else self.task
        # the usual way that each task comes is not named
        unusual = self.transductive != (self.task == "multiclass")
        return f"{data}-{self.student}" + unusual * ("-one-graph" if self.transductive else "-graphs")


def cases_of(declared: Declaration) -> list[Case]:
    """Every task that a method declares, with a student that uses the graph and, for node tasks, an MLP.

    Of methods for MLPs, MLPs alone. Classes of nodes come in one graph, of which some nodes are labelled, and, for
    methods of that task alone, in graphs, too; several labels in graphs. Methods that need to have seen all nodes, need
    nodes without a label, or add input features are tried on one graph alone.
    """
    mlp_only = declared.attributes.get("mlp_only", False)
    one_graph = any(declared.attributes.get(name, False) for name in ("transductive_only", "needs_unlabelled"))
    cases = []
    for task in sorted(declared.tasks):
        if task == "graph-multiclass":
            cases += [Case(task, "gin"), Case(task, "dgcnn", clouds=True)]
            cases += [Case(task, "mlp"), Case(task, "mlp", clouds=True)] if mlp_only else []
        else:
            one = task == "multiclass" or one_graph
            cases += [Case(task, student, transductive=one) for student in ("gat", "mlp")]
    if declared.tasks == {"multiclass"} and not one_graph and "student_inputs" not in declared.defines:
        cases.append(Case("multiclass", "mlp" if mlp_only else "gat"))
    return [case for case in cases if case.student == "mlp" or not mlp_only]
