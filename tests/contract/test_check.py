"""``distillbench check``, the template, and the method of docs/your-method.md."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillbench.cli import main
from distillbench.contract import check
from distillbench.plan.plan import make_plan
from distillbench.plugins import available, declaration
from tests.needs import needs_dgl

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/your-method.md").read_text()
PYG = ("--backend", "pyg")


def block(language, number=0):
    """A code block of the guide."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)[number]


@pytest.fixture
def folder(tmp_path, monkeypatch, one_thread):
    """A folder to run in, with the guide's method in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_methods").mkdir()
    (tmp_path / "my_methods/lskd.py").write_text(block("python"))
    return tmp_path


def shape(text):
    """Words of an output: numbers that another machine rounds otherwise are one."""
    return re.sub(r"\d+\.\d+(e-?\d+)?", "0.0", text).split()


# What it prints


def test_a_file_that_is_not_there_is_a_sentence(capsys, tmp_path):
    assert main(["check", str(tmp_path / "none.py")]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'none.py'}: there is no such file\n"


STATED = 'paper, tasks, requires = "p", frozenset({"multiclass"}), frozenset()'


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("class Mine(Method", "mine.py: '(' was never closed (mine.py, line 1)"),
        ("", "mine.py: defines 0 subclasses of Method, must be one"),
        (
            "class A(Method):\n    pass\n\nclass B(Method):\n    pass",
            "mine.py: defines 2 subclasses of Method, must be",
        ),
        (
            f"import no_such_package\n\nclass A(Method):\n    {STATED}",
            "ModuleNotFoundError: No module named 'no_such_pack",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_a_failed_declaration(capsys, tmp_path, text, sentence):
    (tmp_path / "mine.py").write_text(text)
    assert main(["check", str(tmp_path / "mine.py")]) == 1
    printed = capsys.readouterr().out
    assert "  failed   declaration" in printed
    assert sentence in printed
    assert "Traceback" not in printed
    assert printed.splitlines()[-1] == "  1 failed"


def test_what_a_method_raises_is_shown_with_its_own_lines(capsys, folder):
    wrong = block("python").replace("t = self.params.temperature", "t = self.params.temparature")
    (folder / "wrong.py").write_text(wrong)
    assert main(["check", "wrong.py", *PYG]) == 1
    printed = capsys.readouterr().out
    place = r"gin, pyg and 3 more: it raises\n +File \"wrong.py\", line \d+, in terms\n +t = self.params.temparature"
    assert re.search(place, printed)
    assert "AttributeError: 'Params' object has no attribute 'temparature'" in printed
    assert "skipped in 4 of 4: its terms are not what they should be" in printed
    assert "site-packages" not in printed


def test_several_files_are_checked_and_one_that_fails_is_enough(capsys, folder):
    (folder / "silent.py").write_text(block("python").replace("Cost: linear", "Linear"))
    assert main(["check", "silent.py", "my_methods/lskd.py", *PYG]) == 1
    printed = capsys.readouterr().out
    first, second = printed.split("my_methods/lskd.py: ")
    assert "  failed   docstring" in first and "no line begins with 'Cost: '" in first
    assert "failed" not in second


def test_a_library_that_is_not_installed_is_said(capsys, monkeypatch, folder):
    monkeypatch.setattr(check, "_missing", lambda library: "dgl is not installed" if library == "dgl" else None)
    assert main(["check", "my_methods/lskd.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    terms = next(i for i, line in enumerate(lines) if line.startswith("  passed   terms"))
    assert lines[terms + 1].strip() == "skipped in 4 of 8: dgl is not installed"
    assert any(line.startswith("  skipped  libraries") for line in lines)
    assert re.fullmatch(r"  \d+ passed, \d+ skipped", lines[-1])


def test_csr_is_checked_where_it_is_asked_for(capsys, folder):
    assert main(["check", "my_methods/lskd.py", "--backend", "csr"]) == 0
    printed = capsys.readouterr().out
    assert "  passed   terms" in printed
    assert "libraries" not in printed and "skipped" not in printed


def test_every_library_is_compared_with_the_first_that_is_named(folder):
    entries = check.entries_of(declaration("method", folder / "my_methods/lskd.py"), ("csr", "pyg", "dgl"))
    compared = [entry for entry in entries if entry.check.name == "libraries"]
    assert {entry.libraries for entry in compared} == {("csr", "pyg"), ("csr", "dgl")}
    result = next(check.result_of(folder / "my_methods/lskd.py", e) for e in compared if e.libraries[1] == "pyg")
    assert result.status == "passed"


@pytest.mark.parametrize(
    "installed, libraries",
    [({"pyg", "dgl"}, {"pyg", "dgl"}), ({"pyg"}, {"pyg", "dgl"}), ({"dgl"}, {"pyg", "dgl"}), (set(), {"csr"})],
)
def test_without_a_choice_pyg_and_dgl_are_checked_or_else_what_needs_neither(monkeypatch, folder, installed, libraries):
    monkeypatch.setattr(check, "missing_reason", lambda name: None if name in installed else "not installed")
    entries = check.entries_of(declaration("method", folder / "my_methods/lskd.py"))
    assert {library for entry in entries for library in entry.libraries} == libraries


def test_the_command_runs_as_a_module(folder):
    (folder / "silent.py").write_text("")
    command = [sys.executable, "-m", "distillbench", "check", "silent.py", "none.py"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "workflow")})
    assert (done.returncode, done.stderr) == (1, "none.py: there is no such file\n")
    assert "silent.py: defines 0 subclasses of Method" in done.stdout


# The template and the guide


def test_the_template_is_no_method_and_passes_every_check_under_another_name(capsys, folder):
    assert "_template" not in available([ROOT / "methods"])
    (folder / "mine.py").write_text((ROOT / "methods/_template.py").read_text())
    assert main(["check", "mine.py"]) == 0
    assert "failed" not in capsys.readouterr().out


@needs_dgl
def test_the_guides_method_passes_with_the_output_that_is_shown(capsys, folder):
    assert main(["check", "my_methods/lskd.py"]) == 0
    assert capsys.readouterr().out == block("text")


def test_the_guides_failure_is_what_is_shown(capsys, folder):
    requires = 'frozenset({"logits"})'
    (folder / "my_methods/lskd.py").write_text(block("python").replace(requires, 'frozenset({"hidden"})'))
    assert 'frozenset({"hidden"})' in GUIDE and requires in block("python")
    assert main(["check", "my_methods/lskd.py", *PYG]) == 1
    printed = capsys.readouterr().out
    shown = block("text", 1)
    assert shape(shown) == shape(printed[printed.index("  failed") :])[: len(shape(shown))]


def test_the_guides_config_can_run(folder):
    values = yaml.safe_load(block("yaml"))
    plan = make_plan(values, ["my.yaml"], ROOT)
    assert plan.methods == ["supervised", "kd", "lskd", "lskd-weak", "lsp+lskd"]
    cell = next(cell for cell in plan.cells if cell.backend == "pyg")
    weights = [plan.student_params(cell, name, 0)["method"]["params"]["weight"] for name in ("lskd", "lskd-weak")]
    assert weights == [9.0, 1.0]
    files = plan.method_files("lsp+lskd").values()
    assert {Path(file).resolve() for file in files} == {ROOT / "methods/lsp.py", folder / "my_methods/lskd.py"}


def test_the_guides_file_follows_the_style_of_the_repository(folder):
    for command in (["check"], ["format", "--check"]):
        file = folder / "my_methods/lskd.py"
        ruff = ["ruff", *command, "--config", str(ROOT / "pyproject.toml"), str(file)]
        done = subprocess.run([sys.executable, "-m", *ruff], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout


def test_excuses_are_read_without_torch_and_those_of_shipped_methods_have_reasons():
    for name in available([ROOT / "methods"]):
        declared = declaration("method", ROOT / f"methods/{name}.py")
        for reason in declared.attributes.get("excused", {}).values():
            assert len(reason.split()) > 2, name
