"""The page of faults is what the tests' docstrings say."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("reliability", ROOT / "docs/reliability.py")
reliability = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reliability)


def test_the_page_is_made_from_the_tests():
    assert reliability.PAGE.read_text() == reliability.page(), "run `python docs/reliability.py`"
    assert len(list(reliability.tests())) > 50


def test_every_cell_stays_one_cell():
    for line in reliability.page().splitlines():
        if line.startswith("|"):
            assert line.replace(r"\|", "").count("|") == 5
            assert not re.search(r"<\w", "".join(line.split("`")[::2])), "a tag would be read as one"


@pytest.mark.parametrize(
    "text, missing",
    [
        ("Fault: a.\n\nPromised: c.", "'Provoked'"),
        ("Fault: a.\n\nProvoked: b.\nPromised:", "'Promised'"),
        ("Fault: a.\nFault: b.", "'Fault' twice"),
    ],
)
def test_a_docstring_that_lacks_a_field_is_named(text, missing):
    with pytest.raises(ValueError, match=f"tests/x.py: test_y: .*{missing}"):
        reliability.fields_of(text, "tests/x.py: test_y")


def test_a_field_may_have_several_lines():
    text = "Fault: a\n  b.\n\nProvoked: c | d.\nPromised: e: f."
    assert reliability.fields_of(text, "") == {"Fault": "a b.", "Provoked": "c | d.", "Promised": "e: f."}
