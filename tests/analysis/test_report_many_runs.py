"""The table of 10,000 runs in a real browser: drawn a page at a time, searched and sorted over all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fakes.browser import CHROMIUM, FLAGS
from fakes.missing import missing
from fakes.waiting import limit
from playwright.sync_api import Page, expect, sync_playwright

from analysis.page import html
from analysis.page.parts import Rows, Section
from analysis.page.run_table import COLUMNS, STATES

COUNT = 10_000


def row(number: int) -> dict[str, Any]:
    top1 = 90 - number / COUNT
    cells: list[list[Any]] = [
        [f"amax w8a8 seed {number}"],
        [("amax", "histogram")[number % 2]],
        ["8 / 8", 808],
    ]
    cells += [[str(number), number], [f"{top1:.2f}", top1], ["", None], ["0.27", 0.27]]
    cells += [[STATES[number % 5]], ["1", 1], ["0123456789"], ["AMD EPYC, 1 thread"]]
    return {"key": f"{number:016x}", "cells": cells}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        missing("no Chromium on this machine, so nobody looks at the report; install the package chromium")
    data = {"columns": [column.title for column in COLUMNS], "rows": [row(n) for n in range(COUNT)]}
    part = Rows("Every run", COLUMNS, data, ("amax", "histogram"), STATES)
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(
        html.render("Many", "Sweep many", [Section("runs", "All runs", [part])]), encoding="utf-8"
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page()
        page.set_default_timeout(limit(60) * 1000)
        page.goto(file.as_uri())
        yield page
        browser.close()


def drawn(page: Page) -> list[str]:
    return page.locator("#runs-table tbody tr").evaluate_all("rows => rows.map(row => row.dataset.key)")


def test_ten_thousand_runs_are_turned_page_by_page(page: Page) -> None:
    count, back = page.locator("#runs-count"), page.get_by_role("button", name="Previous 500")
    expect(count).to_have_text("10,000 of 10,000 runs, the first 500 shown")
    expect(back).to_be_hidden()
    seen = drawn(page)
    for end in range(1000, COUNT + 1, 500):
        page.get_by_role("button", name="Next 500").click()
        expect(count).to_have_text(f"10,000 of 10,000 runs, {end - 499:,} to {end:,} shown")
        assert page.evaluate("document.activeElement.rowIndex") == 1
        seen += drawn(page)
    assert seen == [f"{number:016x}" for number in range(COUNT)]
    expect(page.locator("#runs-more")).to_be_hidden()
    back.click()
    expect(count).to_have_text("10,000 of 10,000 runs, 9,001 to 9,500 shown")


def test_a_search_and_a_heading_are_over_all_of_them(page: Page) -> None:
    count, words = page.locator("#runs-count"), page.get_by_role("searchbox", name="Words", exact=True)
    words.fill("seed 9999")
    expect(count).to_have_text("1 of 10,000 runs")
    assert drawn(page) == [f"{9999:016x}"]
    words.fill("seed 99")
    expect(count).to_have_text("111 of 10,000 runs, the first 100 shown")
    page.get_by_role("button", name="Show all 111").click()
    assert len(drawn(page)) == 111
    words.fill("")
    heading = page.get_by_role("columnheader", name="seed").get_by_role("button")
    heading.click()
    expect(count).to_have_text("10,000 of 10,000 runs, the first 500 shown")
    assert drawn(page)[0] == f"{9999:016x}"
    page.get_by_role("columnheader", name="name").get_by_role("button").click()
    assert drawn(page)[:3] == [f"{number:016x}" for number in range(3)], "numbers in names count as numbers"


def test_what_is_typed_and_pressed_is_answered_at_once(page: Page) -> None:
    """Ten times what it takes on a core that does nothing else."""
    timed = """(what) => { const begin = performance.now(); what === "words"
        ? Object.assign(document.getElementById("filter-words"), { value: "seed 1" })
            .dispatchEvent(new Event("input"))
        : document.querySelector("#runs-table thead button").click(); return performance.now() - begin; }"""
    for what in ("words", "heading"):
        assert page.evaluate(timed, what) < limit(2) * 1000
