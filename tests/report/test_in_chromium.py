"""The page as a person meets it, on a phone and on a large screen, in headless Chromium."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from distillbench.report.page import write_report
from tests.needs import CHROMEDRIVER, CHROMIUM, needs_chromium

pytestmark = needs_chromium
WIDTHS = [360, 1600]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tempfile.mkdtemp()
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(scope="module")
def address(finished_run: Path, facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    page = tmp_path_factory.mktemp("page") / "index.html"
    write_report(finished_run, facts, page)
    return page.as_uri()


@pytest.fixture(params=WIDTHS)
def opened(browser: Any, address: str, request: pytest.FixtureRequest) -> Any:
    """The page at one width, everything folded opened."""
    size = {"width": request.param, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("performance")  # what was before
    browser.get(address)
    browser.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert browser.execute_script("return innerWidth") == request.param
    return browser


def requested(browser: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith(("data:", "chrome:"))]


def test_nothing_but_the_page_itself_is_asked_for(opened: Any, address: str) -> None:
    assert requested(opened) == [address]


def test_the_browser_has_nothing_to_complain_about(opened: Any) -> None:
    assert opened.get_log("browser") == []


def test_the_page_never_scrolls_sideways_and_wide_tables_do(opened: Any) -> None:
    width = opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    beyond = opened.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []
    if width[1] == min(WIDTHS):
        assert opened.execute_script(
            "return [...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
        )


def test_a_shadow_says_that_there_is_more_of_a_table(opened: Any) -> None:
    """At the right edge until its end is reached, then at the left; none where all is to be seen."""
    tables = opened.find_elements("css selector", "#tables .scroll")
    hidden = [opened.execute_script("return arguments[0].scrollWidth - arguments[0].clientWidth", e) for e in tables]

    def edges(table: Any) -> list[bool]:
        """Whether the left and the right edge are darker than white, above the text of the caption."""
        place = "arguments[0].scrollIntoView({behavior: 'instant'}); const b = arguments[0].getBoundingClientRect();"
        drawn = "requestAnimationFrame(() => requestAnimationFrame(() => arguments[1]([b.left, b.right, b.top])))"
        left, right, top = opened.execute_async_script(place + drawn, table)
        pixels = imread(BytesIO(opened.get_screenshot_as_png()))[round(top) + 1 : round(top) + 3, :, :3]
        return [bool(pixels[:, x : x + 3].mean() < 0.97) for x in (round(left) + 1, round(right) - 4)]

    wide = [table for table, pixels in zip(tables, hidden, strict=True) if pixels > 50]  # of less, a hint of a shadow
    assert wide or opened.execute_script("return innerWidth") > min(WIDTHS)
    for table in wide[:2]:
        assert edges(table) == [False, True]
        opened.execute_script("arguments[0].scrollLeft = arguments[0].scrollWidth", table)
        assert edges(table) == [True, False]
    for table in [table for table, pixels in zip(tables, hidden, strict=True) if not pixels][:2]:
        assert edges(table) == [False, False]


@pytest.mark.parametrize("opened", [max(WIDTHS)], indirect=True)
def test_the_verdicts_are_on_a_large_screen_without_scrolling(opened: Any) -> None:
    ends = opened.execute_script(
        "return [...document.querySelectorAll('#tables td')].filter(e => e.innerText.includes('better'))"
        ".map(e => e.getBoundingClientRect().right)"
    )
    assert ends and max(ends) <= max(WIDTHS)


def test_contents_lead_to_their_headings(opened: Any) -> None:
    broken = opened.execute_script(
        "return [...document.querySelectorAll('nav a')].filter(a => {"
        "  const to = document.querySelector(a.getAttribute('href'));"
        "  return !to || !(/^H[23]$/.test(to.tagName) || to.querySelector('h2')); }).map(a => a.href)"
    )
    assert broken == []
    opened.execute_script("document.querySelector('nav a[href=\"#cite\"]').click()")
    assert opened.current_url.endswith("#cite")
    levels = opened.execute_script("return [...document.querySelectorAll('h1, h2, h3')].map(e => e.tagName)")
    assert levels[0] == "H1" and levels.count("H1") == 1
    assert "H3" not in levels[: levels.index("H2")]


def test_every_picture_is_drawn_and_described(opened: Any) -> None:
    pictures = opened.execute_script(
        "return Promise.all([...document.images].map(i => i.decode().then(() => [i.naturalWidth, i.alt])))"
    )
    assert len(pictures) == 6
    assert all(width > 0 and alt for width, alt in pictures)


def test_tables_are_tables_for_who_hears_them(opened: Any) -> None:
    bare = opened.execute_script(
        "return [...document.querySelectorAll('table')].filter(t => !t.caption"
        " || !t.querySelector('thead th[scope=col]')"
        " || t.querySelector('tbody tr > :first-child:not(th[scope=row])')).length"
    )
    assert bare == 0
    assert opened.execute_script("return document.documentElement.lang") == "en"


def test_text_stands_out_from_its_ground(opened: Any) -> None:
    """WCAG AA: a contrast of 4.5 for all text."""
    low = opened.execute_script("""
        const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => { x /= 255;
            return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
        const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
        return [...document.querySelectorAll('body *')].filter(e => e.innerText && !e.children.length).filter(e => {
            const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05) < 4.5; }).map(e => e.outerHTML.slice(0, 80));
    """)
    assert low == []
