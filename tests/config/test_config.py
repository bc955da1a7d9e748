"""Bad input gets an error that names the key, the value, the nearest valid one and the file."""

import copy
import os
import re
from pathlib import Path

import pytest
import yaml

from distillbench.config.config import ConfigError
from distillbench.paths import Cell
from distillbench.plan.figures import figure_files
from distillbench.plan.plan import make_plan

ROOT = Path(__file__).parents[2]
VALID = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())


def plan(values, root=ROOT):
    return make_plan(values, ["config/mine.yaml"], root)


def changed(*path, value):
    """The smoke config with one value set."""
    values = copy.deepcopy(VALID)
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return values


@pytest.mark.parametrize("file", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_config_we_ship_is_valid(file):
    values = yaml.safe_load(file.read_text())
    assert make_plan(values, [file], ROOT).cells


PAIR = ("datasets", "digits", "pairs", "gat")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (changed("sedes", value=3), ["unknown key 'sedes'", "did you mean 'seeds'?"]),
        (changed("seeds", value=0), ["seeds: 0", "greater than 0"]),
        (changed("seeds", value="many"), ["seeds: 'many'"]),
        (changed("backends", value=["pgy"]), ["backends.0", "'pgy'", "did you mean 'pyg'?"]),
        (changed("backends", value=[]), ["backends"]),
        (changed("methods", value={"supervised": None, "lps": None}), ["methods.lps", "did you mean 'lsp'?"]),
        (changed("methods", "kd", value={"temprature": 3}), ["methods.kd", "did you mean 'temperature'?"]),
        (changed("methods", "kd", value={"temperature": -3}), ["methods.kd.temperature: -3", "greater than 0"]),
        (changed("methods", "kd", value={"kernel": 1}), ["methods.kd", "choose from alpha, temperature"]),
        (changed("methods", "lsp", value={"kernel": "rfb"}), ["methods.lsp.kernel", "'rfb'", "'rbf'"]),
        (changed("methods", "lsp", value={"layers": [[0, 5]]}), ["methods.lsp.layers", "teacher layer 5", "1 hidden"]),
        (changed("methods", "teacher", value={"method": "kd"}), ["methods.teacher", "taken"]),
        (changed("methods", "../kd", value={"method": "kd"}), ["methods.../kd", "pattern"]),
        (changed("datasets", "digist", value={"pairs": VALID["datasets"]["digits"]["pairs"]}), ["'digits'?"]),
        (changed("datasets", "digits", "params", value={"neighbors": 3}), ["datasets.digits", "'neighbours'?"]),
        (changed(*PAIR, "teacher", "model", value="gatt"), ["unknown model 'gatt'", "did you mean 'gat'?"]),
        (changed(*PAIR, "teacher", "hiden", value=3), ["pairs.gat.teacher", "did you mean 'hidden'?"]),
        (changed(*PAIR, "teacher", "heads", value=[1, 2, 3]), ["3 entries for 2 layers"]),
        (changed(*PAIR, "training", "lr", value=1.0), ["pairs.gat.training", "unknown key 'lr'"]),
        (changed("compare", value={"baseline": "suprevised"}), ["compare.baseline", "did you mean 'supervised'?"]),
    ],
)
def test_the_error_names_file_key_value_and_nearest(values, expected):
    with pytest.raises(ConfigError) as error:
        plan(values)
    message = str(error.value)
    assert message.startswith("config/mine.yaml:")
    for part in expected:
        assert part in message


@pytest.mark.parametrize("name", ["libraries", "across", "pareto-digits"])
def test_a_data_set_is_not_called_like_another_figure(name):
    digits = VALID["datasets"]["digits"]
    values = changed("datasets", value={"digits": digits, name: {"dataset": "digits", **digits}})
    with pytest.raises(
        ConfigError, match=rf"datasets\.{name}: the name is taken by a figure.*'{name}-1: \{{dataset: digits"
    ):
        plan(values)
    alone = changed("datasets", value={"pareto-mine": {"dataset": "digits", **digits}})
    assert figure_files(plan(alone))


def test_every_problem_is_reported_at_once():
    values = changed("methods", value={"supervised": None, "lps": None, "fitnt": None})
    with pytest.raises(ConfigError, match=r"(?s)'lsp'.*'fitnet'"):
        plan(values)


def plugin_for(folder, name, declares):
    (folder / f"{name}.py").write_text(
        "from distillbench.plugin import ALL_TASKS, NODE_CLASSES, SINGLE_LABEL_TASKS, Method\n"
        f"class Single(Method):\n    paper, {declares}\n"
    )
    return str(folder)


def test_a_method_is_left_out_where_it_does_not_apply_and_the_tables_say_so(tmp_path):
    folder = plugin_for(tmp_path, "single", "tasks, requires = 'x', SINGLE_LABEL_TASKS, frozenset()")
    values = changed("plugins", value=[folder])
    values["methods"]["single"] = None
    planned = plan(values)
    assert {cell.dataset for cell in planned.cells if "single" in planned.methods_of(cell)} == {"digits"}
    (remark,) = planned.remarks()
    assert remark.startswith("synthetic, gat: not run: single (does not apply to multilabel tasks")
    assert planned.runs == sum(len(entry["seeds"]) for entry in planned.expected().values())


def test_a_pair_that_names_a_method_which_does_not_apply_is_refused(tmp_path):
    folder = plugin_for(tmp_path, "single", "tasks, requires = 'x', SINGLE_LABEL_TASKS, frozenset()")
    values = changed("plugins", value=[folder])
    values["methods"]["single"] = None
    values["datasets"]["synthetic"]["pairs"]["gat"]["methods"] = ["supervised", "single"]
    with pytest.raises(
        ConfigError, match=r"synthetic.pairs.gat: method 'single' does not apply to multilabel"
    ) as error:
        plan(values)
    assert "single.py" in str(error.value)
    assert "datasets.digits" not in str(error.value)


@pytest.mark.parametrize(
    "declares, reason",
    [
        ("tasks, requires = 'x', frozenset({'graph-multiclass'}), frozenset()", "does not apply to multilabel tasks"),
        ("tasks, requires, mlp_only = 'x', ALL_TASKS, frozenset(), True", "is for students without a graph"),
        ("tasks, requires = 'x', ALL_TASKS, frozenset({'teachers'})", "needs further teachers"),
    ],
)
def test_a_method_that_applies_to_no_pair_is_refused(tmp_path, declares, reason):
    values = changed("plugins", value=[plugin_for(tmp_path, "lonely", declares)])
    values["methods"]["lonely"] = None
    with pytest.raises(ConfigError, match=rf"method 'lonely' {reason}"):
        plan(values)


def test_a_baseline_that_does_not_apply_is_refused(tmp_path):
    folder = plugin_for(tmp_path, "single", "tasks, requires = 'x', SINGLE_LABEL_TASKS, frozenset()")
    values = changed("plugins", value=[folder])
    values["methods"]["single"] = None
    values["compare"] = {"baseline": "single"}
    with pytest.raises(ConfigError, match=r"synthetic.pairs.gat: method 'single' does not apply"):
        plan(values)


def test_a_method_that_needs_the_teachers_edges_is_left_out_for_an_mlp_teacher():
    values = changed(*PAIR, "teacher", value={"model": "mlp", "hidden": 8})
    planned = plan(values)
    assert "lsp" not in planned.methods_of(next(cell for cell in planned.cells if cell.dataset == "digits"))
    assert any("needs the teacher's edges" in remark for remark in planned.remarks())


# combinations, further teachers, settings


def combined(entry, name="lsp+kd"):
    values = copy.deepcopy(VALID)
    values["methods"][name] = entry
    return values


def test_a_combination_has_the_parameters_and_files_of_its_parts():
    planned = plan(combined({"lsp": {"kernel": "cosine"}, "kd": {"alpha": 0.3}}))
    cell = next(cell for cell in planned.cells if cell.dataset == "digits")
    about = planned.student_params(cell, "lsp+kd", 0)["method"]
    assert {Path(file).name for file in about["files"].values()} == {"lsp.py", "kd.py"}
    assert about["params"]["lsp"]["kernel"] == "cosine" and about["params"]["kd"]["alpha"] == 0.3
    assert about["params"]["kd"]["temperature"] == planned.variant("kd").params()["temperature"]
    assert about["requires"] == ["edges", "hidden", "logits"]
    sources = planned.student_sources(Cell("digits", "pyg", "gat"), "lsp+kd")
    assert {Path(file).name for file in sources} >= {"lsp.py", "kd.py"}


def test_a_part_of_a_combination_may_be_a_variant_of_the_config():
    values = combined(None, "lsp-cosine+kd")
    values["methods"]["lsp-cosine"] = {"method": "lsp", "kernel": "cosine"}
    assert plan(values).variant("lsp-cosine+kd").params()["lsp-cosine"]["kernel"] == "cosine"


@pytest.mark.parametrize(
    "name, entry, message",
    [
        ("lsp+kd", {"lsq": {}}, r"methods.lsp\+kd: unknown key 'lsq': did you mean 'lsp'\?"),
        ("lsp+kd", {"kd": {"alfa": 1}}, r"methods.lsp\+kd.kd: unknown key 'alfa': did you mean 'alpha'\?"),
        ("lsp+kd", {"kd": {"alpha": 7}}, r"methods.lsp\+kd.kd.alpha: 7: "),
        ("lsp+kd", {"kd": 0.5}, r"methods.lsp\+kd: kd: 0.5: must be that method's hyper-parameters"),
        ("lsp+kdd", None, r"methods.lsp\+kdd: unknown method 'kdd': did you mean 'kd'\?"),
        ("kd+kd", None, r"methods.kd\+kd: 'kd\+kd': methods joined by '\+', each once"),
    ],
)
def test_a_combination_that_is_misspelt_is_refused(name, entry, message):
    with pytest.raises(ConfigError, match=message):
        plan(combined(entry, name))


def test_further_teachers_are_trained_for_the_methods_that_need_them_only(tmp_path):
    folder = plugin_for(tmp_path, "several", "tasks, requires = 'x', ALL_TASKS, frozenset({'hidden', 'teachers'})")
    values = changed(*PAIR, "teachers", value={"deep": {"model": "gat", "hidden": 4, "layers": 3}})
    assert plan(values).further_teachers() == []
    values["plugins"] = [folder]
    values["methods"]["several"] = None
    planned = plan(values)
    cell = next(cell for cell in planned.cells if cell.dataset == "digits")
    deep = cell._replace(pair="gat@deep")
    assert planned.teachers_of(cell, "several") == [cell, deep]
    assert planned.teachers_of(cell, "kd") == [cell]
    assert {each.pair for each in planned.further_teachers()} == {"gat@deep"}
    assert planned.teacher_params(deep, 0)["model"]["layers"] == 3
    assert planned.teacher_params(deep, 0)["training"] == planned.teacher_params(cell, 0)["training"]
    assert any("several (needs further teachers" in remark for remark in planned.remarks())  # on the other pair


def test_a_further_teacher_that_does_not_fit_the_task_is_refused():
    values = changed(*PAIR, "teachers", value={"deep": {"model": "dgcnn", "widths": [4], "embedding": 4}})
    with pytest.raises(ConfigError, match=r"digits.pairs.gat.teachers.deep: 'dgcnn' predicts graphs"):
        plan(values)


def test_the_production_setting_is_for_transductive_data():
    with pytest.raises(ConfigError, match=r"synthetic.pairs.gat: the production setting is for transductive data sets"):
        plan(changed("protocol", value={"setting": "production"}))


def test_the_two_settings_never_share_a_table():
    values = changed(*PAIR, "protocol", value={"setting": "production"})
    with pytest.raises(ConfigError, match=r"the two settings never share a table"):
        plan(values)
    del values["datasets"]["synthetic"]
    assert "setting: production" in plan(values).remarks()[0]


# Splits: published or random ones


def of_cora(**entry):
    pairs = copy.deepcopy(VALID["datasets"]["digits"]["pairs"])
    return {**copy.deepcopy(VALID), "datasets": {"cora": {"pairs": pairs, **entry}}}


def test_the_protocols_splits_are_the_default_of_data_sets_that_have_both():
    for protocol, params, expected in (
        ({}, {}, "published"),
        ({"splits": "random"}, {}, "random"),
        ({"splits": "random"}, {"splits": "published"}, "published"),
        ({"splits": "published"}, {"splits": "random"}, "random"),
    ):
        planned = plan({**of_cora(params=params), "protocol": protocol})
        cell = planned.cells[0]
        assert planned.data_params("cora")["params"]["splits"] == expected
        for run in (planned.teacher_params(cell, 0), planned.student_params(cell, "kd", 0)):
            assert run["dataset_params"]["splits"] == expected  # part of the key
            assert "splits" not in run["protocol"]
        assert not any("departs" in remark for remark in planned.remarks())


def test_splits_of_a_pair_are_refused_as_a_seed_has_one_split_for_all_pairs():
    values = of_cora()
    values["datasets"]["cora"]["pairs"]["gat"]["protocol"] = {"splits": "random"}
    with pytest.raises(ConfigError, match=r"cora.pairs.gat.protocol.splits: 'random': .*datasets.cora.params"):
        plan(values)


@pytest.mark.parametrize("asked, has, dataset", [("published", "random", "digits"), ("random", "published", "ppi")])
def test_splits_that_a_data_set_does_not_have_are_refused(asked, has, dataset):
    values = changed("protocol", value={"splits": asked})
    values["datasets"] = {dataset: values["datasets"]["digits"] | {"params": {}}}
    with pytest.raises(ConfigError, match=rf"protocol.splits: '{asked}': data set '{dataset}' has {has} ones only"):
        plan(values)


def test_a_model_that_does_not_fit_the_task_is_refused():
    values = changed(*PAIR, "student", value={"model": "dgcnn", "widths": [4], "embedding": 4})
    with pytest.raises(ConfigError, match=r"digits.pairs.gat.student: 'dgcnn' predicts graphs, the task is multiclass"):
        plan(values)


DGCNN = {"model": "dgcnn", "widths": [4], "embedding": 4, "k": 6}


@pytest.mark.parametrize(
    ("params", "training", "expected"),
    [
        ({"points": 5}, {}, "pairs.p.teacher.k: 6 neighbours asked for, but a cloud has 5 points"),
        ({}, {"batch_size": 1}, "pairs.p.student: dgcnn has batch norms over graphs, which need a batch_size of 2"),
    ],
)
def test_a_dgcnn_that_cannot_train_is_refused(params, training, expected):
    pair = {"teacher": DGCNN, "student": DGCNN, "training": training}
    with pytest.raises(ConfigError, match=expected):
        plan(changed("datasets", "mnist5k", value={"params": params, "pairs": {"p": pair}}))


def test_a_tilde_is_the_users_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "more").mkdir()
    found = plan({**changed("results", value="~/mine"), "plugins": ["~/more"], "export": "~/copies"})
    assert str(found.paths.root) == str(tmp_path / "mine")
    assert (found.config.plugins, found.config.export) == ((str(tmp_path / "more"),), str(tmp_path / "copies"))


def test_a_results_folder_that_cannot_be_written_is_refused(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    tmp_path.chmod(0o755)
    values = changed("results", value=str(folder / "smoke"))
    plan(values)
    folder.chmod(0o555)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # another user than root, whom no permission stops
        for parent in (tmp_path.parent, *tmp_path.parent.parents):
            if parent.stat().st_uid == os.getuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o055)
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            plan(values)
            message = "accepted"
        except ConfigError as error:
            message = str(error)
        os.write(writer, message.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    message = os.read(reader, 10_000).decode()
    assert "config/mine.yaml" in message
    assert f"{folder} cannot be written to" in message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (changed("backends", value=["pyg", "pyg"]), "pyg is there more than once"),
        (changed("seeds", value=True), "seeds: True"),
        (changed("results", value=""), "results: ''"),
        (changed("methods", "lsp", value={"layers": []}), "methods.lsp.layers"),
        (changed("methods", "kd", value={"temperature": float("inf")}), "methods.kd.temperature: inf"),
        (changed("methods", value={"supervised": None, "LSP": None}), "did you mean 'lsp'?"),
    ],
)
def test_what_would_only_fail_later_is_refused_now(values, expected):
    with pytest.raises(ConfigError) as error:
        plan(values)
    assert expected in str(error.value)


def test_a_plugin_with_the_name_of_another_is_refused(tmp_path):
    (tmp_path / "kd.py").write_text((ROOT / "methods/kd.py").read_text())
    with pytest.raises(ConfigError, match=r"method 'kd' is ambiguous: .*methods/kd\.py, .*/kd\.py"):
        plan(changed("plugins", value=[str(tmp_path)]))


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("methods", ["supervised", "lps"], "pairs.gat.methods: unknown method 'lps': did you mean 'lsp'?"),
        ("methods", ["lsp"], "pairs.gat.methods: the baseline 'supervised' is not among them"),
        ("layers", [[3, 0]], "pairs.gat: layers: student layer 3: the student has 1 hidden layers"),
        ("protocol", "offical", "pairs.gat.protocol: 'offical': unknown protocol: did you mean 'official'?"),
        ("protocol", {"selection": "best"}, "pairs.gat.protocol.selection: unknown value 'best'"),
        ("published", {"teacher": "gat-3l", "student": "gat-5l"}, "pairs.gat.published: "),
    ],
)
def test_a_pairs_own_settings_are_checked(key, value, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        make_plan(changed(*PAIR, key, value=value), [], ROOT)


def test_a_pair_beside_published_results_that_do_not_exist_is_refused():
    paper = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    pair = paper["datasets"]["ppi"]["pairs"]["yang-5l"]
    pair["published"]["student"] = "gat-5"
    pair["published"]["methods"] = {"lps": "lsp"}
    with pytest.raises(ConfigError) as refused:
        make_plan(paper, ["config/paper.yaml"], ROOT)
    assert "gat-5l" in str(refused.value)
    assert "datasets.ppi.pairs.yang-5l.published.methods: unknown method 'lps'" in str(refused.value)
