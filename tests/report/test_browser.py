"""The page in a real browser: it loads, sorts, adapts, and asks no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="a browser test needs selenium")
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE, DESKTOP = 360, 1280  # CSS pixels


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    """Return a headless Chromium of this machine, or skip."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    logged = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logged)
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


def emulate(
    browser: Any, *, width: int = DESKTOP, scheme: str = "light", media: str = ""
) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1}
    mobile = {"mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | mobile)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    asked = {"media": media, "features": [feature]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", asked)


@pytest.fixture
def opened(browser, hostile_page: Path) -> Any:
    """Return the browser with the page just loaded."""
    emulate(browser)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what was before
    browser.get(hostile_page.as_uri())
    return browser


def column(browser: Any, table: Any, i: int) -> list[str]:
    script = "return [...arguments[0].tBodies[0].rows].map(r => r.cells[arguments[1]]"
    return browser.execute_script(f"{script}.textContent)", table, i)


def table_of(browser: Any, caption: str) -> Any:
    heads = browser.find_elements(By.TAG_NAME, "h3")
    (name,) = [h.get_attribute("id") for h in heads if h.text.startswith(caption)]
    return browser.find_element(By.CSS_SELECTOR, f"table[aria-labelledby='{name}']")


def luminance(browser: Any, selector: str, name: str) -> float:
    script = "return getComputedStyle(document.querySelector(arguments[0]))"
    color = browser.execute_script(f"{script}[arguments[1]]", selector, name)
    red, green, blue = (float(x.strip(" rgba()")) for x in color.split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_the_console_is_silent_and_names_stay_text(opened, hostile) -> None:
    assert opened.get_log("browser") == []
    assert opened.title == hostile
    assert opened.find_element(By.TAG_NAME, "h1").text == " ".join(hostile.split())
    assert len(opened.find_elements(By.TAG_NAME, "script")) == 1


def test_all_pictures_load(opened) -> None:
    script = "return [...document.images].map(i => i.complete ? i.naturalWidth : 0)"
    widths = opened.execute_script(script)
    assert len(widths) >= 6
    assert min(widths) > 0


def test_nothing_is_asked_of_a_network(opened) -> None:
    said = " ".join(entry["message"] for entry in opened.get_log("performance"))
    assert "Network.requestWillBeSent" in said  # of the file itself
    assert "http://" not in said
    assert "https://" not in said
    names = opened.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert all(name.startswith("data:") for name in names)


def test_a_click_sorts_numbers_and_another_turns_them_over(opened) -> None:
    table = table_of(opened, "The scans")
    heads = table.find_elements(By.TAG_NAME, "th")
    i = [head.text.strip(" \u2195\xa0") for head in heads].index("mean_fd")
    button = heads[i].find_element(By.TAG_NAME, "button")
    before = column(opened, table, i)
    button.click()
    assert heads[i].get_attribute("aria-sort") == "ascending"
    assert column(opened, table, i) == sorted(before, key=float)
    button.click()
    assert heads[i].get_attribute("aria-sort") == "descending"
    assert column(opened, table, i) == sorted(before, key=float, reverse=True)


def test_keys_sort_words_and_only_one_column_is_marked(opened) -> None:
    table = table_of(opened, "Parameters")
    first, second, *_ = table.find_elements(By.CSS_SELECTOR, "th button")
    first.send_keys(Keys.ENTER)
    second.send_keys(Keys.SPACE)
    marked = table.find_elements(By.CSS_SELECTOR, "th[aria-sort]")
    assert [head.text.strip(" \u2191\xa0") for head in marked] == ["value"]
    first.send_keys(Keys.ENTER)
    names = column(opened, table, 0)
    assert names == sorted(names)


@pytest.mark.parametrize("width", [PHONE, 768, DESKTOP])
def test_the_page_is_never_wider_than_its_window(opened, width) -> None:
    emulate(opened, width=width)
    wide = "return [document.documentElement.scrollWidth, window.innerWidth]"
    content, window = opened.execute_script(wide)
    assert content <= window == width


def test_the_dark_page_is_dark_and_still_readable(opened) -> None:
    light = [luminance(opened, "body", x) for x in ("backgroundColor", "color")]
    emulate(opened, scheme="dark")
    dark = [luminance(opened, "body", x) for x in ("backgroundColor", "color")]
    assert light[0] > 0.9 > 0.3 > light[1]
    assert dark[0] < 0.2 < 0.8 < dark[1]
    script = "return getComputedStyle(document.querySelector(arguments[0])).filter"
    assert "invert" in opened.execute_script(script, "img:not(.paper)")
    assert "invert" not in opened.execute_script(script, "img.paper")


def test_print_shows_all_rows_in_dark_ink(opened) -> None:
    emulate(opened, scheme="dark", media="print")
    paper, ink = (luminance(opened, "body", x) for x in ("backgroundColor", "color"))
    assert paper > 0.99
    assert ink < 0.01
    frame = opened.find_element(By.CSS_SELECTOR, ".long")
    assert frame.value_of_css_property("max-height") == "none"
    image = opened.find_element(By.CSS_SELECTOR, "img:not(.paper)")
    assert image.value_of_css_property("filter") == "none"
