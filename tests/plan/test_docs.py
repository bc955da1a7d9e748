"""What the documents say is what there is."""

import re
from pathlib import Path

import pytest
import yaml

from distillbench.config import Compare, Config, Execution, Protocol

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_a_method_file_whole():
    assert f"```python\n{(ROOT / 'methods/at.py').read_text()}```" in (ROOT / "README.md").read_text()


RESULTS = [("README.md", "default"), ("docs/paper.md", "paper-small"), ("docs/standard.md", "standard-cora")]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document, name", RESULTS)
def test_results_in_documents_are_those_of_the_published_run(document, name):
    published = (ROOT / f"results/reference/{name}/comparison.md").read_text()
    assert published in (ROOT / document).read_text()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_a_document_links_to_exists(document):
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), target


def test_every_config_a_document_names_exists():
    for document in DOCUMENTS:
        for name in re.findall(r"config/[a-z/-]+\.yaml", (ROOT / document).read_text()):
            assert (ROOT / name).exists(), name


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
    for name, version in re.findall(r'^ +"([a-z-]+)==([\d.]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE):
        assert lock[name] == version
    assert "+" not in text
    assert "://" not in text
    assert re.search(r"^dgl==1\.1\.3; python_version < '3\.12'", text, re.MULTILINE)
