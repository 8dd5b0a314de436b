"""MLflow's page in a real browser: the link that `sync` prints opens on the sweep, sorted, in columns and charts."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.browser import CHROMIUM, FLAGS
from fakes.missing import missing
from fakes.statuses import status_of
from fakes.tracking import SWEEP, run_sweep, serving
from fakes.waiting import limit
from mlflow.tracking import MlflowClient
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from suite.record import jsonl
from suite.record.journal import Journal
from suite.track import store, sync
from suite.track.registry import best_by_width
from suite.track.ui_view import WIDTHS, pages


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a headless Chromium. It is new to MLflow, whose assistant then takes a quarter of the width."""
    if CHROMIUM is None:
        missing("no Chromium on this machine, so nobody looks at MLflow's page; install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(limit(30) * 1000)
        expect.set_options(timeout=limit(30) * 1000)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def served(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The pages to look at, the table as how_to_open names it, served by the command that it names, on a free port."""
    folder = tmp_path_factory.mktemp("browser")
    runs, report = folder / "my runs", folder / "results"
    report.mkdir()
    Image.new("RGB", (320, 200), "teal").save(report / "accuracy.png")
    (report / "table.md").write_text("| method | top-1 % |\n| --- | --- |\n| amax | 63.00 |\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run_sweep(runs)
        for stage in SWEEP:
            recorded = {"time": time.time(), "step": 0, "values": {"cpu_utilization_percentage": 42.0}}
            (runs / stage.key / "system.jsonl").write_text(jsonl.sealed(recorded))
            Journal(runs / stage.key).artifact("ranges.png", (report / "accuracy.png").read_bytes())
        experiment = sync.sync("demo", SWEEP, runs, report)
        command, address = store.how_to_open(experiment, runs).splitlines()
        backend = shlex.split(command)[-2:]
        with serving(*backend, cwd=folder) as server:
            client = MlflowClient(store.uri(runs))
            of_key = {r.data.tags.get("stage_key"): r.info.run_id for r in client.search_runs([experiment])}
            best = best_by_width([status_of(stage, runs) for stage in SWEEP]).values()
            found = pages(server, experiment, [of_key[now.stage.key] for now in best])
            found["run"] = f"{server}/#/experiments/{experiment}/runs/{of_key[SWEEP[0].key]}"
            assert found["table"] == address.replace(store.EMBEDDED_PAGE, server)
            yield found


@pytest.fixture
def link(served: dict[str, str]) -> str:
    return served["all runs"]


def show(page: Page, address: str) -> None:
    page.goto("about:blank")
    page.goto(address)


def follow(page: Page, name: str) -> None:
    """Open a link in this page; MLflow's would open a new one."""
    target = page.get_by_role("link", name=name, exact=True).first.get_attribute("href")
    assert target is not None
    show(page, page.url.partition("#")[0] + target[target.index("#") :])


def test_the_printed_link_shows_every_run_sorted_by_top1_with_its_parameters(
    page: Page, link: str, tmp_path: Path
) -> None:
    show(page, link)
    rows = page.locator(".ag-center-cols-container .ag-row")
    expect(rows).to_have_count(len(SWEEP))
    expect(page.get_by_text(f"{len(SWEEP)} matching runs")).to_be_visible()
    page.screenshot(path=tmp_path / "table.png")
    shown = page.locator(".ag-header-cell").evaluate_all(
        "cells => cells.map(cell => [cell.getAttribute('col-id'), cell.getBoundingClientRect()])"
        ".filter(cell => cell[1].right <= innerWidth).sort((a, b) => a[1].x - b[1].x).map(cell => cell[0])"
    )
    wanted = [f"params.`{name}`" for name in ("method", "weight_bits", "act_bits", "seed")] + [
        "metrics.`top1`"
    ]
    assert sorted(name for name in shown if name in WIDTHS and name in wanted) == sorted(wanted)
    table = rows.evaluate_all(
        "rows => rows.sort((a, b) => a.getAttribute('row-index') - b.getAttribute('row-index')).map(row =>"
        "['params.`method`', 'params.`weight_bits`', 'params.`seed`', 'metrics.`top1`'].map(name =>"
        "row.querySelector(`[col-id='${name}']`).innerText))"
    )
    by_top1 = reversed(list(enumerate(SWEEP)))
    assert table == [
        [*(str(stage.params[name]) for name in ("method", "weight_bits", "seed")), str(50 + number)]
        for number, stage in by_top1
    ]


def test_the_chart_view_of_the_link_shows_accuracy_over_bits_and_size_and_the_training_curves(
    page: Page, link: str, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 1600, "height": 2000})
    show(page, link.replace("compareRunsMode=TABLE", "compareRunsMode=CHART"))
    for title in ("weight_bits vs. top1", "model_size_mb vs. top1", "Parallel Coordinates", "train_loss"):
        expect(page.get_by_text(title, exact=True).first).to_be_visible()
    dots = page.locator(".scatterlayer .points path")
    expect(dots.nth(2 * len(SWEEP) - 1)).to_be_attached()
    with_drop = [stage for stage in SWEEP if stage.needs]
    expect(page.locator(".barlayer .point")).to_have_count(len(SWEEP) + len(with_drop))
    expect(page.locator(".scatterlayer .js-line").nth(3)).to_be_attached()
    page.screenshot(path=tmp_path / "charts.png")
    page.set_viewport_size({"width": 1600, "height": 1000})


def width_of(page: Page, name: str) -> int:
    """Of a picture that is shown, in its own pixels."""
    picture = page.locator(f"img[src*='{name}'], img[src^='blob:']").first
    expect(picture).to_be_visible()
    return int(picture.evaluate("async image => (await image.decode(), image.naturalWidth)"))


def test_the_note_leads_to_the_report_whose_page_shows_its_picture(
    page: Page, link: str, tmp_path: Path
) -> None:
    show(page, link)
    follow(page, "report demo")
    expect(page.get_by_role("heading", name="report demo")).to_be_visible()
    follow(page, "accuracy.png")
    assert width_of(page, "accuracy.png") == 320
    page.screenshot(path=tmp_path / "report.png")


def test_the_page_of_a_run_shows_its_picture_and_how_busy_its_node_was(
    page: Page, served: dict[str, str], tmp_path: Path
) -> None:
    show(page, f"{served['run']}/system-metrics?workflowType=machine_learning")
    expect(page.get_by_text("cpu_utilization_percentage", exact=True).first).to_be_visible()
    page.screenshot(path=tmp_path / "system.png")
    show(page, f"{served['run']}/artifacts/ranges.png?workflowType=machine_learning")
    assert width_of(page, "ranges.png") == 320
    page.screenshot(path=tmp_path / "run.png")


def test_the_leaderboard_has_a_row_a_configuration_with_the_mean_over_seeds(
    page: Page, served: dict[str, str], tmp_path: Path
) -> None:
    show(page, served["table"])
    expect(page.get_by_text("Group by: configuration")).to_be_visible()
    for name in ("percentile w4a4", "k_sigma w8"):
        expect(page.get_by_text(f"Group: {name}").first).to_be_visible()
    expect(page.get_by_text("percentile w4a4 seed 0")).to_have_count(0)  # the groups are folded
    page.screenshot(path=tmp_path / "leaderboard.png")


def test_the_best_recipes_are_compared_by_their_widths_and_top1(
    page: Page, served: dict[str, str], tmp_path: Path
) -> None:
    show(page, served["compare the best"])
    expect(page.get_by_text("4 matching runs")).to_be_visible()
    for axis in ("weight_bits", "act_bits", "top1"):
        expect(page.locator("svg text", has_text=axis).first).to_be_visible()
    page.screenshot(path=tmp_path / "compare.png")
