"""Models of one's own, a file each: what they must hold, where a config may use them, and what is run again."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from distillbench.cli import main
from distillbench.config.config import ConfigError
from distillbench.config.specs import needs_edges, plugin_spec, predicts_graphs, uses_edges
from distillbench.contract.models import CHECKS, check_model
from distillbench.contract.toys import data_of
from distillbench.models.backends import get_backend
from distillbench.models.gnn import GNN, initialise
from distillbench.params import TEACHER
from distillbench.paths import Cell
from distillbench.plan.plan import make_plan
from distillbench.plugins import PluginError, load
from distillbench.report.facts import whole_config
from distillbench.training.inputs import Inputs, teacher_outputs

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "models/_template.py").read_text()
CELL = Cell("digits", "csr", "pair")
TASKS = 'frozenset({"multiclass", "multilabel"})'
CONV = "out = conv(graph, F.dropout(x, self.params.dropout, self.training))"
LAST = "return Output(logits, tuple(hidden), (graph.edge_index,) * len(hidden))"


@pytest.fixture
def written(tmp_path, one_thread):
    """The template in a folder of its own, some of its lines replaced."""

    def write(*changes, name="mine"):
        text = TEMPLATE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / f"{name}.py").write_text(text)
        return tmp_path / "own" / f"{name}.py"

    return write


def config(folder, student=None, teacher=None, **changes):
    pair = {
        "teacher": teacher or {"model": "mine", "hidden": 6},
        "student": student or {"model": "mine", "hidden": 3},
        "training": {"epochs": 3},
    }
    digits = {"pairs": {"pair": pair}}
    return {
        "results": str(folder / "results"), "plugins": [str(folder / "own")], "seeds": 2, "backends": ["csr"],
        "datasets": {"digits": digits}, "methods": {"supervised": {}, "kd": {}}, "profile": False,
    } | changes  # fmt: skip


# What a model must hold


def test_the_template_holds_it_all_on_every_library(written, capsys):
    assert check_model(written())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1 : 1 + len(CHECKS)]] == [["passed", c.__name__] for c in CHECKS]
    for shipped in (ROOT / "models").glob("[!_]*.py"):
        assert check_model(shipped), shipped


@pytest.mark.parametrize(
    "changes, check, said",
    [
        ([(LAST, LAST.replace("tuple(hidden)", "tuple(hidden[:1])"))], "shapes", "hidden_dims says [4, 4] for 56"),
        ([("nn.Linear(sum(params.hidden_dims), d_out)", "nn.Linear(sum(params.hidden_dims), d_out + 1)")], "shapes",
         "logits are [56, 4], must be [56, 3]"),
        ([("logits = self.classifier(torch.cat(activated, dim=1))", "logits = x / 0")], "shapes", "logits are [56, 4]"),
        ([(LAST, LAST.replace("* len(hidden)", ""))], "shapes", "edges of 1 layers for 2 hidden layers"),
        ([(LAST, LAST.replace("graph.edge_index,", "graph.edge_index.flip(1),"))], "edges", "not graph.edge_index"),
        ([(LAST, LAST[:-1] + ", dynamic=True)")], "edges", "states edges = 'graph', and Output says dynamic = True"),
        ([(CONV, CONV + ".detach()")], "gradients", "body.convs.0.weight has no gradient"),
        ([("else out)", "else out.detach())")], "gradients", "hidden[0] has no gradient: a method that"),
        ([(LAST, "return logits, tuple(hidden)")], "shapes", "forward returned a tuple, must be an Output(logits"),
        ([("logits = self.classifier(torch.cat(activated, dim=1))", "logits = self.classifier(torch.cat(activated, "
           "dim=1)).half()")], "shapes", "logits or hidden features are torch.float16, must be torch.float64 as x is"),
        ([("hidden, activated = [], []", "x.clamp_(max=0.2)\n        hidden, activated = [], []")], "shapes",
         "forward writes into its input x"),
        ([("hidden, activated = [], []", "F.dropout(x, 0.5, self.training, inplace=True)\n        hidden, activated = "
           "[], []")], "gradients", "forward writes into its input x"),
        ([("self.classifier = ", "self.scale = nn.Parameter(torch.randn(4))\n        self.classifier = "),
          ("x = F.relu(out)", "x = F.relu(out) * self.scale")], "repeats", "one seed gives two models: body.scale"),
        ([("self.classifier = ", "self.register_buffer('some', torch.rand(4))\n        self.classifier = "),
          ("x = F.relu(out)", "x = F.relu(out) * self.some")], "repeats", "one seed gives two models: body.some"),
        ([("self.classifier = ", "self.saved = None\n        self.classifier = "), ("x = F.relu(out)",
           "x = F.relu(out)\n            self.saved = x.mean() if self.training else self.saved\n"
           "            x = x if self.saved is None else x + self.saved")], "repeats", "state that is no parameter"),
        ([("paper, tasks, tried", 'edges = "none"\n    paper, tasks, tried'), (LAST, LAST.replace("edge_index,",
           "edge_index[:, :0],"))], "edges", "edges = 'none', and its logits are others on a graph with other edges"),
        ([('backend.conv("gcn", before, after)', "nn.Linear(before, after)"), ("conv(graph, ", "conv(")], "edges",
         "edges = 'graph', and its logits are the same on one with other edges"),
        ([("    def forward", "    def edge_flops(self, out, library):\n        return 12.5\n\n    def forward")],
         "operations", "edge_flops gives 12.5, must be an int"),
        ([("    def forward", "    def edge_flops(self, out, library):\n        raise KeyError(library)\n\n    def "
           "forward")], "operations", "line 53: KeyError: 'csr'"),
        ([("self.training))", "True))"), ("dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0",
           "dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5")], "repeats", "two evaluations of one input differ"),
        ([("self.classifier = ", "self.scale = torch.rand(1)\n        self.classifier = "), ("x = F.relu(out)",
           "x = F.relu(out) * self.scale")], "repeats", "state that is no parameter and no buffer"),
        ([("x = F.relu(out)", "x = F.relu(out) * torch.arange(len(out))[:, None]")], "numbering", "logits depend on"),
        ([("x = F.relu(out)", "x = F.relu(out) / out.std()")], "separation", "depend on the graphs beside it"),
        ([('x if self.params.tap == "after" else out', "out")], "taps", "tap is not used"),
        ([("(graph, F.drop", "(graph, (1 + 0.01 * hasattr(graph.native, 'ndata')) * F.drop")], "libraries",
         "logits differ from those with pyg"),
        ([(CONV, "out = conv(graph, x).unknown")], "shapes", "AttributeError: 'Tensor' object has no attribute"),
    ],
)  # fmt: skip
def test_a_model_that_is_wrong_in_one_thing_is_told_which(written, capsys, changes, check, said):
    assert not check_model(written(*changes), [] if check == "libraries" else ["csr"])
    out = capsys.readouterr().out
    failed = [line.split()[1] for line in out.splitlines() if line.startswith("  failed")]
    assert check in failed and said in out
    if check != "repeats":  # whatever is not repeatable fails many others, too
        assert set(failed) <= {check, "libraries", "separation", *(["repeats"] if "input x" in said else [])}


@pytest.mark.parametrize(
    "changes",
    [
        # eps is a parameter like any other, unless it is a library's own
        [("self.classifier = ", "self.eps = nn.Parameter(torch.zeros(1))\n        self.classifier = "),
         ("x = F.relu(out)", "x = F.relu((1 + self.eps) * out)")],
        # an encoder that uses no edges before the layers that do
        [('nn.ModuleList(backend.conv("gcn", before, after) for before, after in widths)',
          "nn.ModuleList(nn.Linear(*w) if n == 0 else backend.conv('gcn', *w) for n, w in enumerate(widths))"),
         ("out = conv(graph, ", "out = (conv if isinstance(conv, nn.Linear) else lambda z: conv(graph, z))("),
         (LAST, LAST.replace("(graph.edge_index,) * len(hidden)", "(graph.edge_index[:, :0], graph.edge_index)"))],
        # no hidden layer at all: features are propagated, then classified
        [("return (self.hidden,) * self.layers", "return ()"), ("sum(params.hidden_dims)", "d_in"),
         ("self.convs = nn.ModuleList(backend.conv(\"gcn\", before, after) for before, after in widths)",
          "self.convs = [0, 1]"),
         (CONV, "out = x.new_zeros(x.shape).index_add(0, graph.edge_index[1], x[graph.edge_index[0]])"),
         ("torch.cat(activated, dim=1)", "x"), ("tuple(hidden), (graph.edge_index,) * len(hidden)", "(), ()"),
         ("x = F.relu(out)", "x = out"), ('        tap: Literal["before", "after"] = "before"\n', ""),
         ('x if self.params.tap == "after" else out', "out")],
    ],
    ids=["eps", "encoder", "no hidden layer"],
)  # fmt: skip
def test_a_model_that_is_right_in_an_unusual_way_is_told_so(written, capsys, changes):
    assert check_model(written(*changes), ["csr"]), capsys.readouterr().out


def test_a_model_of_graphs_is_checked_with_a_readout_that_it_has(written, capsys):
    pooled = "self.classifier(torch.cat(activated, dim=1))"
    of_graphs = f"""{pooled}
        if self.params.readout:
            logits = logits.new_zeros(graph.num_graphs, logits.shape[1]).index_add(0, graph.graph_of_node, logits)"""
    changes = [
        (TASKS, 'frozenset({"multiclass", "graph-multiclass"})'), (pooled, of_graphs),
        ('        tap: Literal', '        readout: Literal["sum"] | None = None\n        tap: Literal'),
    ]  # fmt: skip
    assert check_model(written(*changes), ["csr"]), capsys.readouterr().out


@pytest.mark.parametrize("name", ["gcn", "_mine", "my model", "modèle"])
def test_a_name_that_no_config_can_have_is_refused(written, capsys, name):
    assert not check_model(written(name=name))
    assert "give the file another name" in (err := capsys.readouterr().err) or "not a plug-in's name" in err


def test_a_model_of_one_library_is_checked_with_that_alone(written, capsys):
    only = ("paper, tasks, tried_with", 'libraries = frozenset({"csr"})\n    paper, tasks, tried_with')
    assert check_model(written(only))
    assert capsys.readouterr().out.splitlines()[0].endswith("; csr")
    assert not check_model(written(only), ["pyg"])


@pytest.mark.parametrize(
    "changes, said",
    [
        ([(', {"hidden": 4}\n', ", {}\n")], "tried_with.hidden: Field required"),
        ([("hidden_dims(self)", "widths(self)")], "class JumpingKnowledge: Params has no property hidden_dims"),
        ([("paper, tasks, tried_with =", "_, tasks, tried_with =")], "does not state paper"),
    ],
)
def test_a_declaration_that_lacks_something_is_told_what(written, capsys, changes, said):
    assert not check_model(written(*changes))
    assert said in capsys.readouterr().err


# Where it may be used


def test_a_models_options_are_those_of_its_file(written, tmp_path):
    written()
    plan = make_plan(config(tmp_path), ["my.yaml"], ROOT)
    params = plan.student_params(CELL, "kd", 0)
    assert params["model"] == {"model": "mine", "hidden": 3, "layers": 2, "dropout": 0.0, "tap": "before"}
    assert Path(params["model_files"]["mine"]).name == "mine.py"
    again = make_plan(yaml.safe_load(yaml.safe_dump(whole_config(plan))), [], ROOT)
    assert again.student_params(CELL, "kd", 0) == params
    built_in = {"model": "gcn", "hidden": 3}
    plan = make_plan(config(tmp_path, built_in, built_in), [], ROOT)
    assert "model_files" not in plan.student_params(CELL, "kd", 0)


@pytest.mark.parametrize(
    "student, said",
    [
        ({"model": "mein", "hidden": 3}, "pair.student.model: 'mein': unknown model 'mein': did you mean 'mine'?"),
        ({"model": "qqqq"}, "unknown model 'qqqq': choose from gat, gcn, sage, gin, mlp, dgcnn, mine"),
        ({"model": "mine"}, "datasets.digits.pairs.pair.student.hidden: Field required"),
        ({"model": "mine", "hidden": 0}, "pair.student.hidden: 0: Input should be greater than 0"),
        ({"model": "mine", "hidden": 3, "layer": 2}, "pair.student: unknown key 'layer': did you mean 'layers'?"),
        ({"model": "mine", "hidden": 3, "tap": "befor"}, "student.tap: unknown value 'befor': did you mean 'before'?"),
        ({"model": "../mine", "hidden": 3}, "unknown model '../mine'"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named_with_its_place(written, tmp_path, student, said):
    written()
    with pytest.raises(ConfigError) as refused:
        make_plan(config(tmp_path, student), ["my.yaml"], ROOT)
    assert said in str(refused.value) and "my.yaml" in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(written, tmp_path):
    file = written()
    file.write_text("class Mine(Model:")
    with pytest.raises(ConfigError, match=r"pair\.student: .*mine\.py: .*(never closed|invalid syntax)"):
        make_plan(config(tmp_path), [], ROOT)


def test_a_model_is_refused_for_another_task_another_library_and_where_there_are_no_edges(written, tmp_path):
    written((TASKS, 'frozenset({"multilabel"})'))
    with pytest.raises(ConfigError, match=r"'mine' is for multilabel, the task is multiclass \(.*mine\.py\)"):
        make_plan(config(tmp_path), [], ROOT)
    written(("paper, tasks, tried", 'libraries = frozenset({"pyg"})\n    paper, tasks, tried'))
    with pytest.raises(ConfigError, match=r"'mine' runs with pyg, not with csr: backends: \[pyg\]"):
        make_plan(config(tmp_path), [], ROOT)
    written((TASKS, 'frozenset({"graph-multiclass"})'))
    values = config(tmp_path)
    values["datasets"] = {"mnist5k": {"pairs": values["datasets"]["digits"]["pairs"]}}
    with pytest.raises(ConfigError, match="'mine' needs edges, and the data set has none"):
        make_plan(values, [], ROOT)


@pytest.mark.parametrize("stated, uses, needs", [("none", False, False), ("drawn", True, False), ("graph", True, True)])
def test_what_a_model_says_of_edges(written, stated, uses, needs):
    file = written(("paper, tasks, tried", f'edges = "{stated}"\n    paper, tasks, tried'))
    spec = plugin_spec("mine", file).model_validate({"model": "mine", "hidden": 2})
    assert (uses_edges(spec), needs_edges(spec), predicts_graphs(spec)) == (uses, needs, False)


def test_a_method_that_needs_edges_does_not_apply_to_a_teacher_without(written, tmp_path):
    written(("paper, tasks, tried", 'edges = "none"\n    paper, tasks, tried'))
    values = config(tmp_path, {"model": "gcn", "hidden": 3}, methods={"supervised": {}, "kd": {}, "lsp": {}})
    values["datasets"]["digits"]["pairs"]["other"] = {"teacher": {"model": "gcn", "hidden": 4},
                                                      "student": {"model": "gcn", "hidden": 3}}  # fmt: skip
    plan = make_plan(values, [], ROOT)
    assert plan.methods_of(CELL) == ["supervised", "kd"]


# What is run, and run again


def test_runs_of_ones_own_models_end_in_the_table(written, tmp_path, monkeypatch, capsys):
    written()
    written(name="other")
    monkeypatch.chdir(tmp_path)
    values = config(tmp_path, {"model": "other", "hidden": 3}, {"model": "mine", "hidden": 6, "dropout": 0.1})
    Path("my.yaml").write_text(yaml.safe_dump(values))
    assert main(["run", "my.yaml", "--no-snakemake", "--cores", "1"]) == 0
    assert "| kd | " in capsys.readouterr().out
    record = json.loads((tmp_path / "results/runs/digits/csr/pair/kd/seed-0.json").read_text())
    model = record.get("record", record)["hyperparameters"]["model"]
    assert model == {"model": "other", "hidden": 3, "layers": 2, "dropout": 0.0, "tap": "before"}


def test_two_models_that_change_places_are_other_models(written, tmp_path):
    """Fault: two files of models are exchanged, so that together they have the same contents as before.

    Provoked: the files of a teacher and of a student are exchanged, and so are two neighbours of one model.
    Promised: what was run with them is known to be of other code.
    """
    first, second = written(name="mine"), written(("+ b", "+ c"), name="other")
    values = config(tmp_path, {"model": "other", "hidden": 3})
    before = make_plan(values, [], ROOT).code_digest(CELL, "kd")
    one, two = first.read_text(), second.read_text()
    first.write_text(two)
    second.write_text(one)
    assert make_plan(values, [], ROOT).code_digest(CELL, "kd") != before


def test_edges_that_a_model_draws_in_any_order_are_cut_by_graph(written):
    drawing = "torch.cat([graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]], loops], dim=1)"
    changes = [
        ("paper, tasks, tried", 'edges = "drawn"\n    paper, tasks, tried'),
        (LAST, f"loops = torch.arange(len(x)).expand(2, -1)\n        drawn = {drawing}\n"
               "        return Output(logits, tuple(hidden), (drawn,) * len(hidden), dynamic=True)"),
    ]  # fmt: skip
    spec = plugin_spec("mine", written(*changes)).model_validate({"model": "mine", "hidden": 3})
    data, library = data_of("multilabel"), get_backend("csr")
    model = GNN(spec, library, data.x.shape[1], data.num_classes)
    initialise(model, 0, "teacher")
    inputs = Inputs(data, library, torch.device("cpu"), batch_size=3)
    stored = teacher_outputs(model, inputs, torch.arange(data.num_graphs))
    (batch,) = inputs.ordered(torch.tensor([4, 1]))
    found, _ = stored.of(batch)
    expected = model(batch.graph, batch.x)
    for ours, theirs in zip(found.edge_index, expected.edge_index, strict=True):
        assert sorted(ours.T.tolist()) == sorted(theirs.T.tolist())


def test_an_output_that_is_wrong_ends_the_run_with_the_file_named(written, tmp_path):
    file = written((LAST, LAST.replace("tuple(hidden)", "tuple(hidden[:1])")))
    spec = plugin_spec("mine", file).model_validate({"model": "mine", "hidden": 3})
    data, library = data_of("multiclass"), get_backend("csr")
    (batch,) = Inputs(data, library, torch.device("cpu"), batch_size=1).ordered(torch.tensor([0]))
    with pytest.raises(PluginError, match=r"mine\.py: hidden features are .*hidden_dims says \[3, 3\]"):
        GNN(spec, library, data.x.shape[1], data.num_classes)(batch.graph, batch.x)


def test_a_folder_that_is_named_twice_is_one_folder(written, tmp_path, monkeypatch):
    written()
    monkeypatch.chdir(tmp_path)
    plan = make_plan(config(tmp_path, plugins=["own", "./own", str(tmp_path / "own")]), [], ROOT)
    assert plan.pair(CELL).student.model == "mine"


def test_a_model_that_is_looked_for_in_no_folder_says_so(written, tmp_path):
    written()
    for given in ("nowhere", str(tmp_path / "own/mine.py")):
        with pytest.raises(ConfigError, match=rf"(?s)unknown model 'mine'.*plugins: '{given}': .* is no folder"):
            make_plan(config(tmp_path, plugins=[given]), [], ROOT)


def test_a_file_with_the_name_of_a_built_in_model_is_refused(written, tmp_path):
    written(name="gcn")
    with pytest.raises(ConfigError, match=r"gcn\.py: 'gcn' is a model that is built in; give the file another name"):
        make_plan(config(tmp_path, {"model": "gcn", "hidden": 3}, {"model": "gat", "hidden": 4}), [], ROOT)


@pytest.mark.parametrize(
    "stated, said",
    [
        ('tasks = "multiclass"', "tasks = 'multiclass': must be a set, such as tasks = frozenset({"),
        ("tasks = frozenset()", "tasks = frozenset(): must be a set"),
        ('tasks = frozenset({"multiclas"})', "tasks: there is no 'multiclas': did you mean 'multiclass'?"),
        ('libraries = frozenset({"PyG"})', "libraries: there is no 'PyG': did you mean 'pyg'?"),
        ('libraries = ["pyg"]', "libraries = ['pyg']: must be a set"),
        ('edges = "Graph"', "edges = 'Graph': did you mean 'graph'?"),
        ('tried_with = ["hidden"]', "tried_with = ['hidden']: must be a dict of options"),
    ],
)
def test_what_a_class_states_wrongly_is_said_before_anything_runs(written, tmp_path, capsys, stated, said):
    file = written(("    class Params(Parameters):", f"    {stated}\n\n    class Params(Parameters):"))
    assert not check_model(file)
    assert said in capsys.readouterr().err
    with pytest.raises(ConfigError) as refused:
        make_plan(config(tmp_path), [], ROOT)
    assert said in str(refused.value) and "mine.py" in str(refused.value)


def test_editing_a_model_runs_again_what_was_run_with_it(written, tmp_path):
    written()
    written(name="other")
    helper = tmp_path / "own/_shared.py"
    helper.write_text("WIDTH = 1\n")
    written(("import itertools\n", "import itertools\n\nfrom ._shared import WIDTH\n"), name="other")
    values = config(tmp_path, {"model": "other", "hidden": 3})
    values["datasets"]["digits"]["pairs"]["builtin"] = {
        "teacher": {"model": "gcn", "hidden": 4}, "student": {"model": "gcn", "hidden": 2}}  # fmt: skip
    cells = (CELL, CELL._replace(pair="builtin"))

    def digests():
        plan = make_plan(values, [], ROOT)
        return {
            (cell.pair, role): plan.code_digest(cell, role) for cell in cells for role in (TEACHER, "kd", "supervised")
        }

    def changed(file):
        before = digests()
        file.write_text(file.read_text() + "# edited\n")
        return {run for run, digest in digests().items() if digest != before[run]}

    assert changed(tmp_path / "own/mine.py") == {("pair", TEACHER), ("pair", "kd")}  # supervised has no teacher
    assert changed(tmp_path / "own/other.py") == changed(helper) == {("pair", "kd"), ("pair", "supervised")}
    profiled = {Path(file).name for file in make_plan(values, [], ROOT).profile_sources(CELL)}
    assert profiled >= {"mine.py", "other.py", "_shared.py"}


# The command


def test_a_model_begun_from_the_template_is_listed_checked_and_found(tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "model", "mine"]) == 0
    Path("models/something_else.py").write_text("print('of another project')\n")
    assert main(["list", "models"]) == 0
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "mine" in lines and "gat" in lines and "something_else" not in lines
    assert main(["check", "models/mine.py", "--backend", "csr"]) == 0
    assert "passed   numbering" in capsys.readouterr().out
    assert make_plan(config(tmp_path, plugins=[]), [], ROOT).pair(CELL).student.model == "mine"
    for taken in ("mine", "gcn"):
        assert main(["new", "model", taken]) == 2
    assert "there is such a model" in capsys.readouterr().err


def test_a_file_with_two_models_or_none_is_refused(written):
    file = written()
    file.write_text(TEMPLATE + TEMPLATE.partition('"""\n\n')[2].replace("JumpingKnowledge", "Another"))
    for read in (lambda: load("model", file), lambda: plugin_spec("mine", file)):
        with pytest.raises(PluginError, match=r"defines 2 subclasses of Model, must be one"):
            read()
