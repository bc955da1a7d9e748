"""The MLflow page as a reader meets it: served by our command line, driven in headless Chromium."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distillbench.cli import main
from distillbench.record import Record, write_record
from distillbench.tracking import sync as tracking
from distillbench.tracking.store import TrackingError
from distillbench.tracking.sync import sync, ui
from tests.needs import CHROMEDRIVER, CHROMIUM, needs_chromium
from tests.tracking.conftest import free_port

PATIENCE = 120  # seconds until the page must show something
TEST = {"supervised": 0.7125, "lsp": 0.7875}  # method: score on the test split
NAMES = {method: f"{method} · pyg · gat · seed 0" for method in TEST}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ui") / "results"
    for minute, (method, test) in enumerate(TEST.items()):
        record = Record(
            key="k", dataset="digits", backend="pyg", pair="gat", method=method, role="student", seed=0, status="ok",
            task="multiclass", metric="accuracy", val=test + 0.0625, test=test, epochs=30, best_epoch=20, params=4321,
            train_seconds=6.5, hyperparameters={"method": {"weight": 137.0}, "training": {"lr": 0.005}},
            started=f"2026-01-02T03:{minute:02d}:00.000+00:00", ended=f"2026-01-02T03:{minute:02d}:06.500+00:00",
        )  # fmt: skip
        path = folder / "runs/digits/pyg/gat" / method / "seed-0.json"
        write_record(path, record)
        rows = [f"{epoch},{epoch / 5},{1 / (epoch + 1)},{2 / (epoch + 1)},{epoch / 40}" for epoch in range(30)]
        path.with_name("seed-0.history.csv").write_text("\n".join(["epoch,seconds,loss,structure,val", *rows]) + "\n")
    assert sync(folder).added == 2
    return folder


@pytest.fixture(scope="module")
def address(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that our command line prints for the experiment; its server ends with the tests."""
    port = free_port()
    command = [sys.executable, "-m", "distillbench", "ui", "--results", str(results), "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(Path(tracking.__file__).parents[2])}
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    log = elsewhere.with_suffix(".log")
    with log.open("w") as output:
        server = subprocess.Popen(
            command, env=environment, cwd=elsewhere, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for(lambda: answers(port) or server.poll() is not None)
        assert server.poll() is None, log.read_text()
        first, second, *_ = log.read_text().splitlines()
        assert first.startswith(f"MLflow UI: http://127.0.0.1:{port} ")
        yield second.removeprefix("  digits: ")
        assert list(elsewhere.iterdir()) == []  # the server leaves nothing where it was started
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # the server and its worker
        server.wait(10)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1800,1200",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], Any]) -> Any:
    import time

    end = time.monotonic() + PATIENCE
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return value


def text(browser: Any) -> str:
    return str(browser.execute_script("return document.body.innerText"))


def wait_for_text(browser: Any, *expected: str) -> None:
    wait_for(lambda: all(part in text(browser) for part in expected))
    missing = [part for part in expected if part not in text(browser)]
    assert not missing, f"{missing} not on the page:\n{text(browser)}"


def click(browser: Any, label: str) -> None:
    """Click what has this label, as soon as it is there."""
    labelled = f"//*[normalize-space(text())='{label}']"
    wait_for(lambda: browser.find_elements("xpath", labelled))
    browser.find_elements("xpath", labelled)[0].click()


def rows(browser: Any) -> dict[str, dict[str, str]]:
    """The table of runs: run name → column → what the cell shows. (MLflow draws a row in several pieces.)"""
    cells = browser.execute_script(
        "return [...document.querySelectorAll('.ag-row [role=gridcell]')].map("
        "  c => [c.closest('.ag-row').getAttribute('row-id'), c.getAttribute('col-id'), c.innerText.trim()])"
    )
    table: dict[str, dict[str, str]] = {}
    for row, column, shown in cells:
        table.setdefault(row, {})[column] = shown
    return {name: row for name in NAMES.values() for row in table.values() if name in "\n".join(row.values())}


@needs_chromium
def test_the_table_shows_every_run_with_its_metrics(browser: Any, address: str, tmp_path: Path) -> None:
    browser.get(address)
    wait_for_text(browser, *NAMES.values(), "best_epoch", "train_seconds", *map(str, TEST.values()))
    browser.save_screenshot(tmp_path / "table.png")
    table = rows(browser)
    for method, test in TEST.items():
        shown = list(table[NAMES[method]].values())
        for value in (str(test), str(test + 0.0625), "20", "6.5", "ok"):
            assert value in shown


@needs_chromium
def test_two_clicks_group_by_method_and_filter_by_library(browser: Any, address: str, tmp_path: Path) -> None:
    browser.get(address)
    wait_for_text(browser, *NAMES.values())
    click(browser, "Views")
    click(browser, "PyG by method")
    groups = [f"Group: {method}" for method in TEST]
    wait_for_text(browser, "Group by: method", *groups)
    wait_for(lambda: not any(name in text(browser) for name in NAMES.values()))  # folded
    browser.save_screenshot(tmp_path / "groups.png")
    assert not any(name in text(browser) for name in NAMES.values())
    assert browser.execute_script("return document.querySelector('[data-testid=search-box]').value") == (
        "tags.backend = 'pyg'"
    )


@needs_chromium
def test_a_run_shows_its_parameters_metrics_and_curves(browser: Any, address: str, tmp_path: Path) -> None:
    browser.get(address)
    wait_for_text(browser, NAMES["lsp"])
    browser.find_element("link text", NAMES["lsp"]).click()
    wait_for_text(browser, "method.weight", "137.0", "training.lr", "0.005", "0.7875", "4321", "Finished")
    browser.save_screenshot(tmp_path / "run.png")
    browser.get(f"{browser.current_url.split('?')[0]}/model-metrics")
    wait_for_text(browser, "curves", "curves/loss", "curves/structure", "curves/val")
    drawn = "return document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length"
    assert wait_for(lambda: browser.execute_script(drawn) >= 3)  # one line a curve
    browser.save_screenshot(tmp_path / "curves.png")


def test_a_page_that_pretends_to_be_this_machine_is_refused(address: str) -> None:
    """Fault: a page of somebody else's, open in the browser, reaches the page of `make ui` by a name of its own.

    Provoked: requests to the port with names that resolve to this machine (DNS rebinding), such as 10.evil.com.
    Promised: they are refused; those to this machine's own names are answered, by whatever port a tunnel has.
    """
    port = int(address.split(":")[2].split("/")[0])
    expected = {f"127.0.0.1:{port}": 200, "localhost:6000": 200, f"10.evil.com:{port}": 403, f"evil.com:{port}": 403}
    for host, status in expected.items():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/ajax-api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": host})
        assert connection.getresponse().status == status, host


def test_without_a_store_the_reader_is_told_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"mlflow\.db does not exist: run snakemake first"):
        ui(tmp_path)


def test_a_port_in_use_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["ui", "--results", str(results), "--port", str(port)]) == 1
    assert f"port {port} is in use" in capsys.readouterr().err
