"""Any config"""

import copy
import tempfile
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st

from distillbench.config.config import ConfigError
from distillbench.jobs.run import read_plan
from distillbench.jobs.selection import Options
from distillbench.plan.figures import figure_files
from distillbench.plan.plan import Plan
from tests.fuzz.conftest import cases

ROOT = Path(__file__).parents[2]
TEXTS = {file: file.read_text() for file in sorted((ROOT / "config").rglob("*.yaml"))}
VALUES = {file: yaml.safe_load(text) for file, text in TEXTS.items()}
WORDS = (
    "digits", "lsp", "lps", "kd", "lsp+kd", "supervised", "teacher", "pyg", "csr", "gat", "mlp", "dgcnn", "official",
    "none", "../up", "/abs", ".", "", "a/b", "<b>", "=1+1", "{x}", "é", "\x00", "y" * 300, "None", "nan", "1e400", "🙂",
    "__use_yte__",
)  # fmt: skip
KEYS = (
    "results",
    "seeds",
    "method",
    "dataset",
    "params",
    "pairs",
    "training",
    "layers",
    "epochs",
    "model",
    "hidden",
    "kd",
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**25), 10**25), st.integers(-3, 12), st.floats(), st.sampled_from(WORDS),
    st.text(max_size=8),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS + WORDS), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Every place in a nested value."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@st.composite
def changed_configs(draw):
    """A config of the project with one to three changes: a value replaced, removed, added, renamed or moved."""
    values = copy.deepcopy(VALUES[draw(st.sampled_from(sorted(VALUES)))])
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from([path for path in places(values) if path] or [()]))
        if not where:
            break
        holder = values
        for key in where[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "remove", "add", "rename", "copy"])):
            case "replace":
                holder[where[-1]] = draw(anything)
            case "remove":
                del holder[where[-1]]
            case "add" if isinstance(holder, dict):
                holder[draw(st.sampled_from(KEYS + WORDS))] = draw(anything)
            case "rename" if isinstance(holder, dict):
                holder[draw(st.sampled_from(KEYS + WORDS))] = holder.pop(where[-1])
            case _:
                other = draw(st.sampled_from(list(places(values))))
                found = values
                for key in other:
                    found = found[key]
                holder[where[-1]] = copy.deepcopy(found)
    return values


def outcome(text: str | bytes) -> Plan | str:
    """The plan of a config file, checked, or the error's text, checked."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fuzzed.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        options = Options(file)
        try:
            plan = read_plan(options, [])
        except ConfigError as error:
            message = str(error)
            assert str(file) in message, "the file is named"
            assert len(message) > len(str(file)) + 10 and "Traceback" not in message
            return message
    consistent(plan)
    return plan


def consistent(plan: Plan) -> None:
    """The seeds are divided without gap or overlap; the files are different ones, all below the results folder."""
    if plan.runs > 5000:
        return
    assert [seed for shard in plan.shards for seed in plan.seeds(shard)] == list(range(plan.config.seeds))
    files = [*plan.shard_files(), *plan.table_files(), *figure_files(plan), *plan.profile_files()]
    assert len(files) == len(set(files))
    root = plan.paths.root.resolve()
    assert all(Path(file).resolve().is_relative_to(root) for file in files)
    assert len(plan.shard_files()) == len(plan.shards) * sum(1 + len(plan.methods_of(cell)) for cell in plan.cells)
    assert set(plan.expected()) == set(plan.shard_files())


@cases(800)
@given(values=changed_configs())
def test_a_changed_config_gives_a_plan_or_an_error_that_names_it(values):
    """Fault: a config has wrong, missing, unknown or misplaced values.

    Provoked: one to three changes at random places of the project's configs, 800 cases (hypothesis).
    Promised: a plan whose files are different ones below the results folder, or an error that names the file.
    """
    outcome(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


@cases(300)
@given(data=st.data())
def test_a_damaged_config_file_gives_a_plan_or_an_error_that_names_it(data):
    """Fault: a config file is damaged.

    Provoked: bytes of the project's configs are replaced, inserted and cut at random places, 300 cases (hypothesis).
    Promised: a plan, or an error that names the file.
    """
    text = TEXTS[data.draw(st.sampled_from(sorted(TEXTS)))].encode()
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = begin + data.draw(st.sampled_from([0, 1, 2, 30, 10**6]))
        text = (
            text[:begin]
            + data.draw(st.binary(max_size=4) | st.sampled_from([b"\t", b": ", b"- ", b"*a", b"&a "]))
            + text[end:]
        )
    outcome(text)
