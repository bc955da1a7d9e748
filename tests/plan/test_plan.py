"""What the plan promises the DAG."""

import copy
import subprocess
import sys
from pathlib import Path

import yaml

from distillbench.config.config import OFFICIAL, Protocol
from distillbench.paths import Cell
from distillbench.plan import grid
from distillbench.plan.plan import make_plan

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def planned(**changes):
    return make_plan({**copy.deepcopy(VALUES), **changes}, ["config.yaml"], ROOT)


def test_planning_imports_no_torch():
    code = (
        "import sys, yaml; from pathlib import Path; from distillbench.plan.plan import make_plan;"
        f"root = Path({str(ROOT)!r}); values = yaml.safe_load((root / 'config/config.yaml').read_text());"
        "make_plan(values, [], root).shard_files(); print('torch' in sys.modules, 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_shards_cover_the_seeds_and_keep_theirs_when_more_are_asked_for():
    few, more = planned(seeds=7), planned(seeds=12)
    for plan in (few, more):
        assert [s for shard in plan.shards for s in plan.seeds(shard)] == list(range(plan.config.seeds))
    assert few.seeds(0) == more.seeds(0)
    assert set(few.seeds(1)) < set(more.seeds(1))


def test_the_seeds_of_a_large_grid_are_not_divided_unless_the_config_says_so():
    entry = VALUES["datasets"]["digits"]
    large = {f"digits-{i}": {"dataset": "digits", **entry} for i in range(90)}  # x 2 libraries x 6 models
    assert planned(seeds=12).shards == [0, 1, 2]
    assert planned(seeds=12, datasets=large).shards == [0]
    assert planned(seeds=12, datasets=large, execution={"seeds_per_job": 4}).shards == [0, 1, 2]


def test_a_changed_hyperparameter_changes_the_params_of_that_variant_only():
    cell = Cell("digits", "pyg", "gat")
    before = planned()
    after = planned(methods={**VALUES["methods"], "kd": {"temperature": 7}})
    for method in before.methods:
        same = before.student_params(cell, method, 0) == after.student_params(cell, method, 0)
        assert same == (method != "kd")
    assert before.teacher_params(cell, 0) == after.teacher_params(cell, 0)


def test_a_methods_own_file_is_an_input_of_its_runs_only():
    plan = planned()
    sources = {method: set(plan.student_sources(Cell("digits", "pyg", "gat"), method)) for method in plan.methods}
    for method, files in sources.items():
        assert {Path(file).stem for file in files if Path(file).parent.name == "methods"} == {method}
    assert any(file.endswith("backends/pyg.py") for file in sources["at"])
    assert not any(file.endswith("backends/dgl.py") for file in sources["at"])
    assert all(Path(file).is_file() for files in sources.values() for file in files)


def test_a_files_content_decides_whether_jobs_are_run_again(tmp_path):
    file = tmp_path / "train.py"
    file.write_text("step = 1")
    before = planned().contents([str(file)])
    file.touch()
    assert planned().contents([str(file)]) == before
    file.write_text("step = 2")
    assert planned().contents([str(file)]) != before
    assert before.keys() == {str(file)}


def test_the_files_of_records_are_those_that_are_expected():
    plan = planned()
    assert plan.shard_files() == list(plan.expected())


def test_two_variants_of_one_method_have_their_own_folders_and_params():
    plan = planned(methods={"supervised": None, "lsp": None, "lsp-cosine": {"method": "lsp", "kernel": "cosine"}})
    cell = Cell("digits", "pyg", "gat")
    assert list(plan.method_files("lsp-cosine").values()) == list(plan.method_files("lsp").values())
    assert plan.student_params(cell, "lsp-cosine", 0)["method"]["params"]["kernel"] == "cosine"
    assert plan.paths.shard(cell, "lsp-cosine", 0) != plan.paths.shard(cell, "lsp", 0)


def test_a_missing_library_leaves_its_cells_out_and_says_why(monkeypatch):
    monkeypatch.setattr(grid, "missing_reason", lambda name: "dgl is not installed" if name == "dgl" else None)
    plan = planned()
    assert {cell.backend for cell in plan.cells} == {"pyg"}
    skipped = plan.skipped()
    assert len(skipped) == 2 * (1 + len(plan.methods)) * plan.config.seeds
    assert {row["reason"] for row in skipped} == {"dgl is not installed"}
    assert {(row["dataset"], row["metric"]) for row in skipped} == {("digits", "accuracy"), ("mnist5k", "accuracy")}


def test_the_control_does_not_wait_for_a_teacher():
    plan = planned()
    (cell,) = {cell for cell in plan.cells if cell[:2] == ("digits", "pyg")}
    assert plan.teachers_of(cell, "supervised") == []
    assert all(plan.teachers_of(cell, method) == [cell] for method in ("kd", "fitnet", "at", "lsp"))


def test_the_tables_say_whose_student_is_more_than_the_one_profiled():
    (remark,) = (text for text in paper_plan("standard").remarks() if "profiles" in text)
    assert "without what these methods add: nosmog, cpf" in remark


def test_the_document_says_how_many_runs_the_standard_comparison_has():
    assert f": {paper_plan('standard').runs:,} runs" in (ROOT / "docs/standard.md").read_text()


def test_the_part_of_the_standard_comparison_is_a_part_of_it():
    whole, part = paper_plan("standard"), paper_plan("standard-cora")
    assert part.cells == [
        Cell(dataset, library, pair)
        for dataset in ("cora", "cora-random")
        for library in ("pyg", "dgl")
        for pair in ("gcn", "sage-mlp")
    ]
    assert [len(part.methods_of(cell)) for cell in part.cells] == 4 * [17, 21]
    assert [part.dataset_params(dataset).splits for dataset in part.config.datasets] == ["published", "random"]
    for cell in part.cells:
        assert part.teacher_params(cell, 0) == whole.teacher_params(cell, 0)
        for method in part.methods_of(cell):
            assert part.student_params(cell, method, 0) == whole.student_params(cell, method, 0), method


def paper_plan(file="paper"):
    return make_plan(yaml.safe_load((ROOT / f"config/{file}.yaml").read_text()), [], ROOT)


def test_a_pair_runs_its_own_methods_only():
    plan = paper_plan()
    official = Cell("ppi", "pyg", "yang-5l-official")
    assert plan.methods_of(official) == ["supervised", "lsp-official"]
    files = [file for file in plan.shard_files() if "/yang-5l-official/" in file and "/pyg/" in file]
    assert len(files) == 3 * 10  # with the teacher, a seed a job
    assert plan.runs == 2 * 10 * sum(1 + n for n in (6, 2, 5, 5, 5))


def test_a_pairs_layers_are_those_of_methods_that_take_layers_and_say_none():
    plan = paper_plan()
    cell = Cell("ppi", "dgl", "yang-5l")
    for method in ("fitnet", "at", "lsp", "lsp-official"):
        assert plan.student_params(cell, method, 0)["method"]["params"]["layers"] == [[2, -1]]
    assert "layers" not in plan.student_params(cell, "kd", 0)["method"]["params"]
    layers = paper_plan("ablations/layers")
    cell = Cell("ppi", "pyg", "yang-5l")
    assert layers.student_params(cell, "lsp-two-pairs", 0)["method"]["params"]["layers"] == [[0, 0], [-1, -1]]


def test_a_pairs_protocol_is_that_of_its_runs_and_is_said_in_the_tables():
    plan = paper_plan()
    usual, official = (
        plan.student_params(Cell("ppi", "pyg", p), "lsp-official", 0) for p in ("yang-5l", "yang-5l-official")
    )
    assert usual["protocol"] == Protocol().model_dump()
    assert official["protocol"] == Protocol(**OFFICIAL).model_dump()
    teachers = [plan.teacher_params(Cell("ppi", "pyg", p), 0)["protocol"] for p in ("yang-5l", "yang-5l-official")]
    assert teachers[0]["teacher_selection"] == "validation"
    official = {"decision": "logit", "score": "batches", "teacher_selection": "last", "validate_every": 10}
    assert teachers[1] == {"setting": "transductive", **official}
    (remark,) = plan.remarks()
    assert remark.startswith("ppi, yang-5l-official:")
    assert all(f"{key}: {value}" in remark for key, value in OFFICIAL.items())
    beside = {pair["pair"]: pair["protocol"] for pair in plan.published_pairs()}  # what the reproduction table shows
    shown = beside.pop("yang-5l-official")
    assert all(f"{key}: {value}" in shown for key, value in OFFICIAL.items())
    assert set(beside.values()) == {""}


def test_what_concerns_students_only_does_not_retrain_teachers():
    cell = Cell("digits", "pyg", "gat")
    before, after = planned(), planned(protocol={"distill_nodes": "train", "train_projectors": False})
    assert before.teacher_params(cell, 0) == after.teacher_params(cell, 0)
    assert before.student_params(cell, "kd", 0) != after.student_params(cell, "kd", 0)


def test_each_oddity_of_the_released_code_is_turned_on_by_itself_once():
    plan = paper_plan("ablations/official")
    protocols = {cell.pair: plan.protocol(plan.pair(cell)).model_dump() for cell in plan.cells}
    usual = protocols.pop("loss")
    assert usual == protocols.pop("batches-of-one") == Protocol().model_dump()
    assert protocols.pop("official") == {**usual, **OFFICIAL}
    switched = [{k: v for k, v in protocol.items() if v != usual[k]} for protocol in protocols.values()]
    assert sorted(switched, key=str) == sorted(({key: value} for key, value in OFFICIAL.items()), key=str)
    lsp = plan.variant("lsp").params()
    official = plan.variant("lsp-official").params()
    variants = {m: plan.variant(m).params() for m in plan.methods if m.startswith("lsp-") and m != "lsp-official"}
    one_at_a_time = {m: {k for k, v in params.items() if v != lsp[k]} for m, params in variants.items()}
    assert one_at_a_time == {
        "lsp-kernel": {"kernel"},
        "lsp-direction": {"direction"},
        "lsp-weight": {"weight"},
        "lsp-schedule": {"until_epoch"},
    }
    assert variants["lsp-weight"]["weight"] == official["weight"]
    assert variants["lsp-schedule"]["until_epoch"] == official["until_epoch"]


def test_a_backend_without_a_library_is_always_there_and_depends_on_all_its_files():
    plan = planned(backends=["csr"])
    assert plan.missing == {} and {cell.backend for cell in plan.cells} == {"csr"}
    names = {Path(file).name for file in plan.teacher_sources(Cell("digits", "csr", "gat"))}
    own = {"csr.py", "csr_functions.py", "adjacency.py"}
    assert names & {"pyg.py", "dgl.py", *own} == own
    assert not own & {Path(file).name for file in plan.teacher_sources(Cell("digits", "dgl", "gat"))}
    assert own <= {Path(file).name for file in plan.profile_sources(Cell("digits", "csr", "gat"))}


def test_expected_code_is_of_the_runs_own_files_by_content(tmp_path):
    mine = tmp_path / "mykd.py"
    mine.write_text((ROOT / "methods/kd.py").read_text())
    mykd = {"plugins": [str(tmp_path)], "methods": {**VALUES["methods"], "mykd": None}}
    before = planned(**mykd).expected()
    assert planned(**mykd).expected() == before
    mine.write_text(mine.read_text() + "# edited\n")
    after = planned(**mykd).expected()
    assert {file for file in before if before[file]["code"] != after[file]["code"]} == {
        file for file in before if "/mykd/" in file
    }
    for file, asked in after.items():
        assert {**asked, "code": None} == {**before[file], "code": None}


def test_the_files_of_the_code_are_those_of_every_run():
    """What their digest is in records of real jobs: tests/joints/test_keys.py."""
    plan = planned()
    files = {file for backend in ("pyg", "dgl") for file in plan.student_sources(Cell("digits", backend, "gat"), "kd")}
    assert files <= set(plan.code_files()) and len(plan.code_files()) == len(set(plan.code_files()))
    assert {Path(file).stem for file in plan.code_files() if Path(file).parent.name == "methods"} == set(plan.methods)


def test_two_parts_of_one_file_are_one_source():
    """Rules give a job each file once, distillbench.jobs.run as the plan does: the same digest of the code."""
    combined = {"lsp-cosine": {"method": "lsp", "kernel": "cosine"}, "lsp+lsp-cosine": None}
    files = planned(methods={**VALUES["methods"], **combined}).student_sources(
        Cell("digits", "pyg", "gat"), "lsp+lsp-cosine"
    )
    assert len(files) == len(set(files))
