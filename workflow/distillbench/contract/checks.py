"""The contract of a method, as plain functions: what must hold for every file of ``methods/``, and for yours.

The checks of what a file says are in declared.py, those of what a method does are here, and all are listed at the end.
The tests run these checks over ``methods/``; ``distillbench check my_method.py`` runs them on any file. A
check raises AssertionError where the method breaks it, with a sentence that names the term or the parameter and its
value. A method is excused from some of them by its own word and for a reason:

    excused = {"derivative": "the weights of the nodes are held constant"}
    samples = True                  # it sees a random part of any graph: excused from "numbering"
    tried_with = {"epochs": 3}      # hyper-parameters for the checks, where the defaults take long
"""

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from distillbench.contract.cases import Case
from distillbench.contract.declared import REQUIREMENTS, is_declared, is_documented, listed, search_space_is_valid
from distillbench.contract.toys import FEW, Step, Trial, data_for, relabelled, renumbered, revealing
from distillbench.distillation.method import Method
from distillbench.models.backends import get_backend
from distillbench.params import Requirement
from distillbench.plugins import Declaration

LIBRARIES = {"pyg": "PyG", "dgl": "DGL", "csr": "csr"}
# terms that compare the two models directly, so that they are exactly zero for a student equal to its teacher
ZERO_WHEN_EQUAL = {"attention", "structure"}


class Subject:
    """A method on one case and library. Its first trial and step, which no check changes, are made once."""

    def __init__(self, plugin: type[Method], case: Case, library: str) -> None:
        self.plugin, self.case, self.library = plugin, case, library

    def trial(self, **options: Any) -> Trial:
        """Another trial of the same method; ``options`` as of Trial."""
        return Trial(self.plugin, self.case, get_backend(self.library), **options)

    @cached_property
    def first(self) -> tuple[Trial, Step]:
        """A trial and its first step."""
        trial = self.trial()
        return trial, trial.step()

    @cached_property
    def values(self) -> dict[str, float]:
        """The terms of that step."""
        return _values(self.first[1].terms)

    @cached_property
    def sound(self) -> bool:
        """Whether its terms are such that the other checks say something about it."""
        try:
            terms_are_finite(self)
        except Exception:
            return False
        return True

    @property
    def distils(self) -> bool:
        """Whether it is more than a control."""
        return self.plugin.paper != "control"


def _values(terms: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def _distilled(terms: Mapping[str, Any]) -> dict[str, Any]:
    return {name: term for name, term in terms.items() if name != "task"}


def _compare(
    when: str, found: Mapping[str, float], expected: Mapping[str, float], relative: float = 0, absolute: float = 0
) -> None:
    assert found.keys() == expected.keys(), f"{when}, the terms are {listed(found)} instead of {listed(expected)}"
    for name, value in found.items():
        same = value == expected[name] or math.isclose(value, expected[name], rel_tol=relative, abs_tol=absolute)
        assert same, f"{when}, term {name!r} is {value!r} instead of {expected[name]!r}"


def _gradients(of: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(of, leaves, retain_graph=True, allow_unused=True)


def _assert_reached(grad: Tensor | None, by: str, name: str) -> None:
    assert grad is not None, f"{by} does not reach {name}"
    assert grad.isfinite().all(), f"{by} is not finite at {name}"
    assert grad.abs().sum() > 0, f"{by} is zero at {name}"


# What a method does: checks of a subject


def terms_are_finite(subject: Subject) -> None:
    """Its terms are named, finite and positive, among them the task."""
    terms = subject.first[1].terms
    assert "task" in terms, f"there is no term 'task': {listed(terms)}"
    if subject.distils:
        assert len(terms) > 1, "there is no term beside 'task'"
    else:
        assert len(terms) == 1, f"paper is 'control', and there are terms beside 'task': {listed(terms)}"
    for name, term in terms.items():
        assert isinstance(term, Tensor), f"term {name!r} is a {type(term).__name__}, not a tensor"
        assert term.shape == (), f"term {name!r} has shape {tuple(term.shape)}, not that of a scalar"
        assert term.isfinite(), f"term {name!r} is {term.item()}"
        # the two models are different, so nothing is zero by itself, but a task that has no weight
        assert term > 0 or (name == "task" and term == 0), f"term {name!r} is {term.item()}, not positive"


def gradient_reaches_the_student(subject: Subject) -> None:
    """Their gradient reaches every parameter of the student and none of a teacher."""
    trial, step = subject.first
    total = torch.stack(list(step.terms.values())).sum()
    assert total.requires_grad, "no term depends on the student"
    trained = {name: p for name, p in trial.student.named_parameters() if p.requires_grad}
    for name, grad in zip(trained, _gradients(total, list(trained.values())), strict=True):
        _assert_reached(grad, "the terms' gradient", f"the student's parameter {name}")
    for of, teacher in (("teacher", step.teacher), *((f"teachers[{i}]", t) for i, t in enumerate(step.ctx.teachers))):
        assert not teacher.logits.requires_grad, f"{of}.logits requires a gradient"
        assert not any(h.requires_grad for h in teacher.hidden), f"{of}.hidden requires a gradient"
    for model in trial.teachers:
        for (name, _), grad in zip(model.named_parameters(), _gradients(total, list(model.parameters())), strict=True):
            assert grad is None, f"the terms' gradient reaches the teacher's parameter {name}"


def distillation_reaches_student_and_projectors(subject: Subject) -> None:
    """Each term but the task reaches the student, together they reach the method's own parameters."""
    trial, step = subject.first
    distilled = _distilled(step.terms)
    # of a wrapped student any parameter: the first may be the wrapping's own
    leaves = list(trial.student.parameters())[: 1 if trial.student is trial.inner else None]
    for name, term in distilled.items():
        assert term.requires_grad, f"term {name!r} depends on nothing that is trained"
        reached = [grad for grad in _gradients(term, leaves) if grad is not None and grad.abs().sum() > 0]
        assert reached, f"the gradient of term {name!r} does not reach the student's first layer"
    adversary = {id(p) for module in trial.method.adversaries() for p in module.parameters()}
    own = {n: p for n, p in trial.method.named_parameters() if p.requires_grad and id(p) not in adversary}
    total = torch.stack(list(distilled.values())).sum()
    for name, grad in zip(own, _gradients(total, list(own.values())) if own else (), strict=True):
        _assert_reached(grad, "the distillation's gradient", f"the method's parameter {name}")


def an_equal_student_has_nothing_to_learn(subject: Subject) -> None:
    """A student equal to its teacher has nothing to learn."""
    trial = subject.trial(equal=True)
    step = trial.step()
    distilled = _distilled(step.terms)
    for name in ZERO_WHEN_EQUAL & distilled.keys():
        assert distilled[name] == 0, f"term {name!r} is {distilled[name].item()} for a student equal to its teacher"
    total = torch.stack(list(distilled.values())).sum()
    if list(trial.method.parameters()) or not total.requires_grad:
        return
    seen = {"logits": step.student.logits, **{f"hidden[{i}]": h for i, h in enumerate(step.student.hidden)}}
    grads = _gradients(total, list(seen.values()))
    assert any(grad is not None for grad in grads), "the distillation reads nothing of the student"
    for name, grad in zip(seen, grads, strict=True):
        largest = 0.0 if grad is None else grad.abs().max().item()
        assert largest < 1e-12, f"an equal student gets a gradient of {largest:.3g} at its {name}"


def numbering_does_not_matter(subject: Subject) -> None:
    """The terms do not depend on the numbering of nodes and graphs."""
    data = renumbered(data_for(subject.case), torch.Generator().manual_seed(2))
    found = _values(subject.trial(data=data).step().terms)
    _compare("with nodes and graphs in another order", found, subject.values, 1e-10, 1e-13)


def a_step_can_be_repeated(subject: Subject) -> None:
    """The same step twice gives the same terms, bit for bit."""
    found = _values(subject.trial(seed=1).step().terms)
    _compare("the second time (is all that is random drawn from ctx.random and setup.random?)", found, subject.values)


def its_state_is_in_buffers(subject: Subject) -> None:
    """A run that is resumed goes on as if it had not stopped."""
    random = torch.Generator().manual_seed(5)
    first = subject.trial()
    first.step(1, random)
    saved = [{n: v.clone() for n, v in part.state_dict().items()} for part in (first.student, first.method)]
    drawn = random.get_state()
    expected = _values(first.step(2, random).terms)
    resumed = subject.trial()
    for part, state in zip((resumed.student, resumed.method), saved, strict=True):
        part.load_state_dict(state)
    random.set_state(drawn)
    found = _values(resumed.step(2, random).terms)
    _compare(
        "in the second step, resumed from a checkpoint after the first (is all state in buffers?)", found, expected
    )


def nothing_given_is_changed(subject: Subject) -> None:
    """What it is given is not changed in place."""
    trial = subject.trial()
    step = trial.step()
    ctx = step.ctx
    given = {"ctx.labels": ctx.labels, "ctx.labelled": ctx.labelled, "ctx.x": ctx.x, "ctx.edge_index": ctx.edge_index}
    given |= {f"ctx.precomputed[{name!r}]": value for name, value in ctx.precomputed.items()}
    for name, out in (("student", step.student), ("teacher", step.teacher)):
        given |= {f"{name}.logits": out.logits} | {f"{name}.hidden[{i}]": h for i, h in enumerate(out.hidden)}
    versions = {name: value._version for name, value in given.items()}
    trial.terms(step.student, step)
    for name, value in given.items():
        assert value._version == versions[name], f"{name} is changed in place"


def precomputing_changes_nothing(subject: Subject) -> None:
    """What is precomputed changes no value."""
    found = _values(subject.trial(precompute=False).step().terms)
    _compare("without what is precomputed", found, subject.values, 1e-12)


def only_what_is_required_is_read(subject: Subject) -> None:
    """It reads nothing of the teacher that it does not require."""
    undeclared = REQUIREMENTS - subject.plugin.requires
    of_teacher = undeclared - {"labels"}
    try:
        _compare_without(subject, of_teacher)
    except Exception:
        for each in sorted(of_teacher):  # which it is
            _compare_without(subject, frozenset({each}))
        raise
    if "labels" in undeclared and subject.distils:
        found = _values(subject.trial(data=relabelled(data_for(subject.case))).step().terms)
        when = "with other labels (requires does not name 'labels')"
        _compare(when, _distilled(found), _distilled(subject.values))


def _compare_without(subject: Subject, withheld: frozenset[Requirement]) -> None:
    what = listed(withheld) if subject.plugin.requires else "a teacher"
    when = f"without {what}, which requires does not name"
    try:
        found = _values(subject.trial(withheld=withheld).step().terms)
    except Exception as error:
        raise AssertionError(f"{when}, it raises {type(error).__name__}: {error}") from error
    _compare(when, found, subject.values)


def hidden_labels_are_not_read(subject: Subject) -> None:
    """It does not read labels of rows that are not labelled."""
    found = _values(subject.trial(data=revealing(data_for(subject.case))).step().terms)
    _compare("with other labels on rows that are not labelled", found, subject.values)


def derivatives_are_those_of_the_values(subject: Subject) -> None:
    """The gradients at the student's logits and hidden features are the derivatives of the terms."""
    trial = subject.trial(data=data_for(subject.case, FEW))
    step = trial.step()
    pristine = copy.deepcopy(trial.method)
    leaves = {"logits": step.student.logits, **{f"hidden[{i}]": h for i, h in enumerate(step.student.hidden)}}
    names = [name for name, term in step.terms.items() if term.requires_grad]
    random = torch.Generator().manual_seed(7)
    # a little off: layers that end in a ReLU have rows of zeros, where lengths and cosines have no derivative
    points = [(h + 0.1 * torch.randn(h.shape, generator=random)).detach() for h in leaves.values()]

    def terms(logits: Tensor, *hidden: Tensor) -> tuple[Tensor, ...]:
        trial.method = copy.deepcopy(pristine)  # the same state each time
        found = trial.terms(step.student._replace(logits=logits, hidden=hidden), step)
        return tuple(found[name] for name in names)

    try:
        torch.autograd.gradcheck(terms, [h.requires_grad_() for h in points], fast_mode=True)
    except RuntimeError as error:  # GradcheckError
        place = re.search(r"output (\d+) with respect to input (\d+)", str(error))
        if place is None:
            raise
        raise AssertionError(
            f"the gradient of term {names[int(place[1])]!r} at the student's {list(leaves)[int(place[2])]} is not its "
            "derivative: is something detached or computed without gradient? If it has to be, say so in `excused`"
        ) from None


def the_adversary_alone_is_trained_against(subject: Subject) -> None:
    """Its adversary's loss trains the adversary alone."""
    trial, step = subject.first
    loss = trial.adversary_loss(step)
    modules = list(trial.method.adversaries())
    assert modules, "there is an adversary_loss, and no adversary: set self.adversary"
    assert loss is not None, "adversary_loss is None in the first step"
    assert loss.shape == () and loss.isfinite(), f"adversary_loss is {loss}, not a finite scalar"
    assert loss.requires_grad, "adversary_loss does not depend on the adversary"
    own = {id(p): name for module in modules for name, p in module.named_parameters()}
    for of, part in (("method", trial.method), ("student", trial.student)):
        trained = {name: p for name, p in part.named_parameters() if p.requires_grad}
        for (name, p), grad in zip(trained.items(), _gradients(loss, list(trained.values())), strict=True):
            if id(p) in own:
                _assert_reached(grad, "the gradient of adversary_loss", f"the adversary's parameter {name}")
            else:
                assert grad is None, f"the gradient of adversary_loss reaches the {of}'s parameter {name}"


def libraries_agree(subject: Subject, other: Subject) -> None:
    """Both libraries give the same terms to 1e-5."""
    when = f"with {LIBRARIES[other.library]} instead of {LIBRARIES[subject.library]}"
    _compare(when, other.values, subject.values, 1e-5, 1e-12)


@dataclass(frozen=True)
class Check:
    """One thing that must hold. scope: what ``function`` takes: a file's path, a subject, or one for each library."""

    name: str
    function: Callable[..., None]
    scope: Literal["file", "library", "libraries"] = "library"

    @property
    def holds(self) -> str:
        """What must hold, in a sentence."""
        return self.function.__doc__ or ""

    def applies(self, declared: Declaration, case: Case) -> bool:
        """Whether there is anything to check of a method in a case."""
        needed: dict[str, bool] = {
            "distillation": declared.paper != "control",
            "equal": bool(declared.requires),
            "hidden labels": case.transductive,
            "precompute": "precompute" in declared.defines,
            "adversary": "adversary_loss" in declared.defines,
        }
        return needed.get(self.name, True)


CHECKS = (
    Check("declaration", is_declared, "file"),
    Check("docstring", is_documented, "file"),
    Check("search space", search_space_is_valid, "file"),
    Check("terms", terms_are_finite),
    Check("gradient", gradient_reaches_the_student),
    Check("distillation", distillation_reaches_student_and_projectors),
    Check("equal", an_equal_student_has_nothing_to_learn),
    Check("numbering", numbering_does_not_matter),
    Check("repeat", a_step_can_be_repeated),
    Check("state", its_state_is_in_buffers),
    Check("untouched", nothing_given_is_changed),
    Check("precompute", precomputing_changes_nothing),
    Check("needs", only_what_is_required_is_read),
    Check("hidden labels", hidden_labels_are_not_read),
    Check("derivative", derivatives_are_those_of_the_values),
    Check("adversary", the_adversary_alone_is_trained_against),
    Check("libraries", libraries_agree, "libraries"),
)
