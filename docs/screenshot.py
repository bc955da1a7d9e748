"""Screenshots for the documentation: the MLflow page and the top of the report, of a results folder.

    python docs/screenshot.py --results results

Writes docs/mlflow.png (one library's runs grouped by method: "Views", then "PyG by method") and docs/report.png. Needs
Chromium, chromedriver and selenium.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from distillbench.tracking.store import experiments

DOCS = Path(__file__).parent
PATIENCE = 60  # seconds until a page must show something
MLFLOW_SIZE, REPORT_SIZE = (1500, 640), (1280, 900)


@contextmanager
def browser(size: tuple[int, int]) -> Iterator[Any]:
    """Headless Chromium with a window of ``size`` (pixels, without the browser's own frame)."""
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                         "--hide-scrollbars", "--no-first-run", f"--user-data-dir={profile}"):  # fmt: skip
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            width, height = size
            screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            yield driver
        finally:
            driver.quit()


@contextmanager
def mlflow_page(results: Path) -> Iterator[str]:
    """The address of the first data set's table, served until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "distillbench", "ui", "--results", str(results), "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, **quiet, start_new_session=True)  # the command above  # nosec B603
    try:
        wait_for(lambda: answers(port) or server.poll() is not None)
        experiment, _ = experiments(results / "mlflow" / "mlflow.db")[0]
        yield f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs?viewStateShareKey=results"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], Any]) -> Any:
    """What ``condition`` gives as soon as it is true. Raises SystemExit where it does not become true."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"nothing to see after {PATIENCE} seconds")
        time.sleep(0.2)
    return value


def click(page: Any, xpath: str) -> None:
    """Click what is there, as soon as it is."""
    wait_for(lambda: page.find_elements(By.XPATH, xpath))[0].click()


def picture_mlflow(results: Path, to: Path) -> None:
    """Open the table of runs, make the two clicks, take the picture."""
    with mlflow_page(results) as address, browser(MLFLOW_SIZE) as page:
        page.get(address)
        click(page, "//button[normalize-space()='Views']")
        click(page, "//*[starts-with(normalize-space(text()), 'PyG by ')]")
        wait_for(lambda: "Group: " in page.find_element(By.TAG_NAME, "body").text)
        for label in ("Close", "Hide banner"):  # the assistant; what is said of shared views
            for button in page.find_elements(By.CSS_SELECTOR, f"button[aria-label='{label}']"):
                button.click()
        time.sleep(2)  # until the table has its new width
        page.save_screenshot(str(to))


def picture_report(results: Path, to: Path) -> None:
    """The top of the report page."""
    with browser(REPORT_SIZE) as page:
        page.get((results / "report" / "index.html").resolve().as_uri())
        page.save_screenshot(str(to))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--to", type=Path, default=DOCS, help="folder of the pictures (default: docs)")
    options = parser.parse_args()
    picture_mlflow(options.results, options.to / "mlflow.png")
    picture_report(options.results, options.to / "report.png")


if __name__ == "__main__":
    main()
