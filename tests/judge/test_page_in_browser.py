"""The page in Chromium: it plays, switches, seeks and zooms, by mouse and keys, at any width."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, Browser

from speakup.judge.page import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

SECONDS = 20.0
RATE = 44_100


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    random = np.random.default_rng(0)
    voice = random.standard_normal(round(SECONDS * RATE))
    voice *= 0.1 * np.sin(np.pi * np.arange(len(voice)) / RATE / 0.4).clip(0, None)
    soundfile.write(
        folder / "before.wav", 0.3 * voice + 0.01 * random.standard_normal(len(voice)), RATE
    )
    soundfile.write(folder / "after.wav", voice, RATE)
    write_report(folder / "before.wav", folder / "after.wav", folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def shared(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def browser(shared: Browser, page: Path) -> Browser:
    shared.open(page)
    shared.errors.clear()
    return shared


def state(browser: Browser, key: str) -> float | str:
    found = browser.evaluate(f"document.body.dataset.{key}")
    try:
        return float(found)
    except ValueError:
        return str(found)


def test_it_plays_and_switches_at_the_same_place(browser: Browser) -> None:
    browser.click("#play")
    browser.wait("document.body.dataset.position > 0.3")
    before = float(state(browser, "position"))
    browser.click("#hear-before")
    assert state(browser, "heard") == "before" and state(browser, "playing") == "true"
    assert browser.evaluate("document.querySelector('#hear-before').ariaPressed") == "true"
    assert 0.0 <= float(state(browser, "position")) - before < 5.0
    browser.click("#play")
    paused = state(browser, "position")
    time.sleep(0.3)
    assert (state(browser, "playing"), state(browser, "position")) == ("false", paused)
    assert browser.errors == []


def test_a_click_seeks_and_chooses(browser: Browser) -> None:
    browser.click(".picture[data-sound=before]", 0.75)
    assert float(state(browser, "position")) == pytest.approx(0.75 * SECONDS, abs=0.3)
    assert state(browser, "heard") == "before"
    browser.click(".wave[data-sound=after]", 0.25)
    assert float(state(browser, "position")) == pytest.approx(0.25 * SECONDS, abs=0.3)
    assert state(browser, "heard") == "after"


def test_it_zooms_where_the_pointer_is_and_draws_what_is_there(browser: Browser) -> None:
    for _ in range(4):
        browser.wheel(".picture[data-sound=after]", -300, 0.5)
    browser.wait("document.body.dataset.to - document.body.dataset.from < 2")
    first, last = float(state(browser, "from")), float(state(browser, "to"))
    assert first < SECONDS / 2 < last
    drawn = (
        "(() => { const c = document.querySelector('.picture[data-sound=after] canvas');"
        "if (c.hidden) return 0;"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let bright = 0; for (let i = 0; i < d.length; i += 4) bright += d[i] > 120;"
        "return bright / (d.length / 4); })()"
    )
    assert 0.1 < browser.evaluate(drawn) < 0.9, "bursts and pauses"
    browser.click("#fit")
    assert (state(browser, "from"), state(browser, "to")) == (0.0, pytest.approx(SECONDS, abs=0.1))
    assert browser.evaluate(drawn) == 0
    assert browser.errors == []


def test_keys_do_the_same(browser: Browser) -> None:
    browser.press("b")
    assert state(browser, "heard") == "before"
    browser.press("x")
    assert state(browser, "heard") == "after"
    for _ in range(3):
        browser.press("ArrowRight")
    assert float(state(browser, "position")) == pytest.approx(3.0, abs=0.01)
    browser.press("+")
    assert float(state(browser, "to")) - float(state(browser, "from")) == pytest.approx(
        10.0, abs=0.1
    )
    browser.press("0")
    browser.press("Home")
    browser.press(" ")
    browser.wait("document.body.dataset.position > 0.1")
    browser.press(" ")
    assert state(browser, "playing") == "false"


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_no_width_is_too_narrow(browser: Browser, width: int) -> None:
    browser.size(width, 800)
    time.sleep(0.2)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    out = (
        "[...document.querySelectorAll('button, p, th, .hertz span')].filter((e) => {"
        "const b = e.getBoundingClientRect();"
        "return b.width && (b.left < 0 || b.right > innerWidth);"
        "}).map((e) => e.textContent)"
    )
    assert browser.evaluate(out) == []


def test_dark_and_light_are_two_palettes_that_can_be_read(browser: Browser) -> None:
    found = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.call("Emulation.setEmulatedMedia", features=[feature])
        found[scheme] = browser.evaluate(
            "[document.body, document.querySelector('.lead')].map((e) => getComputedStyle(e))"
            ".flatMap((s) => [s.backgroundColor, s.color])"
        )
    browser.call("Emulation.setEmulatedMedia", features=[])
    assert found["light"] != found["dark"]
    for colours in found.values():
        page = _luminance(colours[0])
        for ink in (colours[1], colours[3]):
            low, high = sorted((page, _luminance(ink)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, "WCAG 2.2, 1.4.3"


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[4:-1].split(",")[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
