"""What a data set's class states, what it loads and how it draws are held against each other before anything trains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split

from distillbench.config.config import ConfigError
from distillbench.contract.toys import data_of
from distillbench.data.graph_data import DataError, Dataset, Split, symmetric_with_loops
from distillbench.data.promises import load_checked, warnings_of
from distillbench.data.tasks import OTHER_METRICS
from distillbench.jobs.data import prepare_data
from distillbench.jobs.tables import collect
from distillbench.jobs.train import train
from distillbench.params import MORE_METRICS
from distillbench.plan.plan import make_plan
from distillbench.record import RecordError

ROOT = Path(__file__).parents[2]


def dataset_of(data, draw=None, **stated):
    """A data set that loads ``data`` (or what it returns) and states the same, but for ``stated``."""
    first = data() if callable(data) else data
    words = {"task": first.task_name, "setting": first.setting, "source": "a test", "licence": "none",
             "load": lambda self: data() if callable(data) else data}  # fmt: skip
    if draw is not None:
        words["draw_split"] = draw
    made = type("Toy", (Dataset,), words | stated)
    return lambda: made(made.Params())


def halves(order):
    return Split(*torch.as_tensor(order).tensor_split(3))


# A split is a function of the seed


@pytest.mark.parametrize(
    "draw",
    [
        lambda self, data, random: halves(torch.randperm(data.num_nodes)),
        lambda self, data, random: halves(np.random.permutation(data.num_nodes)),
        lambda self, data, random: halves(np.random.RandomState().permutation(data.num_nodes)),
        lambda self, data, random: halves(np.random.default_rng().permutation(data.num_nodes)),
        lambda self, data, random: Split(*(torch.tensor(p) for p in (
            *train_test_split(range(20)), range(20, data.num_nodes)))),
    ],
    ids=["torch", "numpy", "RandomState", "default_rng", "scikit-learn"],
)  # fmt: skip
def test_a_split_drawn_from_elsewhere_than_its_generator_is_refused(draw):
    """Fault: a data set draws its splits from torch's, NumPy's or Python's own generator, or from none that is seeded.

    Provoked: draw_split of torch, NumPy and scikit-learn without the generator it is given.
    Promised: the data set is refused by name before anything trains: methods would be compared on different rows.
    """
    make = dataset_of(data_of("multiclass"), draw)
    with pytest.raises(DataError, match=r"Toy, split of seed 0: draw_split gives two splits.*random_state="):
        load_checked(make)


def test_the_way_out_that_the_refusal_names_is_one():
    def draw(self, data, random):
        state = random.initial_seed() % 2**32
        train, rest = train_test_split(np.arange(data.num_nodes), random_state=state)
        return Split(train, *np.array_split(rest, 2))

    dataset, data = load_checked(dataset_of(data_of("multiclass"), draw))
    assert dataset.split(data, 0).digest == dataset.split(data, 0).digest != dataset.split(data, 1).digest


def test_looking_at_a_data_set_leaves_the_shared_generators_as_they_were():
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist()
    torch.manual_seed(3)
    np.random.seed(3)
    load_checked(
        dataset_of(data_of("multiclass"), lambda self, data, random: halves(torch.randperm(56, generator=random)))
    )
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist()) == expected


def test_one_split_for_all_seeds_is_refused_where_the_class_states_one_a_seed():
    make = dataset_of(data_of("multiclass"), lambda self, data, random: halves(torch.arange(56)))
    with pytest.raises(DataError, match="states a split a seed, and seeds 0 to 2 have one"):
        load_checked(make)


def test_splits_that_differ_are_refused_where_the_class_states_one_for_all_seeds():
    data = data_of("multiclass")
    own = lambda self, data, seed: data.split if seed else Split(*reversed(data.split))  # noqa: E731
    with pytest.raises(DataError, match=r"states one split for all seeds, and seeds 0 to 2 differ: .*draw_split"):
        load_checked(dataset_of(data, split=own))


def test_a_split_has_one_digest_in_any_order_and_another_for_other_rows():
    split = Split(*map(torch.tensor, ([2, 0], [1], [3])))
    assert split.digest == split._replace(train=torch.tensor([0, 2])).digest
    others = [
        split._replace(train=torch.tensor([0])),
        Split(split.train, split.test, split.val),
        split._replace(val=split.val[:0]),
    ]
    assert len({split.digest, *(other.digest for other in others)}) == 1 + len(others)


# Rows without a label


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "graph-multiclass"])
@pytest.mark.parametrize("part", Split._fields)
def test_rows_of_a_part_without_a_label_are_refused_with_their_number(task, part):
    """Fault: some rows of the training, validation or test part have no label (-1, or NaN).

    Provoked: each part of data of each task has such rows.
    Promised: the data set is refused, naming the part, how many rows and the first; rows in no part may have none.
    """
    data = data_of(task)
    rows = getattr(data.split, part)[:1]
    nodes = rows
    if task == "multilabel":
        start, stop = data.graph_ptr[rows[0]], data.graph_ptr[rows[0] + 1]
        nodes = torch.arange(int(start), int(stop))[:2]
    y = data.task.hide(data.y, nodes)
    with pytest.raises(
        DataError, match=rf"{len(nodes)} of the \d+ {data.task.level}s of the part '{part}' have no label"
    ):
        load_checked(dataset_of(replace(data, y=y)))
    kept = data.split._replace(**{part: getattr(data.split, part)[1:]})
    load_checked(dataset_of(replace(data, y=y, split=kept)))


# What the class states


@pytest.mark.parametrize(
    "stated, said",
    [
        ({"task": "multilabel"}, "task: the class states 'multilabel', and load gives 'multiclass'"),
        ({"setting": "inductive"}, "setting: the class states 'inductive', and load gives 'transductive'"),
        ({"metric": "roc_auc"}, "metric: the class states 'roc_auc', and load gives 'accuracy'"),
        ({"splits": 3}, "splits: the class states 3, and load gives 0"),
        ({"dynamic": True}, r"dynamic: the class states that there are no edges, and load gives \d+"),
    ],
)
def test_what_the_class_states_and_the_data_are_not_is_named(stated, said):
    with pytest.raises(DataError, match=said):
        load_checked(dataset_of(data_of("multiclass"), **stated))


def test_data_without_edges_are_refused_unless_the_model_draws_them():
    data = data_of("graph-multiclass", clouds=True)
    load_checked(dataset_of(data, dynamic=True))
    with pytest.raises(DataError, match=r"there are no edges, not even self-loops.*dynamic = True"):
        load_checked(dataset_of(data))


def test_loads_that_differ_and_loads_of_something_else_are_refused():
    data = data_of("multiclass")
    with pytest.raises(DataError, match="two loads give different data"):
        load_checked(dataset_of(lambda: replace(data, x=data.x + torch.rand(1))))
    with pytest.raises(DataError, match="load returned a dict, must be a GraphData"):
        load_checked(dataset_of(data, load=lambda self: {"x": data.x}))
    with pytest.raises(DataError, match=r"the split is a tuple, must be a Split\(train, val, test\)"):
        load_checked(dataset_of(data, lambda self, data, random: (*torch.arange(3).split(1),)))


def test_a_word_that_there_is_not_is_named_before_anything_is_loaded(tmp_path):
    assert set(MORE_METRICS) == set(OTHER_METRICS)
    template = (ROOT / "datasets/_template.py").read_text()
    values = {"seeds": 2, "backends": ["csr"], "methods": {"supervised": {}}, "plugins": [str(tmp_path)]}
    pair = {"teacher": {"model": "gcn", "hidden": 4}, "student": {"model": "gcn", "hidden": 2}}
    values |= {"results": str(tmp_path / "results"), "datasets": {"mine": {"pairs": {"p": pair}}}}
    for old, new, said in (
        (
            '"multiclass", "transductive"',
            '"multi-class", "transductive"',
            "task = 'multi-class': there is no such task",
        ),
        (
            '"multiclass", "transductive"',
            '"multiclass", "transductiv"',
            "setting = 'transductiv': there is no such",
        ),
        (
            'licence = "MIT"',
            'licence, metric = "MIT", "rocauc"',
            "metric = 'rocauc': there is no such metric: did",
        ),
    ):
        assert old in template
        (tmp_path / "mine.py").write_text(template.replace(old, new))
        with pytest.raises(ConfigError) as refused:
            make_plan(values, [], ROOT)
        assert said in str(refused.value) and "mine.py" in str(refused.value)


# What a reader should know


def test_constant_features_scales_and_lonely_nodes_are_said():
    data = data_of("multiclass")
    assert warnings_of(data, data.split) == []
    x = data.x.clone()
    x[:, 0] = 1
    assert warnings_of(replace(data, x=x), data.split) == ["1 of 4 features are the same at every node"]
    (scaled,) = warnings_of(replace(data, x=data.x * torch.tensor([1, 1, 1, 1e5])), data.split)
    assert scaled.startswith("the scales of the features differ by a factor of ")
    lonely = symmetric_with_loops(torch.tensor([0]), torch.tensor([1]), 56)
    assert warnings_of(replace(data, edge_index=lonely), data.split) == [
        "54 of 56 nodes have no neighbour but themselves"
    ]


@pytest.mark.parametrize("task", ["multiclass", "graph-multiclass"])
def test_classes_that_nobody_is_taught_are_said(task):
    data = data_of(task)
    y = data.y.clone()
    y[data.split.train] = 0
    assert warnings_of(replace(data, y=y), data.split) == ["2 classes have no row to train on (seed 0)"]
    y[data.split.train[0]] = 2
    assert warnings_of(replace(data, y=y), data.split) == ["class 1 has no row to train on (seed 0)"]


# What decides a rerun


def test_every_parameter_that_names_a_file_or_a_folder_counts_by_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "raw"
    (folder / "deep").mkdir(parents=True)
    for name in ("nodes.csv", "raw/edges.csv", "raw/deep/more.csv", "raw/.hidden"):
        (tmp_path / name).write_text("1")
    text, more = (ROOT / "datasets/_template.py").read_text(), "\n        table: str\n        more: list[str] = []"
    (tmp_path / "mine.py").write_text(text.replace("nodes: PositiveInt = 100", f"nodes: PositiveInt = 100{more}"))
    pair = {"teacher": {"model": "gcn", "hidden": 4}, "student": {"model": "gcn", "hidden": 2}}
    values = {"seeds": 2, "backends": ["csr"], "methods": {"supervised": {}}, "plugins": [str(tmp_path)]}

    def marks(**params):
        entry = {"params": params, "pairs": {"p": pair}}
        plan = make_plan(values | {"datasets": {"mine": entry}}, [], ROOT)
        assert plan.data_params("mine")["files"] == plan.data_marks("mine")
        return {Path(file).name for file in plan.data_files("mine")}, plan.data_marks("mine")

    names, before = marks(table="nodes.csv", more=["raw", "no such file", "/", ".", "a" * 300, "x\0y"])
    assert names == {"nodes.csv", "edges.csv", "more.csv"}
    (folder / "deep/more.csv").write_text("2")
    assert marks(table="nodes.csv", more=["raw"])[1] != before
    (folder / "deep/more.csv").write_text("1")
    assert marks(table="nodes.csv", more=["raw"])[1] == before
    assert marks(table="other", more=[]) == (set(), [])


# Two splits of one seed in one table


def test_records_of_two_splits_of_a_seed_are_refused_in_a_table(tmp_path):
    """Fault: two runs of one seed were trained on different splits, as where a split depends on the process.

    Provoked: draw_split goes by whether a file is there, which comes between the teacher's job and the student's.
    Promised: no table is made of them; both files and the seed are named.
    """
    own = tmp_path / "own"
    own.mkdir()
    text = (ROOT / "datasets/_template.py").read_text()
    drawing = "torch.randperm(n, generator=random)"
    assert drawing in text
    pair = {
        "teacher": {"model": "gcn", "hidden": 4},
        "student": {"model": "gcn", "hidden": 2},
        "training": {"epochs": 2},
    }
    values = {"seeds": 2, "backends": ["csr"], "methods": {"supervised": {}}, "plugins": [str(own)], "profile": False,
              "results": str(tmp_path / "results"), "datasets": {"mine": {"pairs": {"p": pair}}}}  # fmt: skip
    flag = tmp_path / "flag"
    (own / "mine.py").write_text(
        text.replace(drawing, f"{drawing}.roll(int(__import__('os').path.exists({str(flag)!r})))")
    )
    plan = make_plan(values, [], ROOT)
    (cell,) = plan.cells
    prepare_data(str(plan.paths.root), file=plan.dataset_file("mine"), **plan.data_params("mine"))
    for method in ("teacher", "supervised"):
        params = plan.teacher_params(cell, 0) if method == "teacher" else plan.student_params(cell, method, 0)
        train(results=str(plan.paths.root), shard=0, params=params, sources=plan.run_sources(cell, method),
              execution=plan.config.execution.model_dump(), planned_runs=4)  # fmt: skip
        flag.touch()
    with pytest.raises(RecordError, match=r"supervised.*another split of seed 0 than in .*teachers.*draw_split"):
        collect(plan.expected(), [], plan.methods, *(str(tmp_path / f"a.{end}") for end in ("csv", "parquet", "npz")))


def test_one_split_in_another_order_is_one_split():
    data = data_of("multiclass")
    order = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(0))

    def draw(self, data, random):
        return Split(*(rows[torch.randperm(len(rows), generator=random)] for rows in halves(order)))

    with pytest.raises(DataError, match="the class states a split a seed, and seeds 0 to 2 have one"):
        load_checked(dataset_of(data, draw))


def test_a_metric_that_only_the_data_have_is_refused():
    data = replace(data_of("multiclass"), metric="roc_auc", num_classes=2, y=data_of("multiclass").y.clamp(max=1))
    with pytest.raises(DataError, match="metric: the class states 'accuracy', and load gives 'roc_auc'"):
        load_checked(dataset_of(data, metric=""))
