"""docs/methods.md: that it says what the files in methods/ say, and how it is made of them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distillbench.contract.catalogue import catalogue, write_catalogue
from distillbench.plugins import available

ROOT = Path(__file__).parents[2]

METHOD = '''"""Logit matching (LM).

Ba, Caruana: Do Deep Nets Really Need to be Deep? NIPS 2014, arXiv 1312.6184; code: github.com/me/my-code.py.
    L = task + λ * d
      + more
where ``d`` is a_b * c < 1.

Layers: logits.
Cost: linear.
"""

from typing import Annotated

from distillbench.plugin import Choice, LayerPair, LayerPairs, Method, Parameters, Range


class LM(Method):
    """Regress the teacher's logits."""

    paper, tasks, requires = "ba2014", frozenset({"multilabel", "multiclass"}), frozenset({"labels", "logits"})
    mlp_only = True
    excused = {"derivative": "something is held constant"}

    class Params(Parameters):
        weight: Annotated[float, Range(1e-9, 30000)] = 1.0
        share: Annotated[float, Range(0, 0.5, log=False)] = 0.5
        kernel: Annotated[str, Choice("rbf", "l2")] = "rbf"
        layers: LayerPairs = (LayerPair(2, -1),)
        until: int | None = None
'''


@pytest.fixture
def root(tmp_path):
    """A repository with two methods and a published run, whose config has variants of them."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/log_match.py").write_text(METHOD)
    (tmp_path / "methods/other.py").write_text(METHOD.replace("class LM", "class Other").replace("mlp_only", "x"))
    (tmp_path / "config").mkdir()
    (tmp_path / "config/run.yaml").write_text(
        "methods:\n  other:\n  weak: {method: log-match}\n  both: {method: other+weak}\n"
    )
    run = tmp_path / "results/reference/first"
    run.mkdir(parents=True)
    rows = ["digits,teacher", "digits,weak", "cora,both", "cora,weak", "digits,gone"]
    (run / "comparison.csv").write_text("dataset,method\n" + "\n".join(rows) + "\n")
    (run / "provenance.json").write_text(json.dumps({"config": {"file": "config/run.yaml"}}))
    return tmp_path


def section(text, name):
    return re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def test_the_document_is_in_step_with_the_files():
    assert (ROOT / "docs/methods.md").read_text() == catalogue(ROOT), "run distillbench docs"


def test_every_method_has_a_row_a_section_and_a_source():
    text = catalogue(ROOT)
    for name in available([ROOT / "methods"]):
        (row,) = (line for line in text.splitlines() if line.startswith(f"| [`{name}`]"))
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 6
        assert name == "supervised" or re.search(r", .+ (19|20)\d\d", cells[4]), row
        assert section(text, name)


def test_every_method_but_the_control_has_a_search_space_in_words():
    text = catalogue(ROOT)
    for name in available([ROOT / "methods"]):
        (line,) = re.findall(r"^Search space: (.*)\.$", section(text, name), re.MULTILINE)
        assert (line == "none") == (name == "supervised"), name


def test_every_link_of_the_document_leads_somewhere():
    text = catalogue(ROOT)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("https://")]
    assert [target[1:] for target in targets if target.startswith("#")] == headings == available([ROOT / "methods"])
    files = {target for target in targets if not target.startswith("#")}
    assert files >= {f"../methods/{name}.py" for name in headings}
    assert [file for file in sorted(files) if not (ROOT / "docs" / file).exists()] == []


def test_a_row_says_tasks_needs_source_and_where_it_was_run(root):
    rows = [line for line in catalogue(root).splitlines() if line.startswith("| [")]
    source = "[Ba and Caruana, NIPS 2014](https://arxiv.org/abs/1312.6184) · [code](https://github.com/me/my-code.py)"
    first = "../results/reference/first"
    assert rows == [
        "| [`log_match`](#log_match) | Logit matching (LM) | nodes (one class), nodes (several labels); only students "
        f"that are MLPs | logits, labels | {source} | PyG, DGL: mlp; digits, cora ([first]({first})) |",
        "| [`other`](#other) | Logit matching (LM) | nodes (one class), nodes (several labels) | logits, labels | "
        f"{source} | PyG, DGL: gat, mlp; cora ([first]({first})) |",
    ]


def test_a_section_has_the_docstring_with_the_equation_as_code(root):
    assert (
        section(catalogue(root), "log_match")
        == """
**Logit matching (LM)** · [file](../methods/log_match.py)

Ba, Caruana: Do Deep Nets Really Need to be Deep? NIPS 2014, [arXiv 1312.6184](https://arxiv.org/abs/1312.6184); code: \
[github.com/me/my-code.py](https://github.com/me/my-code.py).

```text
L = task + λ * d
  + more
```

where `d` is a\\_b \\* c \\< 1.

Layers: logits.
Cost: linear.

Hyper-parameters and defaults: `weight: 1.0`, `share: 0.5`, `kernel: "rbf"`, `layers: [[2, -1]]`, `until: null`.

Search space: `weight` 1e-09 … 30000 (log), `share` 0 … 0.5 (linear), `kernel` rbf or l2.

Tested on: multiclass-mlp, multilabel-mlp.

Excused from `derivative`: something is held constant.

"""
    )


def test_check_writes_nothing_and_says_what_to_do(root, capsys):
    assert write_catalogue(root, checking=True) == 1
    assert capsys.readouterr().err.endswith("methods.md is not what methods/ says: run distillbench docs\n")
    assert not (root / "docs").exists()
    assert write_catalogue(root) == 0
    assert write_catalogue(root, checking=True) == 0
    (root / "methods/log_match.py").write_text(METHOD.replace("linear", "quadratic"))
    assert write_catalogue(root, checking=True) == 1


def test_it_imports_no_torch(root):
    code = (
        "import sys; from distillbench.contract.catalogue import write_catalogue; from pathlib import Path; "
        "write_catalogue(Path()); print('torch' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert (root / "docs/methods.md").read_text() == catalogue(root)
