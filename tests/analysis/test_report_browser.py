"""The report in a real browser, from disk and without a network, on a phone and on a desktop, in light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.browser import CHROMIUM, FLAGS
from fakes.layer_records import record
from fakes.missing import missing
from fakes.pages import HOSTILE, metrics, written
from fakes.runs_folder import begin, finish, plan, stage
from fakes.waiting import limit
from playwright.sync_api import Browser, Page, expect, sync_playwright

SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 900}}
COUNT = 1 + 3 * 50
USUAL = {("phone", "dark"), ("desktop", "light")}
LOOKS = [
    pytest.param(
        (size, scheme), marks=[pytest.mark.long] * ((size, scheme) not in USUAL), id=f"{size}-{scheme}"
    )
    for size in SIZES
    for scheme in ("light", "dark")
]
"""Each size and each scheme is seen in `make test`, all pairs in `make test-long`."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing("no Chromium on this machine, so nobody looks at the report; install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 151 runs: one training, 150 recipes of which one failed, one is pending and one has a bad name."""
    folder = tmp_path_factory.mktemp("report")
    start = stage("float", 32, 0)
    stages = [start]
    for seed in range(50):
        stages += [stage(method, 8, seed, start) for method in ("amax", "histogram", "k_sigma")]
    stages[5] |= {"name": HOSTILE}
    plan(folder / "runs", *stages)
    for index, one in enumerate(stages[:-1]):
        finish(folder / "runs", one, 92.0 - index / 10)
        record(folder / "runs", one, 20 - index / 10)
    begin(
        folder / "runs", start, metrics(1, train_loss=2.0, top1=30.0), metrics(2, train_loss=1.0, top1=92.0)
    )
    (folder / "runs" / stages[7]["key"] / "outcome.json").unlink()
    begin(folder / "runs", stages[7], {"event": "failed", "error": "out of memory"}, device="NVIDIA H200")
    written(folder / "runs", drawn=True)
    return folder / "results" / "small" / "report.html"


@pytest.fixture(params=LOOKS)
def page(request: pytest.FixtureRequest, browser: Browser, report_file: Path) -> Iterator[Page]:
    """The open report; a message on the console, an error and a request for anything else fail the test."""
    size, scheme = request.param
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, offline=True)
    page = context.new_page()
    page.set_default_timeout(limit(30) * 1000)
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on(
        "request", lambda asked: messages.append(asked.url) if asked.url != report_file.as_uri() else None
    )
    page.goto(report_file.as_uri())
    yield page
    assert [text for text in messages if not text.startswith("data:")] == []
    assert page.title() == "What quantizing resnet20 on cifar10 costs \N{EN DASH} Sweep small"
    context.close()


def names(page: Page) -> list[str]:
    return page.locator("#runs-table tbody th").evaluate_all("cells => cells.map(cell => cell.textContent)")


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"#runs-table tbody tr > :nth-child({number})").all_inner_texts()


def test_the_page_is_as_wide_as_the_window_and_every_figure_is_drawn(page: Page, tmp_path: Path) -> None:
    page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sizes = page.locator("figure svg:visible").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().width)"
    )
    assert len(sizes) == 7 and all(width > 300 for width in sizes)
    assert page.locator("figure svg text").count() > 50
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert background == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")


def test_a_figure_that_is_wider_than_the_screen_says_so_and_no_other(page: Page) -> None:
    shown = page.locator("figure").evaluate_all(
        "all => all.map(one => { const box = one.querySelector('.scroll');"
        "return [box.scrollWidth > box.clientWidth, (one.querySelector('.hint')?.offsetWidth ?? 0) > 0]; })"
    )
    assert len(shown) == 7 and all(wide == said for wide, said in shown)
    # Accuracy and drop have figures of their own for a phone.
    assert sum(wide for wide, _ in shown) == (5 if page.viewport_size == SIZES["phone"] else 0)


def test_on_a_phone_the_drops_are_seen_without_moving_anything(page: Page) -> None:
    if page.viewport_size != SIZES["phone"]:
        return
    for cell in page.locator("#drop .cards td[data-title]").all()[:20]:
        box = cell.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= SIZES["phone"]["width"]
    figure = page.locator("#drop figure .narrow svg").bounding_box()
    assert figure is not None and 300 < figure["width"] <= SIZES["phone"]["width"]


def test_all_runs_are_shown_and_the_rest_comes_at_a_press(page: Page) -> None:
    expect(page.locator("#runs-count")).to_have_text(f"{COUNT} of {COUNT} runs, the first 100 shown")
    page.get_by_role("button", name=f"Show all {COUNT}").press("Enter")
    assert (
        len(set(page.locator("#runs-table tbody tr").evaluate_all("rows => rows.map(r => r.dataset.key)")))
        == COUNT
    )
    assert HOSTILE in names(page) and page.evaluate("document.activeElement.rowIndex") == 101
    expect(page.locator("#runs-count")).to_have_text(f"{COUNT} of {COUNT} runs")
    first = page.locator("#runs-table tbody th a").first
    assert re.fullmatch(r"\.\./\.\./runs/\w+/", first.get_attribute("href") or "")
    assert page.locator("#runs-table .state.failed").inner_text().split("\n") == ["failed", "out of memory"]


def test_a_heading_sorts_both_ways_by_keyboard_and_says_so_and_holes_stay_last(page: Page) -> None:
    page.get_by_role("button", name="Show all").click()
    head = page.get_by_role("columnheader", name="top-1 %").filter(has=page.locator("button"))
    for direction, largest_first in (("descending", True), ("ascending", False)):
        head.get_by_role("button").press("Enter")
        expect(head).to_have_attribute("aria-sort", direction)
        page.get_by_role("button", name="Show all").click()
        shown = column(page, 5)
        numbers = [float(text) for text in shown if text]
        assert numbers == sorted(numbers, reverse=largest_first) and len(numbers) == COUNT - 2
        assert shown[-2:] == ["", ""]
    assert page.locator("#runs-table [aria-sort=none]").count() == 10


def test_the_filters_narrow_the_rows_and_the_count_is_shown(page: Page) -> None:
    count = page.locator("#runs-count")
    page.get_by_role("combobox", name="Method", exact=True).select_option("amax")
    expect(count).to_have_text(f"50 of {COUNT} runs")
    assert set(column(page, 2)) == {"amax"}
    page.get_by_role("combobox", name="Method", exact=True).select_option("")
    page.get_by_role("combobox", name="State", exact=True).select_option("failed")
    expect(count).to_have_text(f"1 of {COUNT} runs")
    page.get_by_role("combobox", name="State", exact=True).select_option("")
    page.get_by_role("searchbox", name="Words", exact=True).fill("histogram SEED 49")
    expect(count).to_have_text(f"1 of {COUNT} runs")
    page.get_by_role("searchbox", name="Words", exact=True).fill("out of memory")
    expect(count).to_have_text(f"1 of {COUNT} runs")
    page.get_by_role("searchbox", name="Words", exact=True).fill("no such run")
    expect(count).to_have_text(f"0 of {COUNT} runs")


def test_the_keyboard_reaches_the_results_first_and_sees_where_it_is(page: Page) -> None:
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the results")
    expect(skip).to_be_focused()
    assert skip.bounding_box() is not None and (skip.bounding_box() or {})["x"] >= 0
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    for landmark in ("banner", "navigation", "main", "search"):
        expect(page.get_by_role(landmark)).to_have_count(1)  # type: ignore[arg-type]
