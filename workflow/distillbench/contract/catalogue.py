"""``docs/methods.md``: what there is in ``methods/``, from what the files say of themselves. Imports no torch.

``distillbench docs`` writes it.
"""

import ast
import csv
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import yaml

from distillbench.contract.cases import cases_of
from distillbench.params import Range, Requirement, Search, TaskName, search_space
from distillbench.plugins import Declaration, PluginError, available, declaration, find
from distillbench.record import write_atomically

DOCUMENT = Path("docs/methods.md")
TASKS: dict[TaskName, str] = {
    "multiclass": "nodes (one class)",
    "multilabel": "nodes (several labels)",
    "graph-multiclass": "graphs",
}
RESTRICTIONS = {
    "mlp_only": "students that are MLPs",
    "transductive_only": "nodes seen in training",
    "needs_unlabelled": "data with nodes that have no label",
}

INTRODUCTION = """\
# Methods

Written by `distillbench docs` from the docstrings and declarations of the files in `methods/`: what is
wrong here is corrected there. [your-method.md](your-method.md) says how to add one, in this repository or outside.

- **Tasks**: what it applies to. Elsewhere it is left out, and the tables say so.
- **Needs**: what it reads of the teacher. `logits`; `hidden`, its features, layer by layer; `edges`, which each of its
  layers used; `teachers`, further ones than the pair's; `model`, the teacher itself, before training. `labels`: it
  reads them beyond the task loss. Without any it has no teacher.
- **Search space**, in a method's section: where `tune` looks for the hyper-parameters that decide how strongly it
  teaches. Equal tuning needs spaces of comparable size: one to three of them for each method, in the range that its
  paper or code gives; else, a weight from a tenth of its default to ten times it, a temperature from 1 to 10, a share
  up to 0.9. The text says where a range comes from and why it is another one. The rest of a method keeps its defaults,
  and what a config gives is not searched.
- **Tested on**: the students with which the contract tests run it on every task, with PyG and with DGL (`distillbench
  check`), and the data sets of published runs that it is part of.

Nothing here says which method is better: the tables of the published runs say what was found, on what.
"""


@dataclass(frozen=True)
class Page:
    """A method as its file describes it."""

    declared: Declaration
    published: Mapping[str, Sequence[str]]  # run: data sets

    @property
    def name(self) -> str:
        """Its name in a config."""
        return self.declared.path.stem

    @cached_property
    def _tree(self) -> ast.Module:
        return ast.parse(self.declared.path.read_text(encoding="utf-8"))

    @cached_property
    def _paragraphs(self) -> tuple[str, str]:
        """The title, and everything after it."""
        title, _, text = (ast.get_docstring(self._tree) or "").partition("\n")
        return title.rstrip("."), text.strip("\n")

    @property
    def title(self) -> str:
        """The first line of the file."""
        return self._paragraphs[0]

    @cached_property
    def citation(self) -> str:
        """What stands before the equation, as one line."""
        text = self._paragraphs[1]
        return " ".join(re.split(r"\n(?:\n|    )", text)[0].split()) if text and not text.startswith("L = ") else ""

    @property
    def source(self) -> str:
        """Authors, venue and links, short."""
        authors, _, rest = self.citation.partition(": ")
        venue = re.search(r"\b([A-Z][A-Za-z]+(?: workshop)? (?:19|20)\d\d)\b", rest)
        if venue is None:
            return "–"
        first, *others = authors.split(", ")
        who = f"{first} et al." if len(others) > 1 else " and ".join([first, *others])
        short = f"{who}, {venue[1]}"
        arxiv, code = re.search(r"arXiv (\d{4}\.\d{4,5})", rest), re.search(_GITHUB, rest)
        linked = f"[{short}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else short
        return linked + (f" · [code](https://{code[0]})" if code else "")

    @property
    def tasks(self) -> str:
        """Tasks in words, and what it is restricted to."""
        applies = ", ".join(words for task, words in TASKS.items() if task in self.declared.tasks)
        only = [words for name, words in RESTRICTIONS.items() if self.declared.attributes.get(name, False)]
        return applies + (f"; only {', '.join(only)}" if only else "")

    @property
    def needs(self) -> str:
        """What it reads of the teacher."""
        return ", ".join(each for each in get_args(Requirement) if each in self.declared.requires) or "–"

    @property
    def tested(self) -> str:
        """The students of the contract's cases, and published runs."""
        students = dict.fromkeys(case.student for case in cases_of(self.declared))
        cases = f"PyG, DGL: {', '.join(students)}"
        runs = (f"{', '.join(sets)} ([{run}](../results/reference/{run}))" for run, sets in self.published.items())
        return "; ".join([cases, *runs])

    @property
    def search_space(self) -> str:
        """Where its hyper-parameters are searched for, in words."""
        space = search_space(self.declared.params)
        return ", ".join(f"`{name}` {_in_words(search)}" for name, search in space.items()) or "none"

    def row(self) -> str:
        """Its row of the table."""
        link = f"[`{self.name}`](#{self.name})"
        return f"| {link} | {self.title} | {self.tasks} | {self.needs} | {self.source} | {self.tested} |"

    def section(self) -> str:
        """Its docstring, its hyper-parameters and what it is excused from."""
        fields = self.declared.params.model_fields
        defaults = ", ".join(f"`{name}: {json.dumps(field.default)}`" for name, field in fields.items())
        parts = [f"## {self.name}", f"**{self.title}** · [file](../methods/{self.declared.path.name})"]
        parts.append(_markdown(self._paragraphs[1]))
        parts.append(f"Hyper-parameters and defaults: {defaults}." if fields else "No hyper-parameters.")
        parts.append(f"Search space: {self.search_space}.")
        parts.append(f"Tested on: {', '.join(map(str, cases_of(self.declared)))}.")
        excused = dict(self.declared.attributes.get("excused", {}))
        if self.declared.attributes.get("samples", False):
            excused["numbering"] = "it sees a random part of a graph"
        if excused:
            parts.append("Excused from " + "; ".join(f"`{check}`: {why}" for check, why in excused.items()) + ".")
        return "\n\n".join(parts)


def _in_words(search: Search) -> str:
    if isinstance(search, Range):
        return f"{search.low:g} … {search.high:g} ({'log' if search.log else 'linear'})"
    return " or ".join(map(str, search.values))


_GITHUB = r"github\.com/[\w-]+/[\w-]+(?:\.[\w-]+)*"


def _markdown(text: str) -> str:
    """A docstring's text: indented lines as code blocks, references as links."""
    blocks = []
    for block in re.split(r"\n{2,}", text):
        for indented, lines in _runs(block.splitlines()):
            if indented:
                blocks.append("\n".join(["```text", *(line.removeprefix("    ") for line in lines), "```"]))
            else:
                blocks.append("\n".join(map(_escaped, lines)))
    return "\n\n".join(blocks)


def _runs(lines: Sequence[str]) -> Iterator[tuple[bool, list[str]]]:
    """Lines that follow one another and are indented, or are not."""
    found: list[tuple[bool, list[str]]] = []
    for line in lines:
        indented = line.startswith("    ")
        if not found or found[-1][0] != indented:
            found.append((indented, []))
        found[-1][1].append(line)
    yield from found


def _escaped(line: str) -> str:
    parts = re.split(r"(``.+?``)", line)
    return "".join(f"`{part[2:-2]}`" if part.startswith("``") and len(part) > 4 else _linked(part) for part in parts)


def _linked(text: str) -> str:
    text = re.sub(r"([\\*_<|])", r"\\\1", text)
    text = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    return re.sub(_GITHUB, lambda found: f"[{found[0]}](https://{found[0]})", text)


def published(root: Path) -> dict[str, dict[str, list[str]]]:
    """For each method's file name, the published runs and their data sets that it was run on."""
    found: dict[str, dict[str, list[str]]] = {}
    for table in sorted(root.glob("results/reference/*/comparison.csv")):
        entries = _entries(root, table.with_name("provenance.json"))
        with table.open(newline="", encoding="utf-8") as lines:
            rows = {(row["dataset"], row["method"]): None for row in csv.DictReader(lines)}
        for dataset, variant in rows:
            for part in ((entries.get(variant) or {}).get("method") or variant).split("+"):
                try:
                    file = find("method", (entries.get(part) or {}).get("method") or part, [root / "methods"])
                except PluginError:  # the teacher, or a method that is no longer there
                    continue
                sets = found.setdefault(file.stem, {}).setdefault(table.parent.name, [])
                sets += [dataset] if dataset not in sets else []
    return found


def _entries(root: Path, provenance: Path) -> dict[str, Any]:
    """The methods of a published run's config: which file a variant's name stands for."""
    config = root / json.loads(provenance.read_text())["config"]["file"] if provenance.is_file() else root
    if not config.is_file():
        return {}
    entries: dict[str, Any] = yaml.safe_load(config.read_text())["methods"]
    return entries


def catalogue(root: Path) -> str:
    """The text of the document. Raises PluginError for a file that cannot be read."""
    runs, folder = published(root), root / "methods"
    pages = [Page(declaration("method", folder / f"{n}.py"), runs.get(n, {})) for n in available([folder])]
    table = ["| Method | Title | Tasks | Needs | Source | Tested on |", "|:---|:---|:---|:---|:---|:---|"]
    table += [page.row() for page in pages]
    return "\n".join([INTRODUCTION, *table]) + "\n\n" + "\n\n".join(page.section() for page in pages) + "\n"


def write_catalogue(root: Path, *, checking: bool = False) -> int:
    """Write the document; or only look whether it is as it would be written: 1 where it is not."""
    text, file = catalogue(root), root / DOCUMENT
    if not checking:
        write_atomically(file, text)
    elif not file.is_file() or file.read_text(encoding="utf-8") != text:
        print(f"{file} is not what methods/ says: run distillbench docs", file=sys.stderr)
        return 1
    return 0
