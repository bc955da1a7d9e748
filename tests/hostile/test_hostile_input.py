"""Hostile input: files and names that others made."""

import ast
import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from distillbench.config.config import ConfigError
from distillbench.data.graph_data import DataError
from distillbench.plan.plan import make_plan
from distillbench.plugins import PluginError, find
from distillbench.training.inputs import load_outputs, load_tensors

ROOT = Path(__file__).parents[2]
FOLDERS = ("workflow", "methods", "datasets", "models", "benchmarks", "docs")
SMOKE = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
# the one reader of pickles, of files with a known digest, which makes nothing but arrays; and a plug-in's declaration
PERMITTED = {("workflow/distillbench/data/readers.py", "import pickle"), ("workflow/distillbench/plugins.py", "exec")}


class Shell:
    """Unpickled, it would make a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def unsafe_calls(source):
    """What in a file could execute content that it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            unsafe = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
            yield from (f"import {name}" for name in names if name.split(".")[0] in unsafe)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        if called in ("eval", "exec"):
            yield called
        if called == "torch.load" and options.get("weights_only") != "True":
            yield called
        if called.endswith(("read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load")):
            yield called
        if options.get("allow_pickle", "False") != "False":
            yield f"{called} with allow_pickle"


@pytest.mark.parametrize(
    "source",
    [
        *("torch.load(p)", "torch.load(p, weights_only=False)", "import pickle", "from joblib import load", "eval(s)"),
        *("np.load(p, allow_pickle=True)", "yaml.load(s, L)", "pd.read_pickle(p)"),
    ],
)
def test_the_search_for_unsafe_calls_finds_them(source):
    assert list(unsafe_calls(source))


def test_no_code_reads_what_could_execute():
    """Fault: a file of weights, arrays, tables or settings holds code that runs when it is read.

    Provoked: all code of the project is searched for pickle, joblib, eval, exec, and unsafe ways to load.
    Promised: there are none but the reader of Planetoid's files, known by digest, and that of plug-ins' declarations.
    """
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    found = {(path.relative_to(ROOT).as_posix(), call) for path in files for call in unsafe_calls(path.read_text())}
    assert found == PERMITTED


@pytest.mark.parametrize("read", [load_tensors, load_outputs])
def test_weights_that_hold_code_are_refused(read, tmp_path):
    """Fault: a file of weights or of a teacher's outputs holds code, is cut short or is something else.

    Provoked: such files are written with torch.save, cut at several places, and read.
    Promised: no code runs, and the file is refused by its name.
    """
    path, made = tmp_path / "seed-0.pt", tmp_path / "made"
    for content in ({"logits": Shell(made)}, Shell(made), [torch.zeros(2)], {"unknown": torch.zeros(2)}):
        torch.save(content, path)
        if read is load_tensors and isinstance(content, dict) and "unknown" in content:
            continue  # tensors by name, which is all that this one promises
        with pytest.raises(DataError, match=re.escape(str(path))):
            read(path)
    torch.save({"logits": torch.zeros(100)}, path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=re.escape(str(path))):
            read(path)
    assert not made.exists()


BAD_NAMES = [
    "../up",
    "a/b",
    "/abs",
    ".",
    "..",
    ".hidden",
    "-rf",
    "a\0b",
    "a\n",
    "x" * 61,
    "",
    "a b",
    "$x$",
    "=cmd",
    "<b>",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
@pytest.mark.parametrize("place", ["data set", "pair", "method", "backend"])
def test_names_that_would_leave_the_results_are_refused(place, name):
    """Fault: a name in the config would leave the results folder, hide there, or be read as markup or a formula.

    Provoked: data sets, pairs, methods and backends are called "../up", "/abs", ".hidden", "<b>", "=cmd" and the like.
    Promised: the config is refused with the file, the key and the value, and nothing is written.
    """
    values = copy.deepcopy(SMOKE)
    pairs = values["datasets"]["digits"]["pairs"]
    if place == "data set":
        values["datasets"][name] = {"dataset": "digits", "pairs": pairs}
    elif place == "pair":
        pairs[name] = pairs["gat"]
    elif place == "method":
        values["methods"][name] = {"method": "kd"}
    else:
        values["backends"] = [name]
    with pytest.raises(ConfigError) as error:
        make_plan(values, ["config/mine.yaml"], ROOT)
    key = {"data set": "datasets", "pair": "datasets.digits.pairs", "method": "methods", "backend": "backends"}[place]
    said = str(error.value)
    assert "config/mine.yaml" in said and key in said and (name in said or repr(name)[1:-1] in said)


def test_plug_ins_are_found_in_the_named_folders_only(tmp_path, monkeypatch):
    """Fault: a config names code outside the plug-in folders.

    Provoked: a method and a data set are asked for as "../evil", by an absolute path, and by a file of the folder that
    the run is started in.
    Promised: they are refused, and the code does not run. A link inside a plug-in folder is followed: it is the choice
    of whoever owns the folder.
    """
    folder, made = tmp_path / "methods", tmp_path / "made"
    folder.mkdir()
    evil = tmp_path / "evil.py"
    evil.write_text(f"import os\nos.mkdir({str(made)!r})\n")
    monkeypatch.chdir(tmp_path)
    for name in ("../evil", str(evil.with_suffix("")), "evil", "sub/../../evil", "evil\0"):
        with pytest.raises(PluginError, match="method"):
            find("method", name, [folder])
        values = copy.deepcopy(SMOKE)
        values["methods"]["mine"] = {"method": name}
        with pytest.raises(ConfigError, match=r"config/mine\.yaml(.|\n)*methods\.mine"):
            make_plan(values, ["config/mine.yaml"], ROOT)
        values = copy.deepcopy(SMOKE)
        values["datasets"]["mine"] = {"dataset": name, "pairs": SMOKE["datasets"]["digits"]["pairs"]}
        with pytest.raises(ConfigError, match=r"config/mine\.yaml(.|\n)*datasets\.mine"):
            make_plan(values, ["config/mine.yaml"], ROOT)
    (folder / "linked.py").symlink_to(evil)
    assert find("method", "linked", [folder]) == folder / "linked.py"
    assert not made.exists()


def bomb(levels):
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ("seeds: 2\nseeds: 3", r"the key 'seeds' is there twice"),
        ("methods: {kd: {alpha: 1}, lsp: {}, kd: {}}", "the key 'kd' is there twice"),
        (bomb(10), "aliases stand for more than 100,000 values"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested more than 50 levels"),
        ("a: &a [*a]", r"\*a stands for nothing before it"),
        ("__use_yte__: true", "a config is not a template"),
    ],
    ids=["two keys", "two methods", "bomb", "deep", "itself", "template"],
)
def test_what_yaml_allows_and_a_config_may_not_have_is_refused(tmp_path, added, problem):
    """Fault: a config has a key twice, aliases that stand for millions of values, or thousands of levels.

    Provoked: files with each of these are planned.
    Promised: the config is refused with the file and the line. A file nested thousands deep, or with the key
    `__use_yte__`, whose expressions are evaluated, is read by Snakemake before: a config is to be trusted like code.
    """
    file = tmp_path / "mine.yaml"
    file.write_text(added + "\n")
    with pytest.raises(ConfigError, match=rf"mine\.yaml: line \d+: .*{problem}"):
        make_plan(SMOKE, [file], ROOT)


def test_aliases_and_equal_keys_at_different_places_are_fine(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("a: &a {x: 1, y: {x: 2}}\nb: *a\nc: [{x: 1}, {x: 1}, *a]\n")
    assert make_plan(SMOKE, [file], ROOT).cells


def test_python_tags_in_a_config_run_nothing(tmp_path):
    """Fault: a config holds a tag that makes a YAML loader run Python.

    Provoked: `snakemake --dry-run` is given a config with `!!python/object/apply`.
    Promised: nothing runs, and Snakemake says that the config is not valid.
    """
    file, made = tmp_path / "mine.yaml", tmp_path / "made"
    file.write_text((ROOT / "config/smoke.yaml").read_text() + f"evil: !!python/object/apply:os.mkdir ['{made}']\n")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--snakefile", ROOT / "Snakefile", "--configfile", file]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode != 0
    assert "not valid JSON or YAML" in run.stdout + run.stderr
    assert not made.exists()


@pytest.mark.parametrize("key", ["results", "plugins", "export"])
@pytest.mark.parametrize("folder", ["a\0b", "a\nb", "x" * 300, "{seed}", "*", " "], ids=lambda text: repr(text[:9]))
def test_folders_that_are_no_names_are_refused(key, folder):
    """Fault: a folder for results, plug-ins or copies has a name with control characters, braces or 300 letters.

    Provoked: configs with such folders are planned.
    Promised: the config is refused with the file, the key and the value.
    """
    values = {**SMOKE, key: [folder] if key == "plugins" else folder}
    with pytest.raises(ConfigError, match=rf"config/mine\.yaml:\n  {key}: {re.escape(repr(folder))}: "):
        make_plan(values, ["config/mine.yaml"], ROOT)


@pytest.mark.parametrize("key", ["results", "plugins"])
def test_links_that_lead_round_in_a_circle_are_refused(key, tmp_path):
    folder = tmp_path / "loop"
    folder.symlink_to(folder)
    values = {**SMOKE, key: [str(folder)] if key == "plugins" else str(folder)}
    with pytest.raises(ConfigError, match=rf"config/mine\.yaml:\n  {key}: '{folder}': "):
        make_plan(values, ["config/mine.yaml"], ROOT)


@pytest.mark.parametrize("folder", [".", "..", "/", "methods", "workflow/distillbench/../scripts", ".git/x"])
def test_results_never_replace_the_projects_own_files(folder, monkeypatch):
    """Fault: the results folder is the project's own, one above it, or one of its source folders.

    Provoked: configs with `results: .`, `..`, `/`, `methods` and the like are planned.
    Promised: the config is refused before anything is written.
    """
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=rf"results: {re.escape(repr(folder))}: .* holds the project's own files"):
        make_plan({**SMOKE, "results": folder}, ["config/mine.yaml"], ROOT)


def test_a_plug_in_folder_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ConfigError, match=rf"plugins: '{folder}': {folder} is no folder"):
            make_plan({**SMOKE, "plugins": [str(folder)]}, ["config/mine.yaml"], ROOT)
