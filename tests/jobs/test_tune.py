"""What the trials of a method promise: as many for each, the same again after a kill, and never a look at the test."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from distillbench.config.config import TUNING_SEEDS_FROM, ConfigError
from distillbench.data.graph_data import write_data
from distillbench.jobs import tune as study
from distillbench.jobs.train import Job
from distillbench.jobs.tune import best_of, proposed, search
from distillbench.paths import Cell
from distillbench.plan.plan import asked_hyperparameters, make_plan
from distillbench.plan.tuning import RANDOM_TRIALS, Trial, read_tuning
from distillbench.plugins import load
from distillbench.record import digest, read_shard
from distillbench.tables.tuning import footnotes
from distillbench.training import experiment
from distillbench.training.experiment import Experiment, Outcome

ROOT = Path(__file__).parents[2]
SCOPE = ("digits", "gat", "kd")
SPACE = {
    "method": {
        "weight": {"low": 1.0, "high": 100.0, "log": True, "whole": False},
        "kernel": {"values": ["rbf", "cosine"]},
    },
    "training": {"learning_rate": {"low": 0.0025, "high": 0.04, "log": True, "whole": False}},
}
OWN = {"method": {"weight": 10.0, "kernel": "rbf"}, "training": {"learning_rate": 0.01}}


class Evaluated:
    """A stub objective that remembers what was evaluated. score: of the values; None fails."""

    def __init__(self, score):
        self.score, self.numbers = score, []

    def __call__(self, number, values):
        self.numbers.append(number)
        val = self.score(values)
        if val is None:
            return Trial(number=number, values=values, status="diverged", reason="epoch 1: loss = nan")
        return Trial(number=number, values=values, status="ok", scores=[val], val=val)


def near_thirty(values):
    return 1 / (1 + abs(values["method"]["weight"] - 30) / 30) / (2 if values["method"]["kernel"] == "rbf" else 1)


def run_study(score=near_thirty, trials=14, space=SPACE, own=OWN, **more):
    evaluate = Evaluated(score)
    return search(space, own, evaluate, trials, scope=SCOPE, **more), evaluate


# the search


def test_the_first_trial_is_the_defaults_and_the_others_are_in_the_space_with_three_digits():
    trials, _ = run_study()
    assert trials[0].values == OWN
    assert [trial.number for trial in trials] == list(range(14))
    for trial in trials[1:]:
        weight, rate = trial.values["method"]["weight"], trial.values["training"]["learning_rate"]
        assert 1 <= weight <= 100 and 0.0025 <= rate <= 0.04
        assert weight == float(f"{weight:.3g}") and rate == float(f"{rate:.3g}")
        assert trial.values["method"]["kernel"] in ("rbf", "cosine")
    assert len({json.dumps(trial.values) for trial in trials}) == 14


def test_the_search_learns_from_its_trials():
    trials, _ = run_study(trials=30)
    late = [near_thirty(trial.values) for trial in trials[15:]]
    early = [near_thirty(trial.values) for trial in trials[:10]]
    assert sum(late) / len(late) > sum(early) / len(early)


def test_trials_are_drawn_at_random_until_ten_have_been_seen():
    """What is random heeds no score; the number is Optuna's to keep, and the footnote's to tell."""
    trials, _ = run_study(trials=RANDOM_TRIALS)
    other = [trial.model_copy(update={"val": 1 - trial.val}) for trial in trials]
    for number in range(1, RANDOM_TRIALS):
        assert proposed(SPACE, trials[:number], SCOPE) == proposed(SPACE, other[:number], SCOPE)
    assert proposed(SPACE, trials, SCOPE) != proposed(SPACE, other, SCOPE)


def test_studies_of_different_methods_draw_differently():
    assert proposed(SPACE, [], SCOPE) != proposed(SPACE, [], ("digits", "gat", "at"))


@pytest.mark.parametrize("killed_in", [1, 5, 13])
def test_a_study_that_is_interrupted_goes_on_exactly_as_it_would_have(killed_in):
    whole, _ = run_study()
    kept = []

    def killed(number, values):
        if number == killed_in:
            raise KeyboardInterrupt
        return Evaluated(near_thirty)(number, values)

    def keep(trials):
        kept[:] = [Trial(**json.loads(trial.model_dump_json())) for trial in trials]  # as from a file

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, OWN, killed, 14, scope=SCOPE, keep=keep)
    assert len(kept) == killed_in
    resumed, evaluated = run_study(done=kept)
    assert resumed == whole
    assert evaluated.numbers == list(range(killed_in, 14))


def test_more_trials_run_the_new_ones_only_and_fewer_none():
    few, _ = run_study(trials=6)
    more, evaluated = run_study(trials=9, done=few)
    assert more[:6] == few and evaluated.numbers == [6, 7, 8]
    fewer, evaluated = run_study(trials=4, done=few)
    assert fewer == few[:4] and evaluated.numbers == []


def test_every_method_has_the_same_number_of_trials_the_student_alone_too():
    alone = {"method": {}, "training": SPACE["training"]}
    own = {"method": {}, "training": OWN["training"]}
    trials, evaluated = run_study(lambda values: values["training"]["learning_rate"], space=alone, own=own)
    assert len(trials) == len(evaluated.numbers) == len(run_study()[0])


def test_values_that_were_tried_are_a_trial_but_not_run_again():
    nothing = {"method": {}, "training": {}}
    trials, evaluated = run_study(lambda _: 0.5, space=nothing, own=nothing)
    assert len(trials) == 14 and evaluated.numbers == [0]
    assert {trial.val for trial in trials} == {0.5}


def test_of_equal_scores_the_earlier_is_chosen_so_the_defaults():
    trials, _ = run_study(lambda _: 0.5)
    assert best_of(trials).number == 0
    trials, _ = run_study(lambda values: 0.4 if values == OWN else 0.5)
    assert best_of(trials).number == 1


def test_a_trial_that_fails_is_visible_and_never_chosen():
    trials, _ = run_study(lambda values: None if values["method"]["kernel"] == "rbf" else 0.1)
    assert trials[0].status == "diverged" and trials[0].val is None
    assert best_of(trials).values["method"]["kernel"] == "cosine"
    tried = [trial.values["method"]["kernel"] for trial in trials[10:]]
    assert tried.count("cosine") > tried.count("rbf")  # a failure counts as worse than the worst score


def test_where_all_trials_fail_the_defaults_are_kept():
    trials, _ = run_study(lambda _: None)
    assert len(trials) == 14 and best_of(trials).values == OWN


def test_a_default_outside_of_the_space_is_tried_but_is_no_guide():
    own = {**OWN, "method": {"weight": 5000.0, "kernel": None}}
    trials, evaluated = run_study(lambda values: 0.9 if values["method"]["weight"] > 100 else 0.1, own=own)
    assert trials[0].values == own and best_of(trials).number == 0 and len(evaluated.numbers) == 14


def test_choices_may_be_anything_json_has():
    space = {"method": {"layers": {"values": [[[-1, -1]], [[0, 0]], None, True]}}, "training": {}}
    own = {"method": {"layers": None}, "training": {}}
    trials, _ = run_study(lambda _: 0.5, space=space, own=own)
    assert all(trial.values["method"]["layers"] in space["method"]["layers"]["values"] for trial in trials)
    assert len({json.dumps(trial.values) for trial in trials}) > 1


def test_choices_that_python_takes_for_equal_are_different_choices():
    space = {"method": {"layers": {"values": [1, True, "1", 1.5]}}, "training": {}}
    trials, evaluated = run_study(lambda _: 0.5, space=space, own={"method": {"layers": 1}, "training": {}})
    tried = {(type(trial.values["method"]["layers"]), trial.values["method"]["layers"]) for trial in trials}
    assert tried == {(int, 1), (bool, True), (str, "1"), (float, 1.5)}
    assert len(evaluated.numbers) == 4  # True was not taken for the 1 that had been tried


# trials on real data


def planned(folder, tune=None, **changes):
    values = {
        "results": str(folder / "results"),
        "seeds": 2,
        "backends": ["pyg"],
        "datasets": {
            "digits": {
                "pairs": {
                    "gat": {
                        "teacher": {"model": "gat", "hidden": 4, "heads": 1},
                        "student": {"model": "gcn", "hidden": 4},
                        "training": {"epochs": 2},
                    }
                }
            }
        },
        "methods": {"supervised": None, "kd": None},
        "tune": tune or {"trials": 3, "seeds": 2},
        **changes,
    }
    return make_plan(values, [], ROOT)


CELL = Cell("digits", "pyg", "gat")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The digits, written once."""
    folder = tmp_path_factory.mktemp("data")
    plugin = load("dataset", ROOT / "datasets/digits.py")
    dataset = plugin(plugin.Params())
    write_data(folder / "results/data/digits", "digits", dataset, dataset.load())
    return folder


@pytest.fixture
def project(data, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/data").symlink_to(data / "results/data")
    return tmp_path


def train(plan, params, sources):
    execution = plan.config.execution.model_dump()
    job = Job(str(plan.paths.root), 0, params, sources, execution, plan.runs)
    return job, job.run()


def tune(plan, method):
    for teacher in plan.teachers_of(CELL, method):
        train(plan, plan.tuning_teacher_params(teacher), plan.teacher_sources(Cell("digits", "pyg", "gat")))
    file = plan.paths.tuning("digits", "gat", method)
    arguments = plan.tuning_params(CELL, method)
    sources, execution = plan.tuning_sources(Cell("digits", "pyg", "gat"), method), plan.config.execution.model_dump()
    summary = study.tune(str(plan.paths.root), **arguments, sources=sources, execution=execution, file=str(file))
    return read_tuning(file), summary


def test_tuning_never_looks_at_the_test_part_nor_at_a_reported_seed(project, monkeypatch):
    plan = planned(project)
    seeds, tests = [], []
    run = Experiment.run

    def watched(self, seed, **more):
        seeds.append(seed)
        return run(self, seed, **more)

    monkeypatch.setattr(Experiment, "run", watched)
    monkeypatch.setattr(experiment, "predict", lambda *_: tests.append(1))  # fit has its own, for validation
    kd, _ = tune(plan, "kd")  # and its teachers
    alone, _ = tune(plan, "supervised")
    assert tests == []
    teachers = read_shard(plan.paths.tuning_runs.shard(CELL, "teacher", 0))
    assert [(each.status, each.test, each.test_metrics) for each in teachers] == [("ok", None, {})] * 2
    assert all(each.val is not None and {"weights", "outputs"} <= each.digests.keys() for each in teachers)
    assert len(seeds) == 2 + 3 * 2 + 3 * 2
    assert set(seeds) == {TUNING_SEEDS_FROM, TUNING_SEEDS_FROM + 1} == set(kd.seeds)
    assert not set(seeds) & {seed for shard in plan.shards for seed in plan.seeds(shard)}
    assert [len(each.trials) for each in (kd, alone)] == [3, 3]
    assert all(len(trial.scores) == 2 for trial in (*kd.trials, *alone.trials))
    assert not list((project / "results").glob("runs/**/*")) and not list((project / "results").glob("teachers/**/*"))
    assert plan.paths.records() == []


def test_a_validation_score_is_that_of_the_same_run_with_its_test(project):
    plan = planned(project)
    params = plan.tuning_params(CELL, "supervised")["run"]
    reported = {key: value for key, value in params.items() if key != "runs"}  # as if these seeds were reported ones
    job, _ = train(plan, reported, [])
    records = [json.loads(job.file(seed, "json").read_text()) for seed in params["seeds"]]
    assert all(record["test"] is not None for record in records)
    outcomes = list(Job(str(plan.paths.root), 0, params, [], job.execution, 0).validate("trial"))
    assert [outcome.val for outcome in outcomes] == [record["val"] for record in records]
    assert all(outcome.test is None and outcome.test_metrics == {} for outcome in outcomes)


def test_a_trials_score_is_the_mean_of_its_seeds(project, monkeypatch):
    of_seed = {TUNING_SEEDS_FROM: 0.5, TUNING_SEEDS_FROM + 1: 0.8}
    monkeypatch.setattr(Experiment, "run", lambda self, seed, **_: Outcome("ok", val=of_seed[seed]))
    tuning, _ = tune(planned(project), "supervised")
    assert [trial.scores for trial in tuning.trials] == [[0.5, 0.8]] * 3
    assert [trial.val for trial in tuning.trials] == [pytest.approx(0.65)] * 3


def test_a_teacher_of_trials_is_the_one_that_would_be_reported_but_for_its_test(project):
    plan = planned(project)
    params, sources = plan.tuning_teacher_params(CELL), plan.teacher_sources(Cell("digits", "pyg", "gat"))
    of_trials, summary = train(plan, params, sources)
    reported, _ = train(plan, {key: value for key, value in params.items() if key != "runs"}, sources)
    for seed in params["seeds"]:
        one, other = (json.loads(job.file(seed, "json").read_text()) for job in (of_trials, reported))
        assert other["digests"].pop("predictions") and not of_trials.file(seed, "predictions.npz").exists()
        same = ("key", "val", "digests", "best_epoch", "params", "split_sizes")
        assert {name: one[name] for name in same} == {name: other[name] for name in same}
        assert one["test"] is None and other["test"] is not None
    assert "mean val" in summary and "test" not in summary


def test_the_chosen_values_are_what_is_trained_and_what_the_record_says(project):
    plan = planned(project)
    tuning, summary = tune(plan, "supervised")
    chosen = tuning.chosen["training"]["learning_rate"]
    assert tuning.chosen_trial and f"learning rate {chosen:g} (trial {tuning.chosen_trial})" in summary
    params = plan.student_params(CELL, "supervised", 0)
    assert params["training"]["learning_rate"] == 0.01 != chosen
    job, _ = train(plan, params, plan.student_sources(Cell("digits", "pyg", "gat"), "supervised"))
    record = json.loads(job.file(0, "json").read_text())
    assert record["hyperparameters"]["training"]["learning_rate"] == chosen
    assert record["tuning"]["trials"] == 3 and record["tuning"]["seeds"] == 2
    assert record["tuning"]["val_chosen"] >= record["tuning"]["val_default"]
    (asked,) = [entry for file, entry in plan.expected().items() if "/supervised/" in file]
    assert asked_hyperparameters(asked) == digest(record["hyperparameters"])
    # the same values given by hand are the same run
    given = planned(project, tune="none")
    by_hand = given.student_params(CELL, "supervised", 0)
    by_hand["training"]["learning_rate"] = chosen
    again, summary = train(given, by_hand, given.student_sources(Cell("digits", "pyg", "gat"), "supervised"))
    assert "; 0 trained" in summary
    assert json.loads(again.file(0, "json").read_text())["tuning"] == {}  # and it says that nobody tuned it


def test_trials_on_disk_are_used_where_everything_that_decides_them_agrees(project, monkeypatch):
    plan = planned(project)
    first, _ = tune(plan, "supervised")
    trained = []
    validate = Job.validate

    def counted(self, title):
        trained.append(title)
        return validate(self, title)

    monkeypatch.setattr(Job, "validate", counted)
    again, summary = tune(plan, "supervised")
    assert again == first and trained == [] and "0 of 3 trials run" in summary
    more, summary = tune(planned(project, tune={"trials": 5}), "supervised")
    assert more.trials[:3] == first.trials and len(trained) == 2 and "2 of 5 trials run" in summary
    trained.clear()
    tune(planned(project, tune={"trials": 3, "learning_rate": 2}), "supervised")  # another space
    assert len(trained) == 3
    trained.clear()
    kept = project / "results/tuning/runs/digits/pyg/gat/supervised/trials.json"
    kept.write_text(kept.read_text().replace('"val": 0.', '"val": 0.9', 1))
    tune(planned(project, tune={"trials": 3, "learning_rate": 2}), "supervised")  # damaged: not trusted
    assert len(trained) == 3


def test_another_version_of_the_sampler_runs_the_trials_again(project, monkeypatch):
    plan = planned(project)
    tune(plan, "supervised")
    version = metadata.version
    monkeypatch.setattr(study.metadata, "version", lambda name: "99.0" if name == "optuna" else version(name))
    tuning, summary = tune(plan, "supervised")
    assert tuning.sampler == "TPE (Optuna 99.0)" and "3 of 3 trials run" in summary


@pytest.mark.parametrize("status", ["oom", "timeout", "skipped"])
def test_what_failed_for_a_reason_of_the_moment_is_tried_again_and_all_after_it(project, monkeypatch, status):
    plan = planned(project, tune={"trials": 4, "seeds": 1})
    run, calls = Experiment.run, []

    def short(self, seed, **more):
        calls.append(seed)
        return Outcome(status, "not now") if len(calls) == 3 else run(self, seed, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Experiment, "run", short)
        first, _ = tune(plan, "supervised")
    assert [trial.status for trial in first.trials][:3] == ["ok", "ok", status]
    # more time is no other study
    again, summary = tune(
        planned(project, tune={"trials": 4, "seeds": 1}, execution={"run_seconds": 10_000}), "supervised"
    )
    assert "2 of 4 trials run" in summary
    assert again.trials[:2] == first.trials[:2] and [trial.status for trial in again.trials] == ["ok"] * 4
    # the last one was proposed after the result of the third, not after its failure
    assert again.trials[3].values == proposed(again.space, again.trials[:3], ("digits", "gat", "supervised"))


def test_a_trial_that_raises_fails_the_job_and_is_tried_again(project, monkeypatch):
    """Fault: a trial of a tuning study ends with an error (an exception in a method's code).

    Provoked: the third of four trials raises.
    Promised: the job fails, naming the trial and the error, as the method would else be compared with values less tuned
    than others'; the next job goes on at that trial, with the values of a quiet study.
    """
    plan = planned(project, tune={"trials": 4, "seeds": 1})
    fit, calls = experiment.fit, []

    def fails(*of, **more):
        calls.append(of)
        if len(calls) == 3:
            raise KeyError("no such \x1b[31mterm")
        return fit(*of, **more)

    with monkeypatch.context() as patched:
        patched.setattr(experiment, "fit", fails)
        with pytest.raises(study.TrialError, match=r"supervised: trial 2 \(3 of 4\).*: KeyError: .*\[31mterm") as error:
            tune(plan, "supervised")
    assert str(error.value).isprintable()
    tuning, summary = tune(plan, "supervised")
    assert "2 of 4 trials run" in summary and [trial.status for trial in tuning.trials] == ["ok"] * 4


def test_a_divergence_is_a_result_and_not_tried_again(project, monkeypatch):
    plan = planned(project, tune={"trials": 2, "seeds": 1})
    monkeypatch.setattr(Experiment, "run", lambda *_, **__: Outcome("diverged", "epoch 1: loss = nan"))
    tune(plan, "supervised")
    assert "0 of 2 trials run" in tune(plan, "supervised")[1]


@pytest.mark.parametrize("status", ["ok", "diverged", "timeout"])
def test_a_trial_leaves_no_checkpoint(project, monkeypatch, status):
    plan = planned(project)
    written = []

    def stopped(self, seed, *, checkpointing, **_):
        checkpointing.path.write_bytes(b"the state of a model")
        written.append(checkpointing.path)
        return Outcome(status, val=0.5 if status == "ok" else None)

    monkeypatch.setattr(Experiment, "run", stopped)
    tune(plan, "supervised")
    assert written and not any(path.exists() for path in written)


def test_trials_that_diverge_leave_the_defaults_and_say_so(project, monkeypatch):
    monkeypatch.setattr(Experiment, "run", lambda *_, **__: Outcome("diverged", "epoch 1: loss = nan"))
    plan = planned(project)
    tuning, summary = tune(plan, "supervised")
    assert tuning.chosen == {"method": {}, "training": {"learning_rate": 0.01}}
    assert tuning.reason == "no trial finished (diverged: epoch 1: loss = nan)" and tuning.reason in summary
    assert tuning.facts() == {"trials": 3, "seeds": 2}
    (_, text) = footnotes([str(plan.paths.tuning("digits", "gat", "supervised"))])
    assert "supervised (1 searched) – → – defaults, no trial finished (diverged: epoch 1: loss = nan) (3 of 3" in text


def test_a_teacher_that_failed_ends_the_search_at_once(project, monkeypatch):
    plan = planned(project)
    monkeypatch.setattr(Experiment, "run", lambda *_, **__: Outcome("diverged", "epoch 1: loss = nan"))
    tuning, _ = tune(plan, "kd")
    assert [trial.status for trial in tuning.trials] == ["skipped"]
    assert "its teacher has the status diverged" in tuning.reason
    assert not (project / "results/tuning/runs/digits/pyg/gat/kd/trials.json").exists()  # the next job tries again
    (budget, _) = footnotes([str(plan.paths.tuning("digits", "gat", "kd"))])
    assert "Fewer trials: digits, gat: kd 1 (skipped: its teacher has the status diverged: epoch 1" in budget


def test_reported_seeds_are_refused(project):
    plan = planned(project)
    arguments = plan.tuning_params(CELL, "supervised")
    arguments["run"]["seeds"] = [1]
    with pytest.raises(ValueError, match="seed 1 is a reported one"):
        study.tune(str(plan.paths.root), **arguments, sources=[], execution={}, file=str(project / "x.json"))
    with pytest.raises(ConfigError, match="seeds: 1000001"):
        planned(project, seeds=TUNING_SEEDS_FROM + 1)
    longest = planned(project, seeds=TUNING_SEEDS_FROM, execution={"seeds_per_job": TUNING_SEEDS_FROM})
    assert max(longest.seeds(0)) < min(longest.config.tune.used_seeds)
