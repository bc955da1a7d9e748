"""Losses over pairs and triples of nodes, against released formulations that hold them all; and neighbours of clouds.

A step is the distillation term with its gradient, the teacher's side included, as in a run. Ours are the methods as in
methods/. The plain formulations are written here after the code that their names say, in float32 as there.
"""

import functools
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pairs import Case, Side, Step, Work
from distillbench.data.graph_data import GraphData
from distillbench.data.neighbours import StaticNeighbours
from distillbench.data.tasks import TASKS
from distillbench.distillation.method import Context, Dims, Method
from distillbench.models.gnn import Output
from distillbench.plugins import load
from distillbench.training.inputs import Inputs

METHODS = Path(__file__).parents[1] / "methods"
STUDENT, TEACHER = 136, 1024  # features of the paper's models for PPI
TERMS = {"gsp": ("similarity",), "sp": ("similarity",), "gcrd": ("contrast",), "rkd": ("distance", "angle")}
# the largest samples of the methods where the plain form fits; of RKD, whose default is 64, a larger one, too
NODES = (("gsp", 8192), ("sp", 8192), ("gcrd", 8192), ("rkd", 64), ("rkd", 256))
CLOUDS, POINTS, K = 64, 1024, 20  # of ModelNet40, two batches


def features(nodes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of the student, which require gradients, and of the teacher."""
    random = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(nodes, width, generator=random).to(device) for width in (STUDENT, TEACHER))
    return student.requires_grad_(), teacher


def method_of(name: str, nodes: int, device: torch.device) -> Method:
    """A method for these features, without a sample smaller than all nodes; equal weights on both sides."""
    plugin = load("method", METHODS / f"{name}.py")
    params = {"max_nodes": nodes} if "max_nodes" in plugin.Params.model_fields else {}
    torch.manual_seed(0)
    return cast(Method, plugin(plugin.Params(**params), Dims((STUDENT,), 2), Dims((TEACHER,), 2)).to(device).train())


def ours(device: torch.device, name: str, nodes: int) -> Step:
    """The distillation terms of a method."""
    h_s, h_t = features(nodes, device)
    method = method_of(name, nodes, device)
    none = torch.empty(2, 0, dtype=torch.int64, device=device)
    student, teacher = (Output(torch.zeros(nodes, 2, device=device), (h,), (none,)) for h in (h_s, h_t))
    context = Context(
        task=TASKS["multiclass"],
        labels=torch.zeros(nodes, dtype=torch.int64, device=device),
        labelled=torch.ones(nodes, dtype=torch.bool, device=device),
        edge_index=none,
        num_nodes=nodes,
        epoch=1,
        random=torch.Generator().manual_seed(0),
    )

    def step() -> list[Tensor]:
        h_s.grad = None
        method.zero_grad()
        terms = method.terms(student, teacher, context)
        value = cast(Tensor, sum(terms[term] for term in TERMS[name]))
        value.backward()
        return [value, cast(Tensor, h_s.grad)]

    return step


def plain(device: torch.device, name: str, nodes: int) -> Step:
    """The same from matrices of all pairs, and for RKD from tensors of all triples."""
    h_s, h_t = features(nodes, device)
    method = method_of(name, nodes, device)
    loss = {"gsp": plain_gsp, "sp": plain_sp, "gcrd": plain_gcrd, "rkd": plain_rkd}[name]

    def step() -> list[Tensor]:
        h_s.grad = None
        method.zero_grad()
        value = loss(h_s, h_t, method)
        value.backward()
        return [value, cast(Tensor, h_s.grad)]

    return step


def plain_gsp(h_s: Tensor, h_t: Tensor, method: Method) -> Tensor:
    """As in efficient-gnns (Joshi et al.)."""
    similarities = [(unit := F.normalize(h, dim=-1)) @ unit.T for h in (h_s, h_t)]
    return method.params.weight * F.mse_loss(similarities[0].flatten(), similarities[1].flatten())


def plain_sp(h_s: Tensor, h_t: Tensor, method: Method) -> Tensor:
    """As in RepDistiller (Tian et al.), which the paper's author has checked."""
    g_s, g_t = (F.normalize(h @ h.T, dim=-1) for h in (h_s, h_t))
    return method.params.weight * (g_t - g_s).square().sum() / len(h_s) ** 2


def plain_gcrd(h_s: Tensor, h_t: Tensor, method: Method) -> Tensor:
    """As in efficient-gnns."""
    of_student, of_teacher = method.projectors[0]
    a, b = F.normalize(of_student(h_s), dim=-1), F.normalize(of_teacher(h_t), dim=-1)
    logits = a @ b.T / method.params.temperature
    return method.params.weight * F.cross_entropy(logits, torch.arange(len(a), device=a.device))


def plain_rkd(h_s: Tensor, h_t: Tensor, method: Method) -> Tensor:
    """As in the authors' code."""

    def distances(h: Tensor) -> Tensor:
        squared = h.square().sum(dim=1)
        found = (squared[:, None] + squared[None] - 2 * h @ h.T).clamp_min(1e-12).sqrt()
        found = found * (1 - torch.eye(len(h), device=h.device))
        return found / found[found > 0].mean()

    def angles(h: Tensor) -> Tensor:
        directions = F.normalize(h[None] - h[:, None], dim=2)
        return torch.bmm(directions, directions.transpose(1, 2)).flatten()

    with torch.no_grad():
        d_t, a_t = distances(h_t), angles(h_t)
    params = method.params
    distance = F.smooth_l1_loss(distances(h_s), d_t)
    return params.distance_weight * distance + params.angle_weight * F.smooth_l1_loss(angles(h_s), a_t)


def clouds() -> GraphData:
    """Point clouds in the unit ball, as large as those of ModelNet40."""
    x = torch.randn(CLOUDS * POINTS, 3, generator=torch.Generator().manual_seed(0))
    x = x / x.norm(dim=1, keepdim=True) * torch.rand(len(x), 1, generator=torch.Generator().manual_seed(1)) ** (1 / 3)
    return GraphData(
        x=x,
        edge_index=torch.empty(2, 0, dtype=torch.int64),
        y=torch.zeros(CLOUDS, dtype=torch.int64),
        graph_ptr=torch.arange(CLOUDS + 1) * POINTS,
        task_name="graph-multiclass",
        setting="inductive",
        num_classes=2,
    )


def neighbours_of_an_epoch(device: torch.device, known: bool) -> Step:
    """Neighbours by coordinates for every batch of an epoch without augmentation; ``known``: from the second one on."""
    from distillbench.models.backends import get_backend

    data, random = clouds(), torch.Generator().manual_seed(0)
    static = StaticNeighbours(data) if known else None
    inputs = Inputs(data, get_backend("csr"), device, batch_size=32, neighbours=static)

    def step() -> list[Tensor]:
        total = torch.zeros((), device=device)
        for batch in inputs.shuffled(torch.arange(CLOUDS), random):
            source, destination = batch.graph.neighbours(batch.x, K)
            total += (batch.x[source] - batch.x[destination]).square().sum()
        return [total]

    return step


def plain_neighbours(device: torch.device) -> Step:
    """The same by cdist and topk in every step, as in DGCNN's code."""
    data, random = clouds(), torch.Generator().manual_seed(0)

    def step() -> list[Tensor]:
        total = torch.zeros((), device=device)
        for ids in torch.randperm(CLOUDS, generator=random).split(32):
            x = data.x.view(CLOUDS, POINTS, 3)[ids].to(device)
            near = torch.cdist(x, x).topk(K, largest=False).indices
            place = torch.arange(len(ids), device=device)[:, None, None]
            total += (x[place, near] - x[:, :, None]).square().sum()
        return [total]

    return step


def work(name: str, nodes: int) -> Work:
    """Arithmetic that the loss cannot do without: each product once forward, once for the student's gradient."""
    n, read = nodes, 4 * nodes * (STUDENT + TEACHER)
    if name == "gcrd":  # logits, both gradients; the projectors: of the student three products, of the teacher two
        return Work(2 * n * 256 * (3 * n + 3 * STUDENT + 2 * TEACHER), read)
    if name == "rkd":  # all products of features; some operations on each of the n³ angles, which need not be written
        return Work(2 * n * n * (3 * STUDENT + TEACHER) + 12 * n**3, read + 8 * 4 * n**2)
    # products of the features' columns, in float64, which takes twice the time
    of_student, of_teacher, mixed = STUDENT**2, TEACHER**2, STUDENT * TEACHER
    products = 2 * of_student + of_teacher + 2 * mixed
    if name == "sp":  # ZᵀZ, ZZᵀZ and AᵀA; two mixed ones
        products = 6 * of_student + 3 * of_teacher + 4 * mixed
    return Work(2 * 2 * n * products, read)


def work_of_neighbours() -> Work:
    """The known numbers are read, edges of 16 bytes written, and both ends' coordinates read."""
    return Work(bytes=CLOUDS * POINTS * K * (2 + 16 + 2 * 12))


def cases() -> list[Case]:
    """GSP, SP, G-CRD and RKD under both allocators, and the neighbours of an epoch of clouds."""
    titles = {"gsp": "GSP", "sp": "SP", "gcrd": "G-CRD", "rkd": "RKD"}
    code = {"gsp": "efficient-gnns'", "sp": "RepDistiller's", "gcrd": "efficient-gnns'", "rkd": "authors'"}
    found = []
    for name, nodes in NODES:
        arguments = {"name": name, "nodes": nodes}
        others = [
            Side(f"{code[name]} matrices, default malloc", plain, arguments, "default"),
            Side(f"{code[name]} matrices", plain, arguments),
        ]
        side, of_case = Side("distillbench", ours, arguments), functools.partial(work, name, nodes)
        found.append(Case(f"{titles[name]}, {nodes:,} nodes", side, others, (None, None), of_case))
    epoch = f"k-nn of {CLOUDS} clouds of {POINTS:,} points, k = {K}, an epoch"
    known = Side("distillbench, found before", neighbours_of_an_epoch, {"known": True})
    anew = Side("distillbench, found anew", neighbours_of_an_epoch, {"known": False})
    plain_side = Side("cdist and topk", plain_neighbours)
    found.append(Case(epoch, known, [anew, plain_side], (None, None), work_of_neighbours))
    return found
