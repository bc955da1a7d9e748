"""Equal tuning: what is searched, the file of chosen values, and what readers are told. The trials: test_study."""

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import pytest
from pydantic import PositiveFloat, PositiveInt

from distillbench.config.config import Pair, Tune
from distillbench.config.variants import Part, Variant, read_variant
from distillbench.jobs.tables import collect
from distillbench.jobs.tune import proposed
from distillbench.params import ALL_TASKS, Choice, Parameters, Range
from distillbench.plan.plan import asked_hyperparameters, hyperparameters
from distillbench.plan.tuning import (
    Trial,
    Tuning,
    defaults,
    in_words,
    read_tuning,
    space_of,
    with_chosen,
    with_values,
    write_tuning,
)
from distillbench.plugins import Declaration, declaration
from distillbench.record import Record, RecordError, digest, read_record, sealed, write_shard
from distillbench.tables.tuning import footnotes, tuning_table
from distillbench.tracking.runs import Source, run_tags

ROOT = Path(__file__).parents[2]
SPACE = {
    "method": {
        "weight": {"low": 1.0, "high": 100.0, "log": True, "whole": False},
        "kernel": {"values": ["rbf", "cosine"]},
    },
    "training": {"learning_rate": {"low": 0.0025, "high": 0.04, "log": True, "whole": False}},
}
OWN = {"method": {"weight": 10.0, "kernel": "rbf"}, "training": {"learning_rate": 0.01}}


# what is searched


class Params(Parameters):
    weight: Annotated[PositiveFloat, Range(1, 1000)] = 100.0
    steps: Annotated[PositiveInt, Range(1, 8)] = 2
    kernel: Annotated[str, Choice("rbf", "cosine")] = "rbf"
    layers: Annotated[tuple[tuple[int, int], ...] | None, Choice([[-1, -1]], [[0, 0]])] = None
    width: int = 256


def part(name="lsp", **given):
    declared = Declaration(Path("lsp.py"), "Lsp", {"tasks": ALL_TASKS, "requires": frozenset()}, Params, frozenset())
    return Part(name, declared, given, f"methods.{name}")


def pair(**changes):
    values = {"teacher": {"model": "gat", "hidden": 8}, "student": {"model": "gat", "hidden": 2}, **changes}
    return Pair(**values)


def test_what_a_method_declares_is_searched_and_the_learning_rate_around_the_pairs():
    space = space_of(Variant("lsp", (part(),)), pair(training={"learning_rate": 0.02}), Tune())
    assert set(space["method"]) == {"weight", "steps", "kernel", "layers"}
    assert space["method"]["weight"] == {"low": 1, "high": 1000, "log": True, "whole": False}
    assert space["method"]["steps"]["whole"]
    assert space["method"]["kernel"] == {"values": ["rbf", "cosine"]}
    assert space["training"]["learning_rate"] == {"low": 0.005, "high": 0.08, "log": True, "whole": False}
    assert json.loads(json.dumps(space)) == space


def test_what_the_config_gives_stays_as_given():
    space = space_of(Variant("lsp", (part(weight=5, kernel="cosine"),)), pair(layers=[[0, 0]]), Tune(learning_rate=1))
    assert set(space["method"]) == {"steps"}  # layers: the pair gives them
    assert space["training"] == {}


def test_the_values_of_a_combination_are_named_after_its_parts():
    space = space_of(Variant("both", (part("lsp-v1.5", weight=3), part("kd"))), pair(), Tune())
    assert "lsp-v1.5.weight" not in space["method"] and {"lsp-v1.5.kernel", "kd.weight"} <= set(space["method"])
    params = {"method": {"name": "both", "params": {"lsp-v1.5": {"kernel": "rbf"}, "kd": {"weight": 100.0}}}}
    params["training"] = {"learning_rate": 0.01, "epochs": 3}
    few = {"method": {name: space["method"][name] for name in ("lsp-v1.5.kernel", "kd.weight")}, "training": {}}
    assert defaults(few, params) == {"method": {"lsp-v1.5.kernel": "rbf", "kd.weight": 100.0}, "training": {}}
    values = {"method": {"lsp-v1.5.kernel": "cosine", "kd.weight": 7.0}, "training": {"learning_rate": 0.02}}
    merged = with_values(params, values)
    assert merged["method"] == {"name": "both", "params": {"lsp-v1.5": {"kernel": "cosine"}, "kd": {"weight": 7.0}}}
    assert merged["training"] == {"learning_rate": 0.02, "epochs": 3}
    assert params["training"]["learning_rate"] == 0.01  # nothing is changed in place
    assert with_values(params, defaults(few, params)) == params


def test_values_of_a_part_that_were_not_searched_stay():
    params = {"method": {"params": {"lsp": {"weight": 1.0, "sigma": 5.0}, "kd": {"alpha": 0.5}}}, "training": {}}
    merged = with_values(params, {"method": {"lsp.weight": 7.0}, "training": {}})
    assert merged["method"]["params"] == {"lsp": {"weight": 7.0, "sigma": 5.0}, "kd": {"alpha": 0.5}}


# every method of the project


@pytest.mark.parametrize("name", sorted(file.stem for file in (ROOT / "methods").glob("[!_]*.py")))
def test_what_is_proposed_is_what_the_method_takes(name):
    variant = read_variant(name, {name: {}}, lambda file: declaration("method", ROOT / f"methods/{file}.py"))
    space = space_of(variant, pair(), Tune())
    own = defaults(space, {"method": {"params": variant.params()}, "training": {"learning_rate": 0.01}})
    params = variant.parts[0].declared.params
    for number in range(4):
        drawn = proposed(space, [Trial(number=n, values=own, status="oom") for n in range(number)], (name,))
        assert params(**drawn["method"]).model_dump(mode="json").items() >= drawn["method"].items()


# the file, and what is told of it


def tuning_like(**changes):
    trials = [
        Trial(number=0, values=OWN, status="ok", scores=[0.7, 0.8], val=0.75),
        Trial(number=1, values=with_weight(2.5), status="ok", scores=[0.8, 0.9], val=0.85),
        Trial(number=2, values=with_weight(90.0), status="diverged", reason="nan", scores=[0.2]),
        Trial(number=3, values=with_weight(1.0), status="ok", scores=[0.1, 0.2], val=0.15),
    ]
    values = {
        "key": "k", "dataset": "digits", "pair": "gat", "method": "lsp", "backend": "pyg", "metric": "accuracy",
        "resplit": True, "trials": trials, "asked": {"trials": 4, "seeds": 2, "learning_rate": 4.0},
        "seeds": [1000000, 1000001], "sampler": "TPE (Optuna 5.0.0)", "space": SPACE,
        "chosen": with_weight(2.5), "chosen_trial": 1,
    }  # fmt: skip
    return Tuning(**(values | changes))


def with_weight(weight):
    return {**OWN, "method": {"weight": weight, "kernel": "rbf"}}


def written(folder, *tunings):
    files = []
    for tuning in tunings:
        files.append(str(folder / f"{tuning.method}.json"))
        write_tuning(Path(files[-1]), tuning)
    return files


def test_the_file_is_read_as_it_was_written_and_damage_is_named(tmp_path):
    (file,) = written(tmp_path, tuning_like())
    assert read_tuning(Path(file)) == tuning_like()
    Path(file).write_text(Path(file).read_text().replace("2.5", "3.5"))
    with pytest.raises(RecordError, match=r"lsp\.json: .*checksum"):
        read_tuning(Path(file))
    Path(file).write_text("{")
    with pytest.raises(RecordError, match=r"lsp\.json: .*JSON"):
        read_tuning(Path(file))


def test_values_of_another_budget_are_not_used(tmp_path):
    (file,) = written(tmp_path, tuning_like())
    params = {"method": {"params": {"weight": 1, "kernel": "rbf"}}, "training": {"learning_rate": 1}}
    same = with_chosen({**params, "tuned": {"file": file, "trials": 4, "seeds": 2, "learning_rate": 4.0}})
    assert same["method"]["params"]["weight"] == 2.5
    with pytest.raises(RecordError, match=r"lsp\.json: was tuned with .*\"trials\":4.*asks for .*\"trials\":20"):
        with_chosen({**params, "tuned": {"file": file, "trials": 20, "seeds": 2, "learning_rate": 4.0}})


def test_the_facts_of_a_record_are_those_of_the_file():
    assert tuning_like().facts() == {
        "trials": 4, "seeds": 2, "val_default": 0.75, "val_chosen": 0.85, "spread": [0.15, 0.85],
    }  # fmt: skip


def test_the_footnotes_state_budget_values_gain_and_spread(tmp_path):
    chosen = {"method": {}, "training": {"learning_rate": 0.01}}
    space = {"method": {}, "training": SPACE["training"]}
    alone = tuning_like(method="supervised", space=space, chosen=chosen, chosen_trial=0)
    nothing = {"method": {}, "training": {}}
    fixed = tuning_like(method="glnn", space=nothing, chosen=nothing, chosen_trial=0)
    budget, chosen = footnotes(written(tmp_path, tuning_like(), alone, fixed))
    assert "4 trials per method, the student alone included: the default values, then 3 by TPE (Optuna 5.0.0)" in budget
    assert "Fewer trials" not in budget
    assert "2 seeds (1000000 to 1000001), not reported" in budget
    assert "within a factor of 4, for every method" in budget
    assert "The split of digits is redrawn with the seed" in budget and "may be test nodes of reported seeds" in budget
    assert chosen.startswith("Tuned, digits, gat (with PyG): validation accuracy in %")
    lsp = "lsp (3 searched) 75.0 → 85.0 [15.0, 85.0] weight 2.5, kernel rbf, learning rate 0.01 (1 of 4 trials failed)"
    assert f": {lsp}; supervised (1 searched) 75.0 → 75.0 [15.0, 85.0] the defaults: learning rate 0.01 (" in chosen
    assert "glnn (0 searched) 75.0 → 75.0 [15.0, 85.0] nothing to vary (" in chosen
    fixed_split = tuning_like(resplit=False, seeds=[1000000])
    (budget, _) = footnotes(written(tmp_path, fixed_split))
    assert "redrawn" not in budget and "1 seed (1000000)" in budget
    assert footnotes([]) == []


def test_the_footnotes_name_the_methods_with_fewer_trials_and_why(tmp_path):
    reason = "its teacher has the status diverged: epoch 1: loss = nan"
    ended = {"trials": [Trial(number=0, values=OWN, status="skipped", reason=reason)], "chosen": OWN, "chosen_trial": 0}
    kd, at = (tuning_like(method=name, reason=f"no trial finished ({reason})", **ended) for name in ("kd", "at"))
    (budget, _) = footnotes(written(tmp_path, tuning_like(), kd, at))
    assert f". Fewer trials: digits, gat: kd, at 1 (skipped: {reason}). A trial's score is" in budget


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        (4, "then 3 by TPE (Optuna 5.0.0), which draws at random with so few trials."),
        (10, "then 9 by TPE (Optuna 5.0.0), which draws at random with so few trials."),
        (11, "then 10 by TPE (Optuna 5.0.0), the first 9 drawn at random."),
        (20, "then 19 by TPE (Optuna 5.0.0), the first 9 drawn at random."),
    ],
)
def test_the_footnotes_say_which_trials_were_drawn_at_random(tmp_path, trials, expected):
    many = [Trial(number=n, values=with_weight(n + 1.0), status="ok", scores=[0.5], val=0.5) for n in range(trials)]
    asked = {"trials": trials, "seeds": 1, "learning_rate": 1.0}
    (budget, _) = footnotes(written(tmp_path, tuning_like(trials=many, asked=asked)))
    assert expected in budget
    assert "learning rate" not in budget  # nobody's was searched


def test_the_table_has_a_row_a_trial(tmp_path):
    hostile = tuning_like(method="a,b\n\"c'")
    files = [str(tmp_path / "0.json"), str(tmp_path / "1.json")]
    for file, tuning in zip(files, (tuning_like(), hostile), strict=True):
        write_tuning(Path(file), tuning)
    assert tuning_table(files, str(tmp_path / "tuning.csv")) == "8 trials of 2 tunings"
    table = pd.read_csv(tmp_path / "tuning.csv")
    assert list(table["method"]) == ["lsp"] * 4 + ["a,b\n\"c'"] * 4
    assert list(table["chosen"][:4]) == ["no", "yes", "no", "no"]
    assert table["val"][:4].tolist()[:2] == [0.75, 0.85] and pd.isna(table["val"][2])
    assert json.loads(table["values"][1]) == with_weight(2.5)
    assert json.loads(table["scores"][0]) == {"1000000": 0.7, "1000001": 0.8}
    assert json.loads(table["scores"][2]) == {"1000000": 0.2}


def test_values_are_told_in_words():
    values = {"method": {"weight": 0.000125, "layers": [[-1, -1]], "steps": 3}, "training": {"learning_rate": 0.02}}
    assert in_words(values) == "weight 0.000125, layers [[-1, -1]], steps 3, learning rate 0.02"
    assert in_words({"method": {}, "training": {}}) == ""


def test_hyperparameters_of_a_record_are_of_the_chosen_values(tmp_path):
    (file,) = written(tmp_path, tuning_like())
    params = {
        "model": {}, "protocol": {}, "dataset_params": {}, "training": {"learning_rate": 0.5, "epochs": 3},
        "method": {"params": {"weight": 1.0, "kernel": "rbf", "width": 4}},
        "tuned": {"file": file, "trials": 4, "seeds": 2, "learning_rate": 4.0},
    }  # fmt: skip
    found = hyperparameters(with_chosen(params))
    assert found["method"] == {"weight": 2.5, "kernel": "rbf", "width": 4}
    assert found["training"] == {"learning_rate": 0.01, "epochs": 3}
    assert digest(found) == asked_hyperparameters({"params": params})


@pytest.mark.parametrize("asked_for", [True, False])
@pytest.mark.parametrize("said", [True, False])
def test_a_record_that_says_otherwise_than_the_config_whether_it_was_tuned_is_refused(tmp_path, said, asked_for):
    (file,) = written(tmp_path, tuning_like(chosen=OWN, chosen_trial=0))  # what was chosen is what is given
    params = {
        "model": {},
        "protocol": {},
        "dataset_params": {},
        **with_values({"method": {"params": {}}, "training": {}}, OWN),
    }
    known = {"key": "k", "dataset": "digits", "backend": "pyg", "pair": "gat", "method": "lsp", "role": "student"}
    known |= {"seed": 0, "status": "ok", "task": "multiclass", "metric": "accuracy", "val": 0.5, "test": 0.5}
    facts = tuning_like().facts() if said else {}
    shard = tmp_path / "records-0.json"
    write_shard(shard, [Record(**known, digests={"code": "c"}, hyperparameters=hyperparameters(params), tuning=facts)])
    tuned = {"params": {**params, "tuned": {"file": file, "trials": 4, "seeds": 2, "learning_rate": 4.0}}}
    expected = {
        str(shard): {
            "seeds": [0],
            "code": "c",
            **(tuned if asked_for else {"hyperparameters": digest(hyperparameters(params))}),
        }
    }
    files = (str(tmp_path / name) for name in ("runs.csv", "runs.parquet", "rows.npz"))
    arguments = (expected, [], ["lsp"], *files)
    if said == asked_for:
        assert collect(*arguments) == "1 runs: 1 ok"
        return
    with pytest.raises(RecordError, match=r"records-0\.json: .*tuned.*Delete it and run snakemake again") as error:
        collect(*arguments)
    assert ("does not say" in str(error.value)) == asked_for
    assert not (tmp_path / "runs.csv").exists()


def test_mlflow_can_tell_tuned_runs_from_others(tmp_path):
    known = {"key": "k", "dataset": "digits", "backend": "pyg", "pair": "gat", "method": "lsp", "role": "student"}
    known |= {"seed": 0, "status": "ok", "task": "multiclass", "metric": "accuracy"}
    tuned, usual = Record(**known, tuning=tuning_like().facts()), Record(**known)
    tags = run_tags(Source("run", "digits", "digest", (), tuned))
    assert (tags["tuned"], tags["tuning.trials"], tags["tuning.seeds"]) == ("yes", "4", "2")
    assert (tags["tuning.val_default"], tags["tuning.val_chosen"]) == ("0.75", "0.85")
    assert tags["tuning.spread"] == "[0.15, 0.85]"
    assert not [tag for tag in run_tags(Source("run", "digits", "digest", (), usual)) if tag.startswith("tun")]


def test_a_record_from_before_there_was_tuning_is_read(tmp_path):
    known = {"key": "k", "dataset": "digits", "backend": "pyg", "pair": "gat", "method": "lsp", "role": "student"}
    known |= {"seed": 0, "status": "ok", "task": "multiclass", "metric": "accuracy"}
    old = Record(**known).model_dump(mode="json", exclude={"tuning"})
    (tmp_path / "seed-0.json").write_text(json.dumps(sealed(old)))
    assert read_record(tmp_path / "seed-0.json").tuning == {}
