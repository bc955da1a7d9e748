"""Stored predictions: what a file holds, what each row adds to a score, and the rows of many runs in one file."""

import hashlib

import numpy as np
import pytest
import torch

from distillbench.calibration import calibration
from distillbench.data.tasks import mean_class_accuracy, micro_f1, roc_auc
from distillbench.predictions import (
    Part,
    RowScores,
    agreement,
    pack,
    read_part,
    read_rows,
    row_scores,
    write_rows,
)
from distillbench.record import RecordError

N = 600


def classes(rng, n=N, right=0.7, shares=(0.6, 0.3, 0.1)):
    """Classes of unequal size, and predictions that are right for most of them, least for the last."""
    y = rng.choice(len(shares), size=n, p=shares)
    kept = rng.random(n) < right - 0.1 * y
    return Part(np.arange(n), y, np.where(kept, y, rng.integers(0, len(shares), n)))


def labels(rng, n=N, count=5):
    """Rows with few or many labels, and predictions that are right for most entries."""
    y = rng.random((n, count)) < rng.random((n, 1))
    return Part(np.arange(n), y, y ^ (rng.random((n, count)) < 0.2))


def ranked(rng, n=N):
    """A rare class 1 with higher scores; many ties."""
    y = (rng.random(n) < 0.2).astype(np.int64)
    score = np.round(rng.normal(size=n) + y, 1)
    return Part(np.arange(n), y, (score > 0).astype(np.int64), score=score)


def by_torch(part, metric):
    """The metric as it is recorded, of logits that lead to these predictions."""
    if metric == "accuracy":
        return float((part.predicted == part.y).mean())
    if metric == "micro_f1":
        return micro_f1(torch.from_numpy(part.predicted - 0.5), torch.from_numpy(part.y).float())
    if metric == "roc_auc":
        return roc_auc(torch.from_numpy(np.stack([0 * part.score, part.score], axis=1)), torch.from_numpy(part.y))
    return mean_class_accuracy(torch.eye(3)[part.predicted], torch.from_numpy(part.y))


def some(part, rows):
    score = None if part.score is None else part.score[rows]
    return Part(part.rows, part.y[rows], part.predicted[rows], score=score)


METRICS = {"accuracy": classes, "mean_class_accuracy": classes, "micro_f1": labels, "roc_auc": ranked}


# what each row adds


@pytest.mark.parametrize("metric", METRICS)
def test_the_mean_of_the_rows_is_the_score(metric):
    for seed in range(5):
        part = METRICS[metric](np.random.default_rng(seed))
        rows, values = row_scores(part, metric)
        assert values.dtype == np.float32 and list(rows) == list(range(N))
        assert values.astype(np.float64).mean() == pytest.approx(by_torch(part, metric), abs=1e-7)


def test_the_rows_of_an_accuracy_are_its_bits():
    part = classes(np.random.default_rng(0))
    values = row_scores(part, "accuracy").values
    assert set(values) == {0.0, 1.0}
    assert values.astype(np.float64).mean() == (part.predicted == part.y).mean()


@pytest.mark.parametrize("metric", METRICS)
def test_the_spread_of_the_rows_is_that_of_the_score_over_draws_of_rows(metric):
    """sqrt(var / N) beside a bootstrap of the rows, which knows nothing of influences."""
    rng = np.random.default_rng(1)
    part = METRICS[metric](rng)
    values = row_scores(part, metric).values.astype(np.float64)
    drawn = [by_torch(some(part, rng.integers(0, N, N)), metric) for _ in range(4000)]
    assert np.sqrt(values.var() / N) == pytest.approx(np.std(drawn), rel=0.05)


@pytest.mark.parametrize("metric", ["mean_class_accuracy", "micro_f1", "roc_auc"])
def test_what_a_row_adds_is_what_the_score_gains_by_a_little_more_weight_on_it(metric):
    """The influence by its definition: N times the slope of the score in the weight of one row, all worked out anew."""
    part = METRICS[metric](np.random.default_rng(2))
    many = 200  # copies of all rows; one copy more of one of them is a weight of 1 + 1/200
    copies = np.tile(np.arange(N), many)
    score = by_torch(part, metric)
    values = row_scores(part, metric).values
    for row in range(0, N, 97):
        more = by_torch(some(part, np.append(copies, row)), metric)
        slope = (more - score) * (many * N + 1)  # the row's share of the weight grew by (1 - 1/N) / (many·N + 1)
        assert slope == pytest.approx(values[row] - score, rel=0.02, abs=0.02)


def test_a_mean_over_batches_has_rows_of_that_mean():
    """Two batches of 3 and 1 rows, accuracies 2/3 and 0: 1/3. Rows: 1/3 + 4/(2·3) · (bit − 2/3); 1/3 + 4/2 · 0."""
    part = Part(np.arange(4), np.zeros(4, int), np.array([0, 0, 1, 1]), batch=np.array([0, 0, 0, 1]))
    values = row_scores(part, "accuracy").values
    assert values == pytest.approx([5 / 9, 5 / 9, -1 / 9, 1 / 3], abs=1e-6)
    rng = np.random.default_rng(3)
    whole = labels(rng)
    batch = np.repeat([0, 1, 2], [100, 200, 300])
    scores = [by_torch(some(whole, batch == number), "micro_f1") for number in range(3)]
    values = row_scores(Part(whole.rows, whole.y, whole.predicted, batch=batch), "micro_f1").values
    assert values.astype(np.float64).mean() == pytest.approx(np.mean(scores), abs=1e-7)


def test_scores_of_nothing_are_those_that_are_recorded():
    nothing = np.zeros((4, 3), dtype=bool)
    assert list(row_scores(Part(np.arange(4), nothing, nothing), "micro_f1").values) == [0.0] * 4
    one_class = Part(np.arange(3), np.ones(3, int), np.ones(3, int), score=np.arange(3.0))
    assert list(row_scores(one_class, "roc_auc").values) == [0.5] * 3
    with pytest.raises(ValueError, match="no row scores of the metric 'macro_f1'"):
        row_scores(one_class, "macro_f1")


# calibration


def test_calibration_by_hand():
    """One right of two at 0.58, one bin; 0.68, wrong, and 0.72, right, in (10/15, 11/15]; 0.66, right, in another."""
    p = np.array([0.58, 0.58, 0.68, 0.72, 0.66])
    right = np.array([1, 0, 0, 1, 1])
    found = calibration(np.log(np.stack([p, 1 - p], axis=1)), 1 - right)
    ece = (abs(1 - 1.16) + abs(1 - 0.68 - 0.72) + abs(1 - 0.66)) / 5
    nll = -np.log([0.58, 0.42, 0.32, 0.72, 0.66]).mean()
    assert found == pytest.approx({"ece": ece, "nll": nll})


def test_calibration_of_several_labels_is_of_every_entry_as_a_prediction_by_itself():
    p = np.array([[0.8, 0.3], [0.8, 0.1]])
    y = np.array([[True, False], [False, False]])
    # predicted 1, 0, 1, 0 with confidence 0.8, 0.7, 0.8, 0.9; the third is wrong, in the bin of the first
    ece = (abs(1 - 1.6) + abs(1 - 0.7) + abs(1 - 0.9)) / 4
    nll = -np.log([0.8, 0.7, 0.2, 0.9]).mean()
    assert calibration(np.log(p / (1 - p)), y) == pytest.approx({"ece": ece, "nll": nll})


def test_a_negative_log_likelihood_may_exceed_one_and_is_finite_for_large_logits():
    found = calibration(np.array([[3e4, -3e4], [0.0, 1.0]], dtype=np.float32), np.array([1, 1]))
    assert found["nll"] == pytest.approx((6e4 + np.log1p(np.exp(-1))) / 2) and 0 <= found["ece"] <= 1
    assert calibration(np.zeros((0, 3)), np.zeros(0, int)) == {}


def test_calibration_is_the_same_in_parts(monkeypatch):
    rng = np.random.default_rng(4)
    logits, y = rng.normal(size=(100, 4)), rng.integers(0, 4, 100)
    whole = calibration(logits, y)
    monkeypatch.setattr("distillbench.calibration._ROWS", 7)
    assert calibration(logits, y) == pytest.approx(whole)


# files


def stored(tmp_path, part, other=None):
    path = tmp_path / "seed-0.predictions.npz"
    path.write_bytes(pack({"val": other or part, "test": part}))
    return path


def same(one, other):
    return all(
        np.array_equal(a, b) if a is not None and b is not None else a is b
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def test_what_is_stored_is_read_again(tmp_path):
    rng = np.random.default_rng(5)
    plain, several, scored = classes(rng), labels(rng, count=13), ranked(rng)
    for part in (plain, several, scored):
        assert same(read_part(stored(tmp_path, part)), part)
    batched = Part(plain.rows + 70_000, plain.y, plain.predicted, rng.normal(size=(N, 3)), batch=plain.rows // 256)
    path = stored(tmp_path, batched, plain)
    found = read_part(path)
    assert same(read_part(path, "val"), plain) and list(found.rows) == list(batched.rows)
    assert list(found.batch) == list(batched.batch)
    assert found.logits.dtype == np.float16 and np.allclose(found.logits, batched.logits, rtol=2**-11)
    assert read_part(path, logits=False).logits is None
    assert pack({"val": plain, "test": plain}) == pack({"val": plain, "test": plain}), "no time is in a file"


def test_logits_that_no_half_holds_are_the_largest_that_one_does(tmp_path):
    part = Part(np.arange(1), np.array([0]), np.array([0]), np.array([[1e6, -1e6]]))
    assert read_part(stored(tmp_path, part)).logits.tolist() == [[65504.0, -65504.0]]


def test_predictions_that_are_missing_damaged_or_of_another_run_are_named(tmp_path):
    path = stored(tmp_path, classes(np.random.default_rng(6)))
    content = path.read_bytes()
    written = hashlib.sha256(content).hexdigest()
    assert read_part(path, expected=written)
    with pytest.raises(RecordError, match=r"seed-0\.predictions\.npz: does not match its record"):
        read_part(path, expected="0" * 64)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RecordError, match=r"seed-0\.predictions\.npz: corrupt predictions"):
        read_part(path)
    path.unlink()
    with pytest.raises(RecordError, match=r"seed-0\.predictions\.npz: is missing"):
        read_part(path)


def test_agreement_is_over_rows_or_label_entries_and_of_the_same_rows():
    student = Part(np.arange(4), np.zeros(4, int), np.array([0, 1, 2, 2]))
    teacher = Part(np.arange(4), np.zeros(4, int), np.array([0, 1, 0, 0]))
    assert agreement(student, teacher) == 0.5
    one, other = (np.array(bits, bool) for bits in ([[1, 0], [1, 1]], [[1, 0], [0, 1]]))
    assert agreement(Part(np.arange(2), one, one), Part(np.arange(2), one, other)) == 0.75
    with pytest.raises(ValueError, match="of other rows"):
        agreement(student, Part(np.arange(1, 5), teacher.y, teacher.predicted))


# rows of many runs


def key(method, seed, dataset="digits"):
    return (dataset, "pyg", "gat", method, seed)


def many(rng, seeds=3, n=1001):
    rows = {}
    for seed in range(seeds):
        ids = np.sort(rng.permutation(1797)[:n])
        for method in ("teacher", "kd", "lsp+kd"):
            rows[key(method, seed)] = RowScores(ids, (rng.random(n) < 0.9).astype(np.float32))
        rows[key("kd", seed, "λ-graph")] = RowScores(ids + 5, rng.normal(size=n).astype(np.float32))
    return rows


def test_rows_survive_being_stored(tmp_path):
    rows = many(np.random.default_rng(7))
    rows[key("none", 0)] = RowScores(np.zeros(0, np.int64), np.zeros(0, np.float32))
    write_rows(tmp_path / "rows.npz", rows)
    found = read_rows(tmp_path / "rows.npz")
    assert list(found) == list(rows)
    for name, (ids, values) in rows.items():
        assert np.array_equal(found[name].rows, ids) and found[name].rows.dtype == np.int64, name
        assert np.array_equal(found[name].values, values) and found[name].values.dtype == np.float32, name
    write_rows(tmp_path / "rows.npz", {})
    assert read_rows(tmp_path / "rows.npz") == {}


def test_ids_are_stored_once_and_bits_as_bits(tmp_path):
    rng = np.random.default_rng(8)
    ids = np.sort(rng.permutation(20_000)[:10_000])
    rows = {key(f"m{n}", 0): RowScores(ids, (rng.random(10_000) < 0.5).astype(np.float32)) for n in range(40)}
    write_rows(tmp_path / "rows.npz", rows)
    assert (tmp_path / "rows.npz").stat().st_size < 20_000 / 8 + 40 * 10_000 / 8 + 2_500


def test_damaged_rows_are_refused_by_name_wherever_the_damage_is(tmp_path):
    """Fault: a bit of rows.npz is flipped, or it is cut.

    Provoked: bits all over the file are flipped, one at a time; the file is cut, emptied, removed.
    Promised: it is refused by its name, or what is read is what was written.
    """
    path, rows = tmp_path / "rows.npz", many(np.random.default_rng(9), seeds=1, n=100)
    write_rows(path, rows)
    content = path.read_bytes()
    for place in range(0, len(content), 13):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        try:
            found = read_rows(path)
        except RecordError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert all(np.array_equal(found[name].values, each.values) for name, each in rows.items())
            assert all(np.array_equal(found[name].rows, each.rows) for name, each in rows.items())
    for damage in (content[:200], b""):
        path.write_bytes(damage)
        with pytest.raises(RecordError, match=r"rows\.npz: corrupt rows"):
            read_rows(path)
    path.unlink()
    with pytest.raises(RecordError, match=r"rows\.npz: is missing"):
        read_rows(path)


def test_a_file_of_rows_whose_content_was_changed_is_refused(tmp_path):
    """A whole file, of which one value is another than the digest is of."""
    path = tmp_path / "rows.npz"
    write_rows(path, many(np.random.default_rng(10), seeds=1, n=100))
    with np.load(path) as content:
        arrays = dict(content)
    arrays["values"][3] += 1
    np.savez(path, **arrays)
    with pytest.raises(RecordError, match=r"rows\.npz: corrupt rows: its content does not match its digest"):
        read_rows(path)


def test_ids_that_do_not_ascend_are_not_written(tmp_path):
    for ids in ([1, 0], [0, 0], [-1, 0], [0, 1, 2]):
        with pytest.raises(ValueError, match="digits/pyg/gat/kd/0: ids of rows must be ascending"):
            write_rows(tmp_path / "rows.npz", {key("kd", 0): RowScores(np.array(ids), np.ones(2, np.float32))})
