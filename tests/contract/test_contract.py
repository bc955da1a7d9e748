"""Each check of the contract fails for a method that is wrong in just this, and for no other."""

import pytest

from distillbench.contract.check import entries_of, result_of, results_of
from distillbench.contract.checks import CHECKS
from distillbench.models.backends import missing_reason
from distillbench.plugins import declaration

GOOD = '''"""Logit matching (LM).

Me, You: A paper. Journal 2026.
    L = task + ‖z_s − z_t‖²

Cost: linear in nodes.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from distillbench.plugin import Choice, Kernel, Method, Output, Parameters, Range


class Mine(Method):
    paper, tasks, requires = "me2026", frozenset({"multiclass"}), frozenset({"logits"})

    class Params(Parameters):
        weight: Annotated[float, Range(0.1, 10)] = 1.0

    def terms(self, student, teacher, ctx):
        distance = (student.logits - teacher.logits).square().sum(dim=-1)
        return {"task": ctx.task_loss(student.logits), "distance": self.params.weight * distance.mean()}
'''
TERMS, MEAN, TASK = "    def terms(self", "distance.mean()", '"task": ctx.task_loss(student.logits)'
NEEDS = 'frozenset({"logits"})'


@pytest.fixture
def written(tmp_path, one_thread):
    """A method's file: the good one, with the first text of each pair replaced by the second."""

    def write(*changes):
        text = GOOD
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return write


def failures(path, libraries=("pyg",)):
    """What fails in the first case: {check: the first reason}."""
    entries = entries_of(declaration("method", path), libraries)
    first = next(entry.case for entry in entries if entry.case)
    results = [result_of(path, entry) for entry in entries if entry.case in (None, first)]
    return {result.entry.check.name: result.reason for result in reversed(results) if result.status == "failed"}


def more(code):
    """More code in the class, before ``terms``."""
    return (TERMS, "".join(f"    {line}\n" for line in code.strip().splitlines()) + "\n" + TERMS)


def times(factor):
    """A weight for the mean distance."""
    return (MEAN, f"({MEAN} * ({factor}))")


def requiring(*what):
    return (NEEDS, f"frozenset({set(what)!r})")


PROJECTOR = more("""
def __init__(self, params, student_dims, teacher_dims):
    super().__init__(params, student_dims, teacher_dims)
    self.projector = nn.Linear(student_dims.logits, teacher_dims.logits)
    self.adversary = nn.Linear(student_dims.logits, 1)
""")
PROJECTED = ("(student.logits - teacher.logits)", "(self.projector(student.logits) - teacher.logits)")


def playing(loss="self.adversary(student.logits).square().mean() + self.adversary(teacher.logits).exp().mean()"):
    """An adversary with this loss."""
    return more(f"def adversary_loss(self, student, teacher, ctx):\n    return {loss}")


def test_the_good_method_passes_everything(written):
    allowed = {"passed", "skipped"} if missing_reason("dgl") else {"passed"}
    for changes in ((), (PROJECTOR, PROJECTED, playing())):
        assert {result.status for result in results_of(written(*changes))} == allowed


@pytest.mark.parametrize(
    "change, reason",
    [
        (('"me2026"', '""'), "paper is '', not a key"),
        (
            ('frozenset({"multiclass"})', 'frozenset({"multiclass", "links"})'),
            "tasks: links: choose from graph-multiclass",
        ),
        (requiring("logits", "weights"), "requires: weights: choose from edges"),
        (more('excused = {"repeat": "it is random"}'), "excused: repeat: choose from derivative, equal, numbering"),
        (more('excused = {"equal": ""}'), "excused from equal without a reason"),
        (more('tried_with = {"weigth": 3}'), "unknown key 'weigth': did you mean 'weight'?"),
        (more("nodes = 8\nnodes = torch.arange(9).numel() if Tensor else 8"), "its declaration cannot be read"),
    ],
)
def test_a_wrong_declaration_is_found(written, change, reason):
    found = {r.entry.check.name: r.reason for r in results_of(written(change)) if r.status == "failed"}
    assert found.keys() == {"declaration"}
    assert reason in found["declaration"]


# 1 where it is read without torch, 2 where it is not
TWO_VALUES = ("\nclass Mine", "\nW = 1.0\nW = float(torch.ones(1)) + W\n\n\nclass Mine")


def test_a_default_that_is_another_without_torch_is_found(written):
    found = failures(written(TWO_VALUES, ("] = 1.0", "] = W")))
    assert found.keys() == {"declaration"}
    assert "Params without torch" in found["declaration"] and "'weight': 2.0" in found["declaration"]


def test_a_search_space_that_is_another_without_torch_is_found(written):
    found = failures(written(TWO_VALUES, ("Range(0.1, 10)", "Range(0.1, W)")))
    assert found.keys() == {"declaration"}
    assert "Range(low=0.1, high=1.0" in found["declaration"] and "Range(low=0.1, high=2.0" in found["declaration"]


@pytest.mark.parametrize(
    "change, reason",
    [
        (("Logit matching (LM).", "Logit matching."), "its first line is 'Logit matching.', not a title"),
        (("Journal 2026", "Journal"), "no line has a year"),
        (("Cost: linear", "Linear"), "no line begins with 'Cost: '"),
        (('"""Logit matching', '_ = """Logit matching'), "there is no docstring"),
    ],
)
def test_a_docstring_that_leaves_something_out_is_found(written, change, reason):
    found = failures(written(change))
    assert found.keys() == {"docstring"}
    assert reason in found["docstring"]


def searching(declared):
    """Another declaration of the weight."""
    return ("Annotated[float, Range(0.1, 10)] = 1.0", declared)


def also(declared):
    """One more hyper-parameter."""
    return ("] = 1.0\n", f"] = 1.0\n        {declared}\n")


WRONG = {
    "search space": [
        ([searching("float = 1.0")], "no hyper-parameter says where it is searched for, such as weight: Annotated["),
        ([searching("Annotated[float, Range(2, 10)] = 1.0")], "weight: its default, 1.0, is not in Range(low=2,"),
        ([searching("Annotated[float, Range(0.1, 0.5)] = 1.0")], "weight: its default, 1.0, is not in Range(low=0.1"),
        ([also("share: Annotated[float | None, Range(1, 10)] = None")], "share: its default, None, is not in Range("),
        ([searching("Annotated[float, Range(10, 0.1)] = 1.0")], "does not end above its beginning"),
        ([searching("Annotated[float, Range(1, 1)] = 1.0")], "does not end above its beginning"),
        ([searching("Annotated[float, Range(0, 10)] = 1.0")], "has no logarithm at its beginning: set log=False"),
        (
            [searching("Annotated[float, Field(ge=0, le=1), Range(0, 2, log=False)] = 1.0")],
            "weight: 2 of Range(low=0, high=2, log=False) is not valid: Input should be less than or equal to 1",
        ),
        (
            [searching("Annotated[int, Range(0.5, 8)] = 1")],
            "weight: 0.5 of Range(low=0.5, high=8, log=True) is not valid: Input should be a valid integer",
        ),
        (
            [also('kernel: Annotated[Kernel, Choice("l2", "l1")] = "l2"')],
            "kernel: 'l1' of Choice(values=('l2', 'l1')) is not valid: Input should be 'l2', 'linear'",
        ),
        ([searching("Annotated[float, Choice(2.0, 3.0)] = 1.0")], "weight: its default, 1.0, is not in Choice("),
        ([searching("Annotated[float, Choice(1.0)] = 1.0")], "weight: Choice(values=(1.0,)) leaves no choice"),
    ],
    "terms": [
        ([times("float('nan')")], "term 'distance' is nan"),
        ([times("-1")], "not positive"),
        ([times("0")], "term 'distance' is 0.0, not positive"),
        ([(MEAN, "distance")], "term 'distance' has shape (56,), not that of a scalar"),
        ([(MEAN, "1.0")], "term 'distance' is a float, not a tensor"),
        ([('"task":', '"loss":')], "there is no term 'task': distance, loss"),
        ([('"distance": self.params.weight * distance.mean()', "")], "there is no term beside 'task'"),
        ([('"me2026"', '"control"')], "there are terms beside 'task': distance, task"),
        ([(MEAN, "student.logits.nonsense()")], "AttributeError: 'Tensor' object has no attribute 'nonsense'"),
    ],
    "gradient": [
        (
            [more("def wrap_student(self, student, setup):\n    student.unused = nn.Linear(2, 2)\n    return student")],
            "the terms' gradient does not reach the student's parameter unused.weight",
        ),
        ([times("teacher.logits.requires_grad_().ndim / 2")], "teacher.logits requires a gradient"),
        (
            # the model that the outputs come from, found behind the setup's back
            [
                requiring("logits", "model"),
                more("""
def prepare(self, setup):
    self.model = [setup.run_teacher.__wrapped__.__self__.model], setup.x
"""),
                times("1 + 0 * sum(p.sum() for p in self.model[0][0].parameters())"),
            ],
            "the terms' gradient reaches the teacher's parameter",
        ),
    ],
    "distillation": [
        ([("student.logits - teacher", "student.logits.detach() - teacher")], "term 'distance' depends on nothing"),
        (
            [PROJECTOR, ("(student.logits - teacher.logits)", "(self.projector(teacher.logits) - 1)")],
            "the gradient of term 'distance' does not reach the student's first layer",
        ),
        (
            [PROJECTOR],
            "the distillation's gradient does not reach the method's parameter projector.weight",
        ),
    ],
    "equal": [
        ([("teacher.logits)", "2 * teacher.logits)")], "an equal student gets a gradient of"),
        ([('"distance"', '"structure"'), (MEAN, f"(0.1 + {MEAN})")], "term 'structure' is 0.1 for a student equal"),
    ],
    "numbering": [
        ([(MEAN, "(distance * torch.arange(len(distance))).mean()")], "in another order, term 'distance' is"),
    ],
    "repeat": [
        ([times("1 + torch.rand(())")], "the second time"),
        ([times("1 + __import__('random').random()")], "the second time"),
    ],
    "state": [
        (
            [
                more("steps = 0"),
                (
                    "        distance =",
                    "        self.steps = self.steps + 1\n        distance =",
                ),
                times("self.steps"),
            ],
            "resumed from a checkpoint after the first (is all state in buffers?), term 'distance' is",
        ),
    ],
    "untouched": [
        ([("        distance =", "        ctx.labels.clamp_(min=0)\n        distance =")], "ctx.labels is changed in"),
        (
            [("        distance =", "        teacher.logits.add_(0)\n        distance =")],
            "teacher.logits is changed in place",
        ),
    ],
    "precompute": [
        (
            [
                more("""
def precompute(self, teacher, edge_index):
    return {"weight": 2 * torch.ones(len(teacher.logits))}
"""),
                times("ctx.precomputed['weight'].mean() if ctx.precomputed else 1"),
            ],
            "without what is precomputed, term 'distance' is",
        ),
    ],
    "needs": [
        ([times("teacher.hidden[-1].square().mean()")], "without hidden, which requires does not name, term"),
        ([times("ctx.teachers[1].logits.square().mean()")], "without teachers, which requires does not name"),
        ([times("1 + (teacher.edge_index[0][0] == teacher.edge_index[0][1]).sum()")], "without edges, which requires"),
        (
            [
                more("def prepare(self, setup):\n    self.scale = setup.run_teacher(setup.x).logits.square().mean()"),
                times("self.scale"),
            ],
            "without model, which requires does not name",
        ),
        (
            [times("1 + ctx.labels[ctx.labelled].double().mean()")],
            "with other labels (requires does not name 'labels'), term 'distance'",
        ),
        ([requiring()], "without a teacher, which requires does not name, it raises"),
    ],
    "hidden labels": [
        (
            [requiring("logits", "labels"), times("1 + ctx.labels.clamp(min=0).double().mean()")],
            "with other labels on rows that are not labelled, term 'distance' is",
        ),
        (
            [
                requiring("logits", "labels"),
                more("def prepare(self, setup):\n    self.scale = 1 + setup.labels.clamp(min=0).double().mean()"),
                times("self.scale"),
            ],
            "with other labels on rows that are not labelled, term 'distance' is",
        ),
    ],
    "derivative": [
        (
            [times("2 + student.logits.detach().sin().mean()")],
            "the gradient of term 'distance' at the student's logits is not its derivative",
        ),
    ],
    "adversary": [
        (
            [PROJECTOR, PROJECTED, playing("self.adversary(self.projector(student.logits)).exp().mean()")],
            "the gradient of adversary_loss reaches the method's parameter projector.weight",
        ),
        (
            [PROJECTOR, PROJECTED, playing("student.logits.square().mean()")],
            "adversary_loss does not depend on the adversary",
        ),
        (
            [PROJECTOR, PROJECTED, playing("None")],
            "adversary_loss is None in the first step",
        ),
        (
            [playing("student.logits.square().mean()")],
            "there is an adversary_loss, and no adversary: set self.adversary",
        ),
    ],
    "libraries": [
        (
            [
                more("""
def wrap_student(self, student, setup):
    self.scale = 1.001 if "dgl" in type(student.body.convs[0].layer).__module__ else 1.0
    return student
"""),
                times("self.scale"),
            ],
            "with DGL instead of PyG, term 'distance' is",
        ),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "check, changes, reason",
    [
        pytest.param(check, *example, id=f"{check}{number}")
        for check, examples in WRONG.items()
        for number, example in enumerate(examples)
    ],
)
def test_a_method_that_is_wrong_in_one_thing_fails_the_check_of_it_alone(written, check, changes, reason):
    if check == "libraries" and (missing := missing_reason("dgl")):
        pytest.skip(missing)
    found = failures(written(*changes), ("pyg", "dgl") if check == "libraries" else ("pyg",))
    assert found.keys() == {check}, found
    assert reason in found[check]


def test_a_control_and_what_is_computed_otherwise_need_no_search_space(written):
    alone = [
        ('"distance": self.params.weight * distance.mean()', ""),
        ("(student.logits - teacher.logits)", "student.logits"),
    ]
    control = [('"me2026"', '"control"'), requiring()]
    assert not failures(written(searching("float = 1.0"), *alone, *control))
    assert not failures(written(also("bins: int = 7")))
    # a default at an end, and 0 where the range is linear
    assert not failures(written(searching("Annotated[float, Range(1, 100)] = 1.0")))
    assert not failures(written(also("share: Annotated[float, Range(0, 1, log=False)] = 0.0")))


def test_every_check_has_an_example_that_fails_it():
    assert WRONG.keys() | {"declaration", "docstring"} == {check.name for check in CHECKS}


def test_what_a_method_is_excused_from_is_not_checked(written):
    order = (MEAN, "(distance * torch.arange(len(distance))).mean()")
    for excuse, reason in (
        ('excused = {"numbering": "nodes have an order"}', "nodes have an order"),
        ("samples = True", "it sees a random part of a graph"),
    ):
        path = written(order, more(excuse))
        entries = [entry for entry in entries_of(declaration("method", path)) if entry.check.name == "numbering"]
        assert {result_of(path, entry)[1:] for entry in entries} == {("excused", reason)}
        assert not failures(path)


def test_nothing_more_is_said_of_a_case_whose_terms_are_broken(written):
    results = list(results_of(written(times("float('nan')")), ("pyg",)))
    skipped = [result for result in results if result.status == "skipped"]
    assert {result.reason for result in skipped} == {"its terms are not what they should be"}
    not_made = {"declaration", "docstring", "search space", "terms", "precompute", "adversary", "libraries"}
    assert {result.entry.check.name for result in skipped} == {check.name for check in CHECKS} - not_made


def test_hyperparameters_for_the_checks_take_the_place_of_defaults(written):
    text = 'if self.params.weight > 1: raise ValueError("too slow")'
    slow = ("        distance =", f"        {text}\n        distance ="), ("= 1.0", "= 9.0")
    assert "ValueError: too slow" in failures(written(*slow))["terms"]
    assert not failures(written(*slow, more('tried_with = {"weight": 0.5}')))
