"""Energy: of one call, by a tracker that may not be there."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from distillbench.config.config import ConfigError, Profile, read_config
from distillbench.profiling.energy import energy_of


@pytest.fixture
def codecarbon(monkeypatch):
    """A tracker that finds 36 J, whatever ran; ``seen`` is what it was asked."""
    module = ModuleType("codecarbon")
    module.seen, module.kwh = [], 1e-5

    class OfflineEmissionsTracker:
        def __init__(self, **settings):
            module.seen.append(settings)
            self.final_emissions_data = None

        def start(self):
            module.seen.append("start")

        def stop(self):
            module.seen.append("stop")
            self.final_emissions_data = SimpleNamespace(energy_consumed=module.kwh)

    module.OfflineEmissionsTracker = OfflineEmissionsTracker
    monkeypatch.setitem(sys.modules, "codecarbon", module)
    return module


def test_energy_is_shared_by_the_calls(codecarbon):
    calls = []
    found = energy_of(lambda: calls.append(len(codecarbon.seen)), "DEU", seconds=0.01)
    assert found.status == "ok" and found.joules == pytest.approx(36 / len(calls))
    assert set(calls) == {2}  # all of them between start and stop
    settings = codecarbon.seen[0]
    assert settings["country_iso_code"] == "DEU" and settings["save_to_file"] is False


def test_a_machine_without_a_power_that_can_be_read_has_no_figure(codecarbon):
    codecarbon.kwh = 0.0
    found = energy_of(lambda: None, "DEU", seconds=0.0)
    assert found.joules is None and "no power" in found.status


@pytest.mark.parametrize("part", ["__init__", "start", "stop"])
def test_whatever_fails_in_the_tracker_is_a_reason_and_no_end_of_the_job(codecarbon, monkeypatch, part):
    def fails(*_, **__):
        raise OSError("no such driver\nat line 5")

    monkeypatch.setattr(codecarbon.OfflineEmissionsTracker, part, fails)
    assert energy_of(lambda: None, "DEU", seconds=0.0) == ("codecarbon: OSError: no such driver", None)


def test_a_tracker_that_hides_its_failure_has_no_data_and_no_figure(codecarbon, monkeypatch):
    monkeypatch.setattr(codecarbon.OfflineEmissionsTracker, "stop", lambda self: None)
    found = energy_of(lambda: None, "DEU", seconds=0.0)
    assert found.joules is None and found.status.startswith("codecarbon: AttributeError")


def test_the_tracker_is_stopped_where_the_model_fails(codecarbon):
    def fails():
        raise MemoryError

    assert energy_of(fails, "DEU").joules is None and codecarbon.seen[-1] == "stop"


def test_without_codecarbon_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    assert energy_of(lambda: None, "DEU").status.endswith("pip install 'distillbench[energy]'")


PAIR = {"teacher": {"model": "gcn", "hidden": 8}, "student": {"model": "gcn", "hidden": 4}}
CONFIG = {
    "seeds": 1,
    "backends": ["pyg"],
    "datasets": {"digits": {"pairs": {"gcn": PAIR}}},
    "methods": {"supervised": None},
}


@pytest.mark.parametrize(
    "given, meant", [(True, Profile()), (False, None), ({}, Profile()), ({"energy": "DEU"}, Profile(energy="DEU"))]
)
def test_energy_is_asked_for_in_the_config_and_off_by_default(given, meant):
    assert read_config(CONFIG | {"profile": given}, []).profile == meant
    assert read_config(CONFIG, []).profile == Profile(energy=None)
    again = read_config(CONFIG | {"profile": given}, []).model_dump(mode="json")  # as the report page repeats it
    assert read_config(again, []).profile == meant


@pytest.mark.parametrize(
    "given, says",
    [
        ("treu", "profile: 'treu': unknown value"),
        ({"energi": "DEU"}, "profile: unknown key 'energi': did you mean 'energy'"),
        ({"energy": "Germany"}, "profile.energy: 'Germany'"),
        ({"energy": "de"}, "profile.energy: 'de'"),
    ],
)
def test_anything_else_is_refused_by_name(given, says):
    with pytest.raises(ConfigError, match=rf"own\.yaml:\n  {says}"):
        read_config(CONFIG | {"profile": given}, ["own.yaml"])


def test_the_country_reaches_the_job():
    from pathlib import Path

    from distillbench.plan.plan import make_plan

    root = Path(__file__).parents[2]
    for given, energy in (({"energy": "DEU"}, "DEU"), (True, None)):
        plan = make_plan(CONFIG | {"profile": given}, [], root)
        assert plan.profile_params(plan.cells[0])["energy"] == energy and plan.profile_files()
    assert make_plan(CONFIG | {"profile": False}, [], root).profile_files() == []
