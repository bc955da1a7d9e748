"""The k nearest neighbours: those of brute force, whatever else is in a batch; those of unchanged points found once."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillbench.config.specs import DGCNNSpec
from distillbench.data import neighbours
from distillbench.data.neighbours import StaticNeighbours, StaticPoints, nearest_neighbours, static_neighbours
from distillbench.models.backends import base
from distillbench.models.gnn import GNN, canonical_state, initialise, load_canonical
from distillbench.seeds import generator
from distillbench.training.inputs import Inputs, predict, teacher_outputs

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=[1 << 20, 60, 1], ids=["one block", "small blocks", "row by row"])
def blocks(request, monkeypatch):
    """Blocks of several sizes."""
    monkeypatch.setitem(neighbours._ELEMENTS, "cpu", request.param)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_brute_force(x, ptr, k):
    """For every node its k nearest nodes of the same graph, of equally near ones those of lower numbers; ascending."""
    nearest = []
    for start, stop in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
        for i in range(start, stop):
            distances = {j: ((x[i].double() - x[j].double()) ** 2).sum().item() for j in range(start, stop)}
            nearest.append(sorted(sorted(distances, key=lambda j: (distances[j], j))[:k]))
    return nearest


def far_away(nodes):
    return drawn(nodes, 3) + 100


def nearly_equal(nodes):
    """Clusters far apart, each within a ten-thousandth of that distance: products of matrices lose these digits."""
    return 10 * drawn(3, 3, seed=1)[torch.arange(nodes) % 3] + 1e-4 * drawn(nodes, 3)


def of_a_grid(nodes):
    """Many equally distant nodes."""
    return torch.stack([torch.arange(nodes) % 5, torch.arange(nodes) // 5], dim=1).float()


def some_equal(nodes):
    return drawn(4, 2)[torch.arange(nodes) % 4]


def one_outlier(nodes):
    x = drawn(nodes, 3)
    x[0] = 1e6
    return x


def random(nodes):
    return drawn(nodes, 3)


CLOUDS = [random, far_away, nearly_equal, of_a_grid, some_equal, one_outlier]


@pytest.mark.parametrize("sizes", [(30, 30, 30), (6, 9, 4, 40, 9)], ids=["equal sizes", "unequal sizes"])
@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.__name__)
def test_nearest_neighbours_are_those_of_brute_force(blocks, sizes, cloud):
    ptr, k = torch.tensor([0, *sizes]).cumsum(0), 4
    x = cloud(sum(sizes))
    neighbour, node = nearest_neighbours(x, ptr, k)
    assert node.tolist() == [i for i in range(len(x)) for _ in range(k)]
    assert neighbour.view(-1, k).tolist() == by_brute_force(x, ptr, k)


@pytest.mark.parametrize("width", [3, 40])
@pytest.mark.parametrize("cloud", [drawn, "nearly equal"], ids=["random", "nearly equal"])
def test_what_a_product_of_matrices_cannot_tell_is_told(width, cloud):
    nodes, k = 200, 6
    x = drawn(nodes, width)
    if cloud == "nearly equal":
        x = 10 * drawn(3, width, seed=1)[torch.arange(nodes) % 3] + 1e-4 * x
    ptr = torch.tensor([0, nodes])
    expected = by_brute_force(x, ptr, k)
    assert nearest_neighbours(x, ptr, k)[0].view(-1, k).tolist() == expected
    by_product = torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist").topk(k, largest=False).indices
    assert (by_product.sort().values.tolist() == expected) == (cloud is drawn)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-20, 1, 1e18, 1e19])
@pytest.mark.parametrize("sizes", [(200, 150), (9, 7)], ids=["more than the candidates", "all are candidates"])
def test_products_that_underflow_or_overflow_do_not_matter(sizes, scale):
    ptr, x = torch.tensor([0, *sizes]).cumsum(0), scale * drawn(sum(sizes), 3)
    assert nearest_neighbours(x, ptr, 4)[0].view(-1, 4).tolist() == by_brute_force(x, ptr, 4)


def test_neighbours_do_not_depend_on_what_else_is_in_the_batch():
    sizes = [30, 5, 48, 17]
    clouds = [of_a_grid(30), some_equal(5), drawn(48, 2), drawn(17, 2, seed=1)]
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    together = nearest_neighbours(torch.cat(clouds), ptr, 5)[0].split([5 * size for size in sizes])
    for start, cloud, found in zip(ptr.tolist(), clouds, together, strict=False):
        alone = nearest_neighbours(cloud, torch.tensor([0, len(cloud)]), 5)[0]
        assert torch.equal(found - start, alone)


def test_more_neighbours_than_nodes_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match="k: 5 neighbours asked for, but a graph has only 4 nodes"):
        nearest_neighbours(drawn(10, 2), torch.tensor([0, 6, 10]), 5)
    assert nearest_neighbours(drawn(10, 2), torch.tensor([0, 6, 10]), 4).shape == (2, 40)


def test_features_that_are_not_numbers_have_some_neighbours():
    x = drawn(30, 2)
    x[3] = torch.nan
    neighbour, _ = nearest_neighbours(x, torch.tensor([0, 10, 30]), 4)
    assert ((neighbour >= 0) & (neighbour < 30)).all()
    assert neighbour[40:].view(-1, 4).tolist() == by_brute_force(x, torch.tensor([0, 10, 30]), 4)[10:]


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in filter(torch.is_tensor, tree_leaves(out)):
            self.elements = max(self.elements, made.untyped_storage().size() // made.element_size())
        return out


@pytest.mark.parametrize("sizes", [(3000,), (64,) * 500, (2000, *(8,) * 2000)], ids=["large", "many", "both"])
@pytest.mark.parametrize("cloud", [random, some_equal], ids=["random", "equal points"])
def test_memory_is_a_block_however_large_and_many_graphs_are(sizes, cloud):
    with Largest() as largest:
        nearest_neighbours(cloud(sum(sizes)), torch.tensor([0, *sizes]).cumsum(0), 4)
    assert largest.elements <= 1 << 20


# Those of a data set's own points

SPEC = DGCNNSpec(model="dgcnn", widths=(4, 6), embedding=8, k=3)


class Setup:
    """Clouds, a model that draws 3 neighbours in two layers, and how often any are computed."""

    def __init__(self, data, backend, monkeypatch):
        self.data, self.backend, self.calls = data, backend, 0
        self.model = GNN(SPEC, backend, data.x.shape[1], data.num_classes)
        initialise(self.model, 0, "teacher")
        self.static = StaticNeighbours(data)

        def counted(*arguments):
            self.calls += 1
            return nearest_neighbours(*arguments)

        for module in (base, neighbours):
            monkeypatch.setattr(module, "nearest_neighbours", counted)

    def inputs(self, known=True, **options):
        return Inputs(self.data, self.backend, CPU, 3, neighbours=self.static if known else None, **options)

    def counted(self, run):
        self.calls = 0
        run()
        return self.calls


@pytest.fixture
def setup(data_of, backend, monkeypatch):
    return Setup(data_of("graph-multiclass", clouds=True), backend, monkeypatch)


def epoch(setup, inputs, seed=0):
    """Logits of the batches of an epoch of training."""
    setup.model.train()
    batches = inputs.shuffled(torch.arange(8), generator(seed, "batches"), generator(seed, "augment"))
    return [setup.model(batch.graph, batch.x).logits for batch in batches]


def test_neighbours_of_unchanged_points_are_computed_in_the_first_epoch_only(setup):
    inputs = setup.inputs()
    assert [setup.counted(lambda seed=seed: epoch(setup, inputs, seed)) for seed in range(3)] == [6, 3, 3]
    assert setup.counted(lambda: predict(setup.model, inputs.ordered(torch.arange(8)))) == 3
    another = setup.inputs()  # another method's or seed's
    assert setup.counted(lambda: epoch(setup, another)) == 3
    assert setup.counted(lambda: teacher_outputs(setup.model, another, torch.arange(8))) == 3
    assert setup.counted(lambda: epoch(setup, setup.inputs(known=False))) == 6


def test_what_is_computed_with_known_neighbours_is_the_same_bit_for_bit(setup):
    found, state = [], canonical_state(setup.model)
    for known in (True, False):
        inputs = setup.inputs(known)
        load_canonical(setup.model, state)
        logits = [logits for seed in range(3) for logits in epoch(setup, inputs, seed)]
        torch.stack([each.square().sum() for each in logits]).sum().backward()
        found.append([*logits, *(p.grad.clone() for p in setup.model.parameters())])
        setup.model.zero_grad()
        outputs = teacher_outputs(setup.model, inputs, torch.arange(8))
        found[-1] += [outputs.logits, *outputs.hidden, *outputs.edges]
    for known, computed in zip(*found, strict=True):
        assert torch.equal(known, computed)


def test_every_k_has_neighbours_of_its_own(setup):
    inputs, wider = setup.inputs(), GNN(SPEC.model_copy(update={"k": 4}), setup.backend, 4, 3)
    initialise(wider, 0, "student")
    for _ in range(2):
        for batch in inputs.ordered(torch.arange(8)):
            for model, k in ((setup.model, 3), (wider, 4)):
                edges = model(batch.graph, batch.x).edge_index[0]
                assert torch.equal(edges, nearest_neighbours(batch.x, batch.graph.ptr, k))


def changed(x, how):
    if how == "written into":
        x[0] += 100
        return x
    return {
        "a copy": lambda: x.clone(),
        "moved": lambda: x + torch.linspace(-9, 9, len(x))[:, None].sin(),
        "wider": lambda: torch.cat([x, x.flip(0)], dim=1),
        "a view": lambda: x[:, :2],
    }[how]()


@pytest.mark.parametrize("how", ["a copy", "moved", "wider", "a view", "written into"])
def test_neighbours_of_any_other_tensor_are_computed(setup, how):
    inputs = setup.inputs()
    (batch,) = inputs.ordered(torch.tensor([1, 4]))
    known = batch.graph.neighbours(batch.x, 3)
    x = changed(batch.x, how)
    found = []
    assert setup.counted(lambda: found.append(batch.graph.neighbours(x, 3))) == 1
    assert torch.equal(found[0], nearest_neighbours(x, batch.graph.ptr, 3))
    assert torch.equal(found[0], known) == (how == "a copy")


def test_tensors_of_inference_mode_are_never_known(data_of):
    data = data_of("graph-multiclass", clouds=True)
    static, ids, nodes = StaticNeighbours(data), torch.tensor([0]), torch.arange(int(data.graph_ptr[1]))

    def points(x):
        return StaticPoints(x, data.graph_ptr[:2], ids, nodes, static)

    normal = data.x[nodes]
    with torch.inference_mode():
        made = data.x[nodes]
        assert not points(made).are(made)
        assert points(normal).are(normal)
        before = points(normal)
        normal += 1
        assert not before.are(normal)
    assert not points(made).are(made)


def test_neighbours_of_augmented_points_are_computed_and_not_kept(setup):
    inputs = setup.inputs(augment=lambda x, ptr, random: x * torch.rand(1, x.shape[1], generator=random))
    assert [setup.counted(lambda: epoch(setup, inputs)) for _ in range(2)] == [6, 6]
    found = [edges for batch in inputs.ordered(torch.arange(8)) for edges in (batch.graph.neighbours(batch.x, 3),)]
    expected = [nearest_neighbours(b.x, b.graph.ptr, 3) for b in setup.inputs(known=False).ordered(torch.arange(8))]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_process_keeps_those_of_the_data_that_it_used_last(data_of):
    first, same, other = (data_of("graph-multiclass", clouds=True, features=n) for n in (4, 4, 5))
    kept = static_neighbours(first)
    assert static_neighbours(same) is kept
    assert static_neighbours(other) is not kept
    assert static_neighbours(first) is not kept
