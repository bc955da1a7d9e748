"""Several methods at once: the sum of their distillation terms, and one task term."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from distillbench.data.tasks import TASKS
from distillbench.distillation.combination import Combined, load_method
from distillbench.distillation.method import Context, Dims, Method
from distillbench.models.gnn import Output, initialise
from distillbench.params import ALL_TASKS, Parameters

METHODS = Path(__file__).parents[2] / "methods"
DIMS = Dims((3, 4), 3)
KD, AT, LSP, FITNET = ({"alpha": 0.25}, {"weight": 7.0}, {"kernel": "cosine"}, {})


def outputs(seed):
    random = torch.Generator().manual_seed(seed)
    edges = torch.tensor([(0, 0), (1, 0), (0, 1), (1, 1), (2, 2), (3, 3)]).T
    hidden = tuple(torch.randn(4, width, generator=random, dtype=torch.float64) for width in DIMS.hidden)
    return Output(torch.randn(4, 3, generator=random, dtype=torch.float64), hidden, (edges, edges))


STUDENT, TEACHER = outputs(1), outputs(2)
CONTEXT = Context(
    TASKS["multiclass"],
    torch.tensor([0, 1, 2, -1]),
    torch.tensor([True, True, True, False]),
    STUDENT.edge_index[0],
    4,
    1,
    torch.Generator().manual_seed(3),
)


def method(**params):
    files = {name: str(METHODS / f"{name}.py") for name in params}
    given = params if len(params) > 1 else next(iter(params.values()))
    made = load_method(files, given, DIMS, DIMS).double()
    for part in made.parts if isinstance(made, Combined) else (made,):
        initialise(part, 0, "projector")
    return made


def terms(ctx=CONTEXT, **params):
    made = method(**params)
    stored = made.precompute(TEACHER, CONTEXT.edge_index)
    return {k: v.item() for k, v in made.terms(STUDENT, TEACHER, replace(ctx, precomputed=stored)).items()}


@pytest.mark.parametrize("other, params", [("lsp", LSP), ("at", AT), ("fitnet", FITNET)])
def test_x_and_kd_is_kds_loss_and_the_terms_of_x(other, params):
    found = terms(**{other: params}, kd=KD)
    alone, soft = terms(**{other: params}), terms(kd=KD)
    assert soft["task"] == pytest.approx(0.75 * alone["task"])
    assert found == pytest.approx({**alone, "task": soft["task"], "soft": soft["soft"]}, rel=1e-12)


def test_the_order_of_the_parts_does_not_matter():
    assert terms(kd=KD, at=AT) == pytest.approx(terms(at=AT, kd=KD), rel=1e-12)


def test_one_method_is_itself():
    assert type(method(kd=KD)).__name__ == "KD"
    assert method(kd=KD).params.alpha == 0.25


def test_terms_of_one_name_are_told_apart():
    found = terms(lsp=LSP, lsp_official={})
    assert set(found) == {"task", "lsp.structure", "lsp_official.structure"}
    assert found["lsp.structure"] == pytest.approx(terms(lsp=LSP)["structure"])
    assert found["lsp_official.structure"] == pytest.approx(terms(lsp_official={})["structure"])


def test_every_part_gets_what_it_stored_itself():
    made, teacher = method(lsp=LSP, lsp_official={}), TEACHER._replace(edge_index=STUDENT.edge_index)
    stored = made.precompute(teacher, CONTEXT.edge_index)
    assert stored.keys() == {"lsp/structure-1", "lsp_official/structure-1"}

    def values(precomputed):
        found = made.terms(STUDENT, teacher, replace(CONTEXT, precomputed=precomputed))
        return {name: value.item() for name, value in found.items()}

    assert values(stored) == pytest.approx(values({}), rel=1e-12)
    changed = values(stored | {"lsp/structure-1": stored["lsp/structure-1"] + 1})
    assert {name for name, value in values(stored).items() if changed[name] != value} == {"lsp.structure"}


def test_the_gradient_is_the_sum():
    def gradient(**params):
        leaf = STUDENT._replace(
            logits=STUDENT.logits.clone().requires_grad_(),
            hidden=tuple(h.clone().requires_grad_() for h in STUDENT.hidden),
        )
        sum(method(**params).terms(leaf, TEACHER, CONTEXT).values()).backward()
        return leaf.logits.grad, leaf.hidden[-1].grad

    both, kd, lsp = gradient(lsp=LSP, kd=KD), gradient(kd=KD), gradient(lsp=LSP)
    assert torch.allclose(both[0], kd[0])
    assert torch.allclose(both[1], lsp[1])


def test_a_part_may_have_any_name_a_config_allows():
    parts = {"lsp-0.5": method(lsp=LSP), "kd": method(kd=KD)}
    assert Combined(parts).terms(STUDENT, TEACHER, CONTEXT).keys() == {"task", "structure", "soft"}


class Part(Method):
    """Uses every hook."""

    paper, tasks, requires = "none", ALL_TASKS, frozenset()

    def __init__(self, name):
        super().__init__(Parameters(), DIMS, DIMS)
        self.called, self.own = [], name
        self.adversary = nn.Linear(1, 1)

    def student_inputs(self, setup):
        return torch.full((4, 1), float(len(self.own)))

    def wrap_student(self, student, setup):
        return nn.Sequential(student)

    def prepare(self, setup):
        self.called.append("prepare")

    def adversary_loss(self, student, teacher, ctx):
        return None if self.own == "none" else torch.tensor(float(len(self.own)))


def test_every_hook_reaches_every_part():
    parts = {name: Part(name) for name in ("a", "bcd", "none")}
    combined = Combined(parts)
    assert combined.student_inputs(None)[0].tolist() == [1, 3, 4]
    inner = nn.Identity()
    assert combined.wrap_student(inner, None)[0][0][0] is inner
    combined.prepare(None)
    assert all(part.called == ["prepare"] for part in parts.values())
    assert combined.adversary_loss(STUDENT, TEACHER, CONTEXT).item() == 4
    assert set(combined.adversaries()) == {part.adversary for part in parts.values()}
