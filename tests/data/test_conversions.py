"""What a data set's file may give: what is unambiguous becomes the tensor, the rest is refused in a sentence."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from distillbench.data.conversions import DataError, count, edges, features, labels, part

X = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    "given",
    [
        X.tolist(), X.numpy(), X.double(), pd.DataFrame(X.numpy()),
         X.half(), X.int(), X.to_sparse(), X.to_sparse_csr(), X.T.contiguous().T,
        scipy.sparse.csr_matrix(X.numpy()), scipy.sparse.coo_array(X.numpy()), X.numpy()[::-1][::-1],
        X.clone().requires_grad_(), list(X), [np.array(row) for row in X.tolist()],
    ],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_features_in_any_form_are_the_same_numbers(given):
    found = features(given)
    assert torch.equal(found, X) and found.dtype == torch.float32
    assert not found.requires_grad and found.layout == torch.strided


def test_what_is_right_already_is_the_very_tensor():
    y, edge_index, rows = torch.tensor([0, 1, 2]), torch.tensor([[0], [1]]), torch.tensor([2, 0])
    assert features(X) is X and labels(y, multilabel=False) is y
    assert edges(edge_index) is edge_index and part(rows, 3, "nodes", "val") is rows


@pytest.mark.parametrize(
    "given", [[0, 2], (0, 2), pd.Series([0, 2]), np.array([0, 2], np.int32), torch.tensor([0, 2]).short()]
)
def test_labels_of_any_width_are_int64(given):
    assert labels(given, multilabel=False).tolist() == [0, 2]
    assert labels(given, multilabel=False).dtype == torch.int64


def test_several_labels_may_be_integers_or_truths():
    for given in ([[0, 1]], np.array([[False, True]]), torch.tensor([[0, 1]])):
        found = labels(given, multilabel=True)
        assert found.tolist() == [[0.0, 1.0]] and found.dtype == torch.float32


@pytest.mark.parametrize("given", [[[0, 1], [1, 0]], np.array([[0, 1], [1, 0]], dtype=np.int32), ((0, 1), (1, 0))])
def test_edges_of_any_width_are_int64(given):
    assert edges(given).tolist() == [[0, 1], [1, 0]] and edges(given).dtype == torch.int64


@pytest.mark.parametrize(
    "given",
    [
        [4, 1], (4, 1), range(4, 0, -3), np.array([4, 1]), np.array([4, 1], dtype=np.uint16),
        torch.tensor([4, 1]).int(), pd.Series([4, 1]), pd.Index([4, 1]),
        [torch.tensor(4), torch.tensor(1)], torch.tensor([4, 1]).byte(),
    ],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_a_part_in_any_form_is_its_indices(given):
    found = part(given, 5, "nodes", "val")
    assert found.tolist() == [4, 1] and found.dtype == torch.int64


@pytest.mark.parametrize(
    "mask",
    [
        [False, True, False, False, True],
        np.array([0, 1, 0, 0, 1], dtype=bool),
        pd.Series([False, True, False, False, True]),
    ],
)
def test_a_mask_of_a_part_is_the_places_of_its_truths(mask):
    assert part(mask, 5, "nodes", "val").tolist() == part(torch.tensor(mask), 5, "nodes", "val").tolist() == [1, 4]


def test_an_empty_part_is_an_empty_part():
    for given in ([], (), np.array([]), torch.tensor([])):
        assert part(given, 5, "nodes", "val").tolist() == []


@pytest.mark.parametrize(
    "given, said",
    [
        (torch.tensor([0, 5]), "the part 'val' of the split has 5 at place 1, which is not one of 5 graphs, 0 to 4"),
        ([0, -1], "has -1 at place 1, which is negative"),
        ([3, 1, 3], "has 3 more than once"),
        (torch.tensor([0.0, 1.0]), "is [2] float32, must be [K] integers"),
        (torch.tensor([[0], [1]]), "is [2, 1] int64, must be [K] indices: flatten it"),
        (torch.tensor([True, False]), "is a mask of [2], must be of all 5 graphs: [5]"),
        (torch.ones(5, 1, dtype=torch.bool), "is a mask of [5, 1], must be of all 5 graphs"),
        (torch.tensor([0, 1, 0, 0, 1]).byte(), "is 0 and 1 for each of 5 graphs: a mask is given as bool"),
        ([0, 1, 0, 0, 1], "is 0 and 1 for each of 5 graphs: a mask is given as bool"),
        ({"val": [0]}, "is a dict, must be the indices of graphs, or a mask of them"),
        (None, "is a NoneType, must be the indices"),
        (3, "is a int, must be the indices"),
        (["0", "1"], "list that is no array of numbers"),
        (np.array(["0"]), "ndarray that is no array of numbers"),
        ([[0], [1, 2]], "list that is no array of numbers"),
    ],
)
def test_anything_else_is_refused_with_its_part_and_its_value(given, said):
    with pytest.raises(DataError) as refused:
        part(given, 5, "graphs", "val")
    assert said in str(refused.value) and "the part 'val' of the split" in str(refused.value)


def test_labels_that_pandas_made_floats_are_told_what_missing_ones_are():
    with pytest.raises(DataError, match=r"y is \[2\] float32, must be .*; -1 for those that are missing"):
        labels([0.0, float("nan")], multilabel=False)


def test_masked_values_are_counted_and_a_mask_of_nothing_is_no_mask():
    hidden = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], mask=[[True, False], [False, False]])
    with pytest.raises(DataError, match="x: 1 of 4 values are masked: leave them out or fill them"):
        features(hidden)
    with pytest.raises(DataError, match="y: 1 of 2 values are masked"):
        labels(np.ma.masked_array([0, 1], mask=[False, True]), multilabel=False)
    assert features(np.ma.masked_array([[1.0, 2.0]], mask=False)).tolist() == [[1, 2]]


def test_big_endian_numbers_and_tables_of_numbers_and_truth_values_are_converted():
    assert features(np.array([[1.5, -2.0]], ">f4")).tolist() == [[1.5, -2.0]]
    assert labels(np.array([0, 300], ">i8"), multilabel=False).tolist() == [0, 300]
    table = pd.DataFrame({"old": [True, False], "age": [0.5, 2.0], "n": [1, 2]})
    assert features(table).tolist() == [[1, 0.5, 1], [0, 2, 2]]
    with pytest.raises(DataError):
        features(table.assign(name=["a", "b"]))


def test_one_row_may_be_a_number_by_itself():
    assert part(torch.tensor(3), 5, "nodes", "val").tolist() == [3]
    with pytest.raises(DataError, match="is not one of 5 nodes"):
        part(torch.tensor(5), 5, "nodes", "val")


@pytest.mark.parametrize("given", [3, torch.tensor(3), np.int64(3), 3.0])
def test_the_number_of_classes_may_come_from_the_labels(given):
    assert count(given, "num_classes") == 3 and type(count(given, "num_classes")) is int


@pytest.mark.parametrize("given", [2.5, "3", None, torch.tensor([1, 2]), True, float("nan")])
def test_a_number_of_classes_that_is_none_is_named(given):
    with pytest.raises(DataError, match=r"num_classes is .*, must be a whole number"):
        count(given, "num_classes")
