"""GraphData, its file, and the tasks' metrics: what is right passes, what is wrong is named."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.metrics import accuracy_score, f1_score

from distillbench.data.cards import read_card, split_in_words, write_card
from distillbench.data.graph_data import (
    DataError,
    Dataset,
    GraphData,
    Split,
    read_data,
    symmetric_with_loops,
    write_data,
)
from distillbench.data.tasks import TASKS
from distillbench.record import RecordError, write_sealed
from distillbench.seeds import derive, generator

# two graphs: the path 0 - 1 - 2 and the pair 3 - 4
EDGES = symmetric_with_loops(torch.tensor([0, 2, 3]), torch.tensor([1, 1, 4]), 5)
TWO_GRAPHS = {
    "x": torch.arange(10.0).view(5, 2),
    "edge_index": EDGES,
    "y": torch.tensor([0, 1, 2, 0, -1]),
    "graph_ptr": torch.tensor([0, 3, 5]),
    "task_name": "multiclass",
    "setting": "inductive",
    "num_classes": 3,
    "split": Split(torch.tensor([0]), torch.tensor([1]), torch.tensor([1])),
}
MULTILABEL = {"task_name": "multilabel", "y": torch.tensor([[1.0, 0, 0]] * 4 + [[float("nan")] * 3])}
SEVERAL = {"split": None, "splits": torch.tensor([[0, 1], [1, 2], [2, -1]], dtype=torch.int8)}  # of the two graphs
TWO_CLASSES = {"y": torch.tensor([0, 1, 1, 0, -1]), "num_classes": 2}


def graph_data(**changes):
    return GraphData(**TWO_GRAPHS | changes)


def edges(*pairs):
    return torch.tensor(pairs).T


# Edges


def test_edges_are_made_symmetric_with_loops_once_and_sorted_by_destination():
    found = symmetric_with_loops(torch.tensor([0, 1, 2, 0, 2]), torch.tensor([1, 0, 2, 1, 1]), 4)
    assert found.T.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [2, 1], [1, 2], [2, 2], [3, 3]]
    assert found.dtype == torch.int64


# What is checked


@pytest.mark.parametrize(
    "changes",
    [
        {},
        MULTILABEL,
        {"edge_index": EDGES[:, :0]},
        {"task_name": "graph-multiclass", "y": torch.tensor([2, -1])},
        SEVERAL,
        TWO_CLASSES | {"metric": "roc_auc"},
    ],
    ids=["multiclass", "multilabel", "clouds", "graphs", "splits", "metric"],
)
def test_what_is_right_passes(changes):
    data = graph_data(**changes)
    assert (data.num_nodes, data.num_graphs) == (5, 2)


WRONG = {
    "x must be [N, F], is [5]": [{"x": torch.zeros(5)}],
    "x has no features: give each node a constant": [{"x": torch.zeros(5, 0)}],
    "x is [5, 2] complex64: features are real numbers": [{"x": torch.zeros(5, 2) * 1j}],
    "x: list that is no array of numbers": [{"x": [["a", "b"]] * 5}],
    "x is a str, must be a tensor": [{"x": "features"}],
    "x must be finite: 10 of 10 values are not, the first is nan at [0, 0]": [{"x": torch.full((5, 2), float("nan"))}],
    "x must be finite: 1 of 10 values are not, the first is inf at [2, 1]": [
        {"x": torch.zeros(5, 2).index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(float("inf")))}
    ],
    "graph_ptr must start at 0, grow, and end at N = 5": [
        {"graph_ptr": torch.tensor(ptr), "split": None} for ptr in ([0, 3, 6], [1, 5], [0, 3, 3, 5], [0, 4, 3, 5], [0])
    ],
    "graph_ptr is [3] float32, must be [G + 1] integers": [{"graph_ptr": torch.tensor([0.0, 3, 5])}],
    "transductive data set must be one graph": [{"setting": "transductive"}],
    "y must have one row for each node": [{"y": torch.zeros(4, dtype=torch.int64)}],
    "y must have one row for each graph": [{"task_name": "graph-multiclass"}],
    "y is [5] float32, must be [M] integers": [{"y": torch.zeros(5)}],
    "y is [5, 1] int64, must be [M] for one class a row: y.flatten()": [{"y": torch.zeros(5, 1).long()}],
    "y must be [M], one row for each node, is [5, 3]": [{"y": torch.zeros(5, 3).long()}],
    "y must be 0 to C - 1 = 2 or (hidden) -1: 1 of 5 values are not, the first is 3 at [3]": [
        {"y": torch.tensor([0, 1, 2, 3, 0])}
    ],
    "the first is -2 at [3]": [{"y": torch.tensor([0, 1, 2, -2, 0])}],
    "y must be [N, C], C = 3, is [5, 2]": [MULTILABEL | {"y": torch.zeros(5, 2)}],
    "y must be 0, 1 or (hidden) NaN: 15 of 15": [MULTILABEL | {"y": torch.full((5, 3), 0.5)}],
    "edge_index must name nodes of x, 0 to 4: 4 of 22 values are not, the first is 5 at [0, 8]": [
        {"edge_index": EDGES + 1}
    ],
    "the first is -1 at [0, 0]": [{"edge_index": EDGES - 1}],
    "edge_index is [11, 2] int64, must be [2, E]: edge_index.T": [{"edge_index": EDGES.T}],
    "edge_index is a sparse matrix: give its rows and columns": [
        {"edge_index": torch.eye(5).to_sparse()},
        {"edge_index": scipy.sparse.eye(5)},
    ],
    "edge_index must be sorted by destination: symmetric_with_loops(": [{"edge_index": EDGES.flip(1)}],
    "edge_index must have no duplicates: symmetric_with_loops(": [{"edge_index": EDGES.repeat_interleave(2, dim=1)}],
    "edge_index must be symmetric: symmetric_with_loops(": [
        {"edge_index": edges((0, 0), (0, 1), (1, 1), (2, 2), (3, 3), (4, 4))}
    ],
    "edge_index must have a self-loop at every node, 3 have none: symmetric_with_loops(": [
        {"edge_index": edges((1, 0), (0, 1), (2, 2), (3, 3))}
    ],
    "edge_index must not link two graphs": [
        {"edge_index": symmetric_with_loops(torch.tensor([2]), torch.tensor([3]), 5)}
    ],
    "no such task or setting": [{"task_name": "regression"}, {"setting": "deductive"}],
    "splits and split must not both be given": [{"splits": SEVERAL["splits"]}],
    "splits must be [K, N] or [K, G] int8": [
        SEVERAL | {"splits": SEVERAL["splits"].long()},
        SEVERAL | {"splits": SEVERAL["splits"][0]},
    ],
    "splits must have a column for each node or graph": [SEVERAL | {"splits": torch.zeros(3, 5, dtype=torch.int8)}],
    "splits must be 0, 1, 2 or -1": [SEVERAL | {"splits": SEVERAL["splits"] + step} for step in (1, -1)],
    "no such metric": [{"metric": "f1"}, MULTILABEL | {"metric": "accuracy"}],
    "roc_auc must be of two classes": [{"metric": "roc_auc"}, MULTILABEL | {"metric": "roc_auc"}],
}


@pytest.mark.parametrize("rule, changes", [(rule, each) for rule, all_ in WRONG.items() for each in all_])
def test_what_is_wrong_is_named(rule, changes):
    """Fault: a data set has NaN or infinite features, labels out of range, or another broken promise.

    Provoked: data with one thing wrong at a time are made, for each rule of GraphData.
    Promised: they are refused before anything trains, naming the rule.
    """
    with pytest.raises(DataError) as error:
        graph_data(**changes)
    assert rule in str(error.value)


# Digest


def test_the_digest_changes_with_every_array_and_with_nothing_else():
    data = graph_data()
    assert data.digest == graph_data().digest
    assert len(data.digest) == 64
    other = {
        "x": data.x + 1,
        "edge_index": symmetric_with_loops(torch.tensor([0, 0, 3]), torch.tensor([1, 2, 4]), 5),
        "y": torch.tensor([0, 1, 2, 0, 0]),
        "graph_ptr": torch.tensor([0, 2, 5]),
        "split": Split(torch.tensor([0]), torch.tensor([1]), torch.tensor([0])),
    }
    data = replace(data, edge_index=data.edge_index[:, :0])  # of which none links two graphs, whatever they are
    changed = [replace(data, **{name: value}).digest for name, value in other.items() if name != "edge_index"]
    changed.append(graph_data(edge_index=other["edge_index"]).digest)
    several = [graph_data(**SEVERAL).digest, graph_data(**SEVERAL | {"splits": SEVERAL["splits"].flip(0)}).digest]
    assert len({data.digest, replace(data, split=None).digest, *changed, *several}) == 9


def test_the_digest_of_data_without_several_splits_or_another_metric_stays_what_it_was():
    """Finished runs are known by it: had it changed, all of them would be trained again."""
    assert graph_data().digest == "b2f16752c1ac88180dbcbded529245b84b9c69b4a83fb45ee14bf0b621a76bb6"
    assert graph_data(metric="accuracy").digest == graph_data().digest
    assert graph_data(**TWO_CLASSES, metric="roc_auc").digest != graph_data(**TWO_CLASSES).digest


# Files


class Toy(Dataset):
    task, setting, source, licence = "multiclass", "inductive", "by hand", "none"


@pytest.fixture
def folder(tmp_path):
    write_data(tmp_path, "toy", Toy(Toy.Params()), graph_data())
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [{}, MULTILABEL, {"split": None}, {"edge_index": EDGES[:, :0]}, SEVERAL, TWO_CLASSES | {"metric": "roc_auc"}],
)
def test_what_is_written_is_read_bit_for_bit(tmp_path, changes):
    data = graph_data(**changes)
    write_data(tmp_path, "toy", Toy(Toy.Params()), data)
    found = read_data(tmp_path)
    assert found.digest == data.digest
    assert torch.equal(found.x, data.x)
    assert torch.equal(found.edge_index, data.edge_index)
    assert (found.task_name, found.setting, found.num_classes) == (data.task_name, data.setting, data.num_classes)
    assert (found.split is None) == (data.split is None)
    assert (found.splits is None) == (data.splits is None)
    assert data.splits is None or torch.equal(found.splits, data.splits)
    assert found.task is data.task
    card = read_card(tmp_path / "data.json")
    assert (card.name, card.nodes, card.graphs, card.digest) == ("toy", 5, 2, data.digest)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/nowhere/data\.json: .*run snakemake again"):
        read_data(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["data.npz", "data.json"])
def test_a_file_cut_short_anywhere_is_named(folder, file):
    """Fault: a stored data set is cut short.

    Provoked: its files are cut at many lengths.
    Promised: the file is refused by name with what to do.
    """
    content = (folder / file).read_bytes()
    for length in range(0, len(content) - 1, max(1, len(content) // 40)):
        (folder / file).write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"{folder}/{file}.*run snakemake again"):
            read_data(folder)


def test_no_flipped_bit_in_the_arrays_goes_unnoticed(folder):
    """Fault: a bit is flipped in a stored data set.

    Provoked: bits are flipped at many places of its arrays.
    Promised: what is read is what was written, or the file is refused by name with what to do.
    """
    path, digest = folder / "data.npz", graph_data().digest
    content, noticed = path.read_bytes(), 0
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        try:
            assert read_data(folder).digest == digest  # a bit that zip does not use, such as a date's
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
            noticed += 1
    assert noticed > len(content) / 3 / 2


def test_arrays_of_other_data_are_refused(folder, tmp_path):
    write_data(tmp_path / "other", "other", Toy(Toy.Params()), graph_data(x=torch.ones(5, 2)))
    (tmp_path / "other" / "data.npz").replace(folder / "data.npz")
    with pytest.raises(DataError, match=rf"{folder}/data\.npz: its content does not match the digest in data\.json"):
        read_data(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"setting": "jnductive"},
        {"task": "multilabl"},
        {"task": "multilabel"},
        {"classes": 2},
        {"digest": "0"},
        {"metric": "roc_auc"},
        {"metric": "f1"},
    ],
)
def test_a_card_that_does_not_fit_the_arrays_is_refused(folder, change):
    write_card(folder / "data.json", read_card(folder / "data.json").model_copy(update=change))
    with pytest.raises(DataError, match=str(folder)):
        read_data(folder)


@pytest.mark.parametrize("change", [{"classes": 18}, {"resplit": True}, {"setting": "transductive"}, {"source": "?"}])
def test_no_altered_card_is_read(folder, change):
    """Fault: the description of a stored data set is altered, by a flipped bit or by hand.

    Provoked: the number of classes, the setting, the source, or whether splits are redrawn is changed in its file.
    Promised: it is refused by its name with what to do, by training and by tables.
    """
    file = folder / "data.json"
    written = json.loads(file.read_text())
    assert written != written | change
    file.write_text(json.dumps(written | change))
    for read, of in ((read_data, folder), (read_card, file)):
        with pytest.raises(ValueError, match=r"data\.json: .*checksum does not match.*run snakemake again"):
            read(of)


def test_a_card_of_another_version_is_named(folder):
    file = folder / "data.json"
    content = read_card(file).model_dump()
    for changed, problem in (
        ({key: value for key, value in content.items() if key != "resplit"}, "resplit: Field required"),
        ({**content, "more": 1}, "more: Extra inputs"),
        ({**content, "classes": "3"}, "classes: Input should be a valid integer"),
        ({**content, "provenance": {}}, "provenance: .*canonical"),
    ):
        write_sealed(file, changed)
        with pytest.raises(RecordError, match=rf"data\.json: not the card .*{problem}.*run snakemake again"):
            read_card(file)


def test_arrays_are_never_unpickled(folder):
    np.savez(folder / "data.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"data\.npz"):
        read_data(folder)


# Splits


def drawn(*parts):
    class Drawn(Toy):
        def draw_split(self, data, random):
            return Split(*(torch.tensor(part, dtype=torch.int64) for part in parts))

    return Drawn(Drawn.Params())


def test_parts_that_overlap_or_are_empty_are_refused():
    with pytest.raises(DataError, match=r"Drawn, split of seed 3: the parts of the split overlap"):
        drawn([0], [0], [1]).split(graph_data(), 3)
    with pytest.raises(DataError, match=r"nothing is left for val, test"):
        drawn([0, 1], [], []).split(graph_data(), 0)


def test_a_data_set_without_any_split_is_refused():
    with pytest.raises(DataError, match="no canonical split"):
        Toy(Toy.Params()).split(graph_data(split=None), 0)


def test_a_canonical_split_is_the_same_for_every_seed():
    one = {"graph_ptr": torch.tensor([0, 1, 2, 5]), "edge_index": EDGES[:, :0], "y": torch.zeros(5, dtype=torch.int64)}
    data = graph_data(**one, split=Split(torch.tensor([0]), torch.tensor([1]), torch.tensor([2])))
    toy = Toy(Toy.Params())
    assert toy.split(data, 0) is toy.split(data, 1) is data.split
    assert not toy.resplit
    assert drawn([0], [1], [2]).resplit


def published(splits, declared=3, **changes):
    """A data set of one graph of five nodes that comes with ``splits`` and states ``declared``; and its data."""

    class Published(Toy):
        setting, splits = "transductive", declared

    codes = torch.tensor(splits, dtype=torch.int8)
    edge_index = symmetric_with_loops(torch.tensor([0]), torch.tensor([1]), 5)
    one = {"setting": "transductive", "graph_ptr": torch.tensor([0, 5]), "edge_index": edge_index,
           "y": torch.tensor([0, 1, 2, 0, 1])}  # fmt: skip
    return Published(Published.Params()), graph_data(**one, split=None, splits=codes, **changes)


def test_a_seed_has_its_own_of_several_published_splits_and_after_the_last_comes_the_first():
    toy, data = published([[0, 0, 1, 2, 2], [2, 1, 0, 0, -1], [1, 2, 0, 1, 2]])
    assert toy.resplit
    expected = [[[0, 1], [2], [3, 4]], [[2, 3], [1], [0]], [[2], [0, 3], [1, 4]]]
    for seed in range(7):
        assert [part.tolist() for part in toy.split(data, seed)] == expected[seed % 3]
        assert all(part.dtype == torch.int64 for part in toy.split(data, seed))


def test_published_splits_that_lack_a_part_or_that_the_class_does_not_state_are_refused():
    toy, data = published([[0, 1, 2, 2, 2], [0, 1, 1, 1, 1], [0, 1, 2, -1, -1]])
    with pytest.raises(DataError, match="nothing is left for test"):
        toy.split(data, 4)
    toy, data = published([[0, 1, 2, 2, 2]] * 3, declared=0)
    assert not toy.resplit
    with pytest.raises(DataError, match="come with 3 splits, but the class states 0: the statistics go by that"):
        toy.split(data, 0)


def test_published_splits_are_in_the_card_and_not_in_a_graph_by_itself(tmp_path):
    toy, data = published([[0, 0, 1, 2, 2]] * 3)
    write_data(tmp_path, "toy", toy, data)
    card = read_card(tmp_path / "data.json")
    assert (card.resplit, split_in_words(card)) == (True, "its 3 published splits")
    assert split_in_words(card.model_copy(update={"published_splits": None})) == "splits that change with the seed"
    assert data.graph(0).splits is None
    assert toy.split(read_data(tmp_path), 1).sizes() == {"train": 2, "val": 1, "test": 2}


def test_data_that_are_not_canonical_are_not_shown_under_a_name_that_reads_the_same():
    class Other(Toy):
        name = "two_words"

        def provenance(self):
            return {"canonical": False, "remark": "made up"}

    for name in ("two_words", "two-words", "Two-Words", "two-words-small", "two_words_2"):
        with pytest.raises(DataError, match="made up: it must not be shown as 'two_words'"):
            Other(Other.Params()).check_name(name)
    for name in ("my-two-words", "two-wordsmiths", "two"):
        Other(Other.Params()).check_name(name)


# Seeds


# printf 3/split | sha256sum
SHA256 = "4bfbc4f7f07155e5548626684a061ab95a57ffa30ca22ffe9166c88a3e277066"


def test_seeds_of_scopes_are_stable_and_differ():
    scopes = [derive(seed, scope) for seed in range(50) for scope in ("split", "student", "teacher", "batches")]
    assert len(set(scopes)) == 200
    assert all(0 <= scope < 2**63 for scope in scopes)
    assert derive(3, "split") == int(SHA256[:16], 16) >> 1  # the same on every machine
    assert torch.equal(torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a")))


# Metrics and losses


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_is_that_of_scikit_learn(seed):
    random = torch.Generator().manual_seed(seed)
    logits, y = torch.randn(31, 4, generator=random), torch.randint(0, 4, (31,), generator=random)
    for task in ("multiclass", "graph-multiclass"):
        assert TASKS[task].metric(logits, y) == accuracy_score(y, logits.argmax(1))


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
def test_micro_f1_is_that_of_scikit_learn_at_probability_one_half(bias):
    random = torch.Generator().manual_seed(0)
    logits, y = torch.randn(31, 4, generator=random) + bias, (torch.rand(31, 4, generator=random) < 0.3).float()
    expected = f1_score(y, logits.sigmoid() >= 0.5, average="micro")
    assert TASKS["multilabel"].metric(logits, y) == pytest.approx(expected, abs=1e-15)


def test_micro_f1_where_nothing_is_predicted_or_true():
    metric, no, yes = TASKS["multilabel"].metric, torch.full((2, 3), -1.0), torch.full((2, 3), 1.0)
    assert metric(no, torch.ones(2, 3)) == 0.0
    assert metric(yes, torch.zeros(2, 3)) == 0.0
    assert metric(no, torch.zeros(2, 3)) == 0.0
    assert metric(yes, torch.ones(2, 3)) == 1.0
    assert metric(torch.zeros(2, 3), torch.ones(2, 3)) == 1.0  # a logit of 0 is a probability of 0.5


def test_hidden_labels_are_no_labels():
    assert TASKS["multiclass"].hide(torch.tensor([0, 1, 2]), torch.tensor([1])).tolist() == [0, -1, 2]
    hidden = TASKS["multilabel"].hide(torch.ones(2, 2), torch.tensor([False, True]))
    assert hidden[0].tolist() == [1, 1]
    assert hidden[1].isnan().all()
    with pytest.raises((IndexError, RuntimeError)):  # a loss on a hidden label is an error, not a number
        TASKS["multiclass"].loss(torch.zeros(1, 3), torch.tensor([-1]))
    assert TASKS["multilabel"].loss(torch.zeros(2, 2), hidden).isnan()
