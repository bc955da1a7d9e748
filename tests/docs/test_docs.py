"""What the documents say is what there is."""

import re
from pathlib import Path

import pytest
import yaml

from distillbench.config.config import Compare, Config, Execution, Protocol

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_a_method_file_whole():
    assert f"```python\n{(ROOT / 'methods/at.py').read_text()}```" in (ROOT / "README.md").read_text()


RESULTS = [("README.md", "default"), ("docs/paper.md", "paper-small"), ("docs/standard.md", "standard-cora")]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document, name", RESULTS)
def test_results_in_documents_are_those_of_the_published_run(document, name):
    published = (ROOT / f"results/reference/{name}/comparison.md").read_text()
    assert published in (ROOT / document).read_text()


def headings_of(text):
    """What the headings of a document are called in links, as GitHub does it."""
    return {
        re.sub(r"[^\w -]", "", line).replace(" ", "-").lower() for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


def test_every_file_and_heading_a_document_links_to_exists():
    texts = {(ROOT / document): (ROOT / document).read_text() for document in DOCUMENTS}
    links = [(file, *target.partition("#")[::2]) for file, text in texts.items()
             for target in re.findall(r"\]\(([^)]+)\)", text) if ":" not in target]  # fmt: skip
    assert len(links) > 150 and len({file for file, *_ in links}) >= 6
    lost = []
    for file, target, heading in links:
        found = (file.parent / target).resolve() if target else file
        if not found.exists() or (heading and heading not in headings_of(found.read_text())):
            lost.append((file.name, target, heading))
    assert lost == []


def test_every_config_a_document_names_exists():
    named = {
        name for document in DOCUMENTS for name in re.findall(r"config/[\w/.-]+\.yaml", (ROOT / document).read_text())
    }
    assert named >= {"config/config.yaml", "config/paper.yaml", "config/standard.yaml", "config/ablations/tap.yaml"}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_default_config_explains_every_key():
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    assert set(values) == set(Config.model_fields)
    for section, model in (("protocol", Protocol), ("compare", Compare), ("execution", Execution)):
        assert set(values[section]) == set(model.model_fields)
    config = Config(**values)
    for section in ("protocol", "compare", "execution"):  # and says what the defaults are
        assert getattr(config, section) == Config.model_fields[section].default


def test_the_lock_pins_what_the_project_asks_for():
    text = (ROOT / "requirements.lock").read_text()
    lock = dict(line.split(";")[0].strip().split("==") for line in text.splitlines() if line[0] != "#")
    asked = dict(re.findall(r'^ +"([a-z-]+)==([\d.]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert asked.items() <= lock.items() and {"torch", "torch-geometric", "dgl"} <= asked.keys()
    assert "+" not in text
    assert "://" not in text
    assert re.search(r"^dgl==1\.1\.3; python_version < '3\.12'", text, re.MULTILINE)
