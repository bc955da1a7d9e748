"""The command: what it knows without torch, what it cuts out of a config, what it makes and lists."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillbench.cli import main
from distillbench.cli.names import config_file, config_names
from distillbench.cli.running import narrowed
from distillbench.config.config import ConfigError
from distillbench.plugins import load

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config/config.yaml"
PAIR = {"teacher": {"model": "gat", "hidden": 4}, "student": {"model": "gcn", "hidden": 2}, "training": {"epochs": 2}}
TINY = {
    "seeds": 1, "backends": ["csr"], "profile": False, "methods": {"supervised": None, "kd": None, "at": None},
    "datasets": {"digits": {"pairs": {"gat": PAIR, "gcn": PAIR}}, "synthetic": {"pairs": {"gat": PAIR}}},
    "execution": {"warm_start": False},
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a tiny config, and nothing else."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list", "methods"], ["plan", str(CONFIG)]])
def test_help_lists_and_plans_import_no_torch(arguments):
    code = (
        f"import sys; from distillbench.cli import main; status = main({arguments!r}); "
        "print(status, {'torch', 'pandas', 'mlflow'} & set(sys.modules))"
    )
    environment = {"PYTHONPATH": str(ROOT / "workflow"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "0 set()", done.stdout + done.stderr


# which config, and what of it


def test_a_config_is_a_file_or_a_name_and_a_misspelt_one_has_a_suggestion(here):
    assert config_file("tiny.yaml") == Path("tiny.yaml")
    assert config_file("smoke") == ROOT / "config/smoke.yaml"
    assert config_file("ablations/tap") == ROOT / "config/ablations/tap.yaml"
    assert {"smoke", "paper", "ablations/tap"} <= set(config_names())
    with pytest.raises(ConfigError, match="smokey: no such config: did you mean 'smoke'"):
        config_file("smokey")


def test_a_part_of_a_config_keeps_the_baseline_and_counts_the_seeds_anew():
    values, changed = narrowed(CONFIG, methods=["kd"], datasets=["digits"], seeds=[0, 1, 2], backends=["csr"])
    assert changed and list(values["methods"]) == ["supervised", "kd"] and list(values["datasets"]) == ["digits"]
    assert values["seeds"] == 3 and values["backends"] == ["csr"]
    assert narrowed(CONFIG)[1] is False


def test_a_method_that_the_config_does_not_name_is_run_with_its_defaults():
    values, _ = narrowed(CONFIG, methods=["gcrd"])
    assert values["methods"] == {
        "supervised": yaml.safe_load(CONFIG.read_text())["methods"]["supervised"],
        "gcrd": None,
    }


def test_pairs_that_are_left_out_leave_their_data_sets_out(here):
    values, _ = narrowed(Path("tiny.yaml"), pairs=["gcn"])
    assert {name: list(entry["pairs"]) for name, entry in values["datasets"].items()} == {"digits": ["gcn"]}


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"methods": ["kdd"]}, "--method: unknown 'kdd': did you mean 'kd'?"),
        ({"datasets": ["digit"]}, "--dataset: unknown 'digit': did you mean 'digits'?"),
        ({"pairs": ["gatt"]}, "--pair: unknown 'gatt': did you mean 'gat'?"),
        ({"settings": ["datasets=null"], "pairs": ["gat"]}, "datasets: "),
        ({"settings": ["datasets.digits=null"], "methods": ["kd"]}, "datasets.digits: "),
        ({"settings": ["results=null"]}, "results: "),
        ({"seeds": [1, 2]}, "--seeds: tables are of the seeds from 0 on, such as 0-2"),
        ({"settings": ["seeds"]}, "--set seeds: must be KEY=VALUE"),
    ],
)
def test_what_is_not_there_is_named(here, asked, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        narrowed(Path("tiny.yaml"), **asked)


@pytest.mark.parametrize("asked", [["--seeds", "3-1"], ["--seeds", "a"], ["--method", ","], ["--dataset", ""]])
def test_a_selection_that_selects_nothing_is_refused(here, capsys, asked):
    assert main(["plan", "tiny.yaml", *asked]) == 2
    assert asked[0] in capsys.readouterr().err


def test_a_folder_is_no_config(here, capsys):
    (here / "folder.d").mkdir()
    assert main(["plan", "folder.d"]) == 2
    assert "folder.d: a folder, not a config" in capsys.readouterr().err


# runs


def test_one_method_on_one_data_set_without_snakemake_ends_in_its_table(here, capfd):
    part = ("--method", "kd", "--dataset", "digits", "--pair", "gat", "--seeds", "0-1")
    assert main(["run", "tiny.yaml", "--no-snakemake", "--cores", "2", *part]) == 0
    table = (here / "results/tables/comparison.md").read_text()
    assert table in capfd.readouterr().out
    assert "| kd |" in table and "2/2" in table and "| at |" not in table and "synthetic" not in table
    assert (here / "results/report/index.html").is_file() and (here / "results/figures/digits.png").is_file()


def test_any_method_there_is_a_file_of_is_run_without_snakemake_too(here, capfd):
    part = ("--method", "sp", "--dataset", "synthetic", "--seeds", "0")
    assert main(["run", "tiny.yaml", "--no-snakemake", "-n", *part]) == 0
    jobs = [line.split()[0] for line in capfd.readouterr().out.splitlines()[:-1]]
    cell = "synthetic/csr/gat"
    assert jobs == ["data/synthetic", f"{cell}/teacher/0", f"{cell}/supervised/0", f"{cell}/sp/0"]


def test_a_dry_run_by_snakemake_is_of_the_part_that_is_asked_for(here, capfd):
    assert main(["run", "tiny.yaml", "--method", "at", "--dataset", "synthetic", "--seeds", "0-2", "-n"]) == 0
    counts = dict(line.split() for line in capfd.readouterr().out.splitlines() if len(line.split()) == 2)
    assert (counts["dataset"], counts["teacher"], counts["distill"]) == ("1", "1", "2")
    assert not (here / "results").exists()


def test_methods_given_to_snakemake_replace_those_of_the_config(here):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "tiny.yaml"]
    command += ["-n", "--quiet", "rules", "--cores", "1", "--config", "methods={supervised: {}, kd: {}}"]
    environment = {"PYTHONPATH": str(ROOT / "workflow"), "PATH": "/usr/bin:/bin", "HOME": str(here)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    assert counts["distill"] == "6"  # two methods, three cells


def test_a_report_without_records_says_what_is_missing(here, capsys):
    assert main(["report", "tiny.yaml"]) == 1
    assert "12 of 12 files of records are missing, such as results/teachers/" in capsys.readouterr().err


def test_a_plan_says_what_is_run_and_what_cannot_be_concluded(here, capsys):
    assert main(["plan", "tiny.yaml", "--seeds", "0-6"]) == 0
    out = capsys.readouterr().out
    assert "84 runs of 7 seeds in 24 jobs" in out and "digits · csr · gat: teacher, supervised, kd, at" in out
    assert "7 seeds, up to 2 methods beside the baseline: a true difference of" in out
    assert main(["plan", "tiny.yaml"]) == 0
    assert "seeds: 1: no verdict below 6" in capsys.readouterr().out
    (here / "strict.yaml").write_text(yaml.safe_dump({**TINY, "seeds": 7, "compare": {"alpha": 0.001}}))
    assert main(["plan", "strict.yaml"]) == 0  # 2 / 2¹⁰ is above 0.001, 2 / 2¹¹ is not
    assert "seeds: 7: no verdict below 11" in capsys.readouterr().out


def test_a_plan_says_how_long_published_runs_took(here, capsys):
    """The median over finished seeds, times the seeds of the config, of every run that somebody published."""
    published = here / "results/reference/mine"
    published.mkdir(parents=True)
    rows = ["dataset,backend,pair,method,status,train_seconds"]
    for method, seconds in (("teacher", (100, 300, 200)), ("kd", (10, 20, 30)), ("at", (1000,))):
        rows += [f"synthetic,csr,{'gat' if method != 'at' else 'gcn'},{method},ok,{each}" for each in seconds]
    rows += ["synthetic,csr,gat,kd,diverged,5000"]
    (published / "runs.csv").write_text("\n".join(rows) + "\n")
    assert main(["plan", "tiny.yaml", "--dataset", "synthetic", "--seeds", "0-5"]) == 0
    said = "trained for 0:22:00 on one core (without 2 kinds of runs that nobody published)"  # (200 + 20) s × 6
    assert said in capsys.readouterr().out
    assert main(["plan", "tiny.yaml", "--dataset", "digits", "--pair", "gcn"]) == 0
    assert "how long it takes is not known" in capsys.readouterr().out


# plug-ins


@pytest.mark.parametrize("kind", ["method", "dataset"])
def test_a_new_file_is_made_from_the_template_and_keeps_the_contract(here, capsys, kind):
    assert main(["new", kind, "my_own"]) == 0
    file = here / f"{kind}s/my_own.py"
    assert f"distillbench check {kind}s/my_own.py" in capsys.readouterr().out
    assert load(kind, file).__name__ == "MyOwn"
    assert main(["check", str(file), *(["--backend", "csr"] if kind == "method" else [])]) == 0
    out = capsys.readouterr().out
    assert "failed" not in out and ("keeps the contract" in out or "passed" in out)
    values = yaml.safe_load((here / "tiny.yaml").read_text())
    values |= {"methods": {"supervised": None, "my_own": None}} if kind == "method" else {}
    values |= {"datasets": {"my_own": {"pairs": {"gat": PAIR}}}} if kind == "dataset" else {}
    (here / "own.yaml").write_text(yaml.safe_dump(values))
    assert main(["plan", "own.yaml"]) == 0  # what is made here is found here
    assert "my_own" in capsys.readouterr().out
    assert main(["new", kind, "my_own"]) == 2 and main(["new", kind, "My-Own"]) == 2


def test_a_data_set_that_breaks_its_promises_is_told_which(here, capsys):
    main(["new", "dataset", "mine", "--folder", "."])
    file = here / "mine.py"
    right = file.read_text()
    for old, new, said in (
        (
            "torch.Generator().manual_seed(0)",
            "torch.Generator().manual_seed(torch.seed())",
            "two loads give different data",
        ),
        ("torch.randperm(n, generator=random)", "torch.randperm(n)", "draw_split gives two splits for one seed"),
        ("torch.randperm(n, generator=random)", "torch.arange(n)", "the class states a split a seed"),
    ):
        file.write_text(right.replace(old, new))
        assert main(["check", "mine.py"]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "what, name, about",
    [("methods", "lsp", "graph-multiclass, multiclass, multilabel"), ("datasets", "digits", "multiclass, transductive"),
     ("models", "dgcnn", "point clouds")],
)  # fmt: skip
def test_lists_have_a_line_each_with_the_tasks(capsys, what, name, about):
    assert main(["list", what]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[0] == name)
    assert about in line


# results


def test_the_folder_of_results_is_the_configs_as_the_program_reads_it(here, capsys):
    for text in ("results/my runs", '"results/q"  # mine', "'results/x'", "~/bench"):
        (here / "odd.yaml").write_text(f"{json.dumps('results')}: {text}\n")
        assert main(["power", "odd.yaml"]) == 1
        folder = Path(yaml.safe_load(f"a: {text}")["a"]).expanduser()
        assert f"no comparison at {folder}/tables/comparison.parquet" in capsys.readouterr().err


def test_completion_knows_methods_data_sets_pairs_and_configs():
    def completed(*words):
        line = " ".join(("distillbench", *words))
        environment = {"_DISTILLBENCH_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words)),
                       "PYTHONPATH": str(ROOT / "workflow"), "PATH": ""}  # fmt: skip
        code = "from distillbench.cli import command; command(prog_name='distillbench')"
        done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
        return {line.partition(",")[2] for line in done.stdout.splitlines()}

    assert {"smoke", "standard", "standard-cora"} <= completed("run", "s")
    assert {"lsp", "lsp_official"} <= completed("run", "--method", "ls")
    assert {"digits"} <= completed("run", "--dataset", "dig")
    assert {"gat"} <= completed("run", "--pair", "g")
