"""Write docs/reliability.md from the docstrings of the tests that provoke faults: ``python docs/reliability.py``.

Such a test's docstring has three paragraphs, Fault, Provoked and Promised, so the page says what is tested and no more.
"""

import ast
import html
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reliability.md"
FIELDS = ("Fault", "Provoked", "Promised")
HEADER = """\
# What happens when something goes wrong

Every row is a test; the page is made from their docstrings by `python docs/reliability.py`, and a test keeps it so.
Those in `tests/slurm` are run by `make test-slurm`, the one in `test_pods.py` by `make test-pods`, all others by
`make test`; those that mount a small disk need root, and say so where they are skipped.
"""
COLUMNS = "| Fault | How it is provoked | What is promised | Test |\n|:--|:--|:--|:--|\n"


class Shown(NamedTuple):
    """A test that provokes a fault. group: what the docstring of its file says first."""

    group: str
    file: str
    line: int
    test: str
    fields: dict[str, str]


def tests() -> Iterator[Shown]:
    """Every such test, by file and line. Raises ValueError naming the test whose docstring lacks a field."""
    for file in sorted((ROOT / "tests").rglob("*.py")):
        module = ast.parse(file.read_text(encoding="utf-8"))
        group = (ast.get_docstring(module) or "").split("\n\n")[0].replace("\n", " ").rstrip(".")
        for node in module.body:
            text = ast.get_docstring(node) or "" if isinstance(node, ast.FunctionDef) else ""
            if text.startswith("Fault:"):
                assert isinstance(node, ast.FunctionDef)
                place = str(file.relative_to(ROOT))
                yield Shown(group, place, node.lineno, node.name, fields_of(text, f"{place}: {node.name}"))


def fields_of(text: str, place: str) -> dict[str, str]:
    """The three fields of a docstring. Raises ValueError where one is missing, empty or there twice."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        begin, _, rest = line.partition(":")
        if begin in FIELDS:
            name = begin
            if name in found:
                raise ValueError(f"{place}: the docstring has {name!r} twice")
            found[name] = rest.strip()
        elif line.strip():
            found[name] += f" {line.strip()}"
    if missing := [name for name in FIELDS if not found.get(name)]:
        raise ValueError(f"{place}: the docstring has no {', '.join(map(repr, missing))}")
    return found


def page() -> str:
    """The page, a table for each file of tests."""
    parts, group = [HEADER], None
    for shown in tests():
        if shown.file != group:
            group = shown.file
            parts.append(f"\n## {shown.group}\n\n{COLUMNS}")
        texts = [_in_a_cell(shown.fields[name]) for name in FIELDS]
        cells = [text[0].upper() + text[1:] for text in texts]
        name = shown.test.removeprefix("test_").replace("_", " ")
        parts.append(f"| {' | '.join(cells)} | [{name}](../{shown.file}) |\n")
    return "".join(parts)


def _in_a_cell(text: str) -> str:
    """Markdown that stays in its cell, where what is not in backticks is text and no tag."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [html.escape(part, quote=False) for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
