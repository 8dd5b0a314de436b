"""Saved views of an experiment for MLflow's pages: useful columns, groups and charts instead of none.

MLflow stores shared views as experiment tags `mlflow.sharedViewState.KEY` in an undocumented format; this is the
format of mlflow 3.17, and a browser test opens it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LEADERBOARD_KEY, RUNS_KEY, BEST_KEY = "suite-leaderboard", "suite-runs", "suite-best"
WIDTHS = {
    "attributes.`Run Name`": 290,
    "params.`weight_bits`": 100,
    "params.`act_bits`": 85,
    "metrics.`drop`": 130,
    "metrics.`top1`": 130,
    "metrics.`drop_low`": 130,
    "metrics.`drop_high`": 130,
    "params.`method`": 125,
    "params.`seed`": 60,
    "metrics.`model_size_mb`": 130,
    "metrics.`mean_weight_bits`": 150,
    "metrics.`bops`": 110,
    "metrics.`images_per_s`": 115,
    "tags.`published`": 170,
    "tags.`verdict`": 150,
    "metrics.`top5`": 90,
    "metrics.`loss`": 90,
    "params.`model`": 100,
    "params.`dataset`": 100,
    "tags.`role`": 90,
    "tags.`configuration`": 230,
    "duration": 90,
    "runDateAndNestInfo": 140,
}
"""The table's columns from left to right, in pixels; mean bits and bit operations are of widths by layer."""
GROUPED_WIDTHS = WIDTHS | {"attributes.`Run Name`": 380}
"""Where a name has an arrow, a dot and a count beside it."""
TRAINING_WIDTHS = {
    "attributes.`Run Name`": 400,
    "metrics.`top1`": 85,
    "metrics.`train_loss`": 110,
    "metrics.`train_images_per_s`": 150,
    "params.`model`": 100,
    "params.`dataset`": 100,
    "params.`epochs`": 75,
    "params.`batch`": 75,
    "params.`lr`": 65,
    "params.`precision`": 140,
    "params.`seed`": 60,
    "tags.`device`": 160,
    "duration": 90,
    "runDateAndNestInfo": 140,
}
BY_CONFIGURATION = {
    "aggregateFunction": "average",
    "groupByKeys": [{"mode": "tag", "groupByData": "configuration"}],
}
"""Runs that differ by their seeds in one row, with their mean."""
MOST = 20_000
"""Characters of an experiment's tag; MLflow refuses more."""
SMALLEST_DROP = {"orderByKey": "metrics.`drop`", "orderByAsc": True}


def pages(server: str, experiment: str, best: Sequence[str] = ()) -> dict[str, str]:
    """Links into MLflow's page at `server`, by what they show: the leaderboard, all runs, their charts and, of two run
    ids or more, the charts of the `best`. A link without a view opens on an empty page of another workflow."""
    start = f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode="
    found = {
        "table": f"{start}TABLE&viewStateShareKey={LEADERBOARD_KEY}",
        "all runs": f"{start}TABLE&viewStateShareKey={RUNS_KEY}",
        "chart": f"{start}CHART&viewStateShareKey={RUNS_KEY}",
    }
    if len(best) > 1:
        found["compare the best"] = f"{start}CHART&viewStateShareKey={BEST_KEY}"
    return found


def views(created_at_ms: int, configurations: Iterable[str] = ()) -> dict[str, str]:
    """The values of the tags of the saved views, by key: recipes grouped by configuration, all and those of two pairs
    of widths; all runs; the trainings.

    The groups of `configurations` are folded, or a configuration of one run would take two rows. Where they are too
    many for a tag, all groups are open.
    """
    folded = {f"tag.configuration.{name}": False for name in dict.fromkeys(configurations)}
    found = _views(created_at_ms, folded)
    return found if max(map(len, found.values())) <= MOST else _views(created_at_ms, {})


def _views(created_at_ms: int, folded: Mapping[str, bool]) -> dict[str, str]:
    grouped = {"groupBy": BY_CONFIGURATION, "groupsExpanded": folded, **SMALLEST_DROP}
    recipes = "tags.role = 'recipe'"
    trainings = "tags.role != 'report' AND tags.role != 'recipe'"
    found: dict[str, tuple[str, Mapping[str, int], Mapping[str, Any]]] = {
        LEADERBOARD_KEY: (
            "Leaderboard: mean over seeds",
            GROUPED_WIDTHS,
            grouped | {"searchFilter": recipes},
        ),
        RUNS_KEY: ("All runs", WIDTHS, {}),
        "suite-trainings": ("Trainings", TRAINING_WIDTHS, {"searchFilter": trainings}),
    }
    for bits in (4, 8):
        widths = f"{recipes} AND params.weight_bits = '{bits}' AND params.act_bits = '{bits}'"
        name = f"W{bits}A{bits}: mean over seeds"
        found[f"suite-w{bits}a{bits}"] = (name, GROUPED_WIDTHS, grouped | {"searchFilter": widths})
    return {key: _view(*view, created_at_ms) for key, view in found.items()}


def best_view(created_at_ms: int, run_ids: Sequence[str]) -> str:
    """The value of the tag of the view of these runs: charts of their widths against top-1."""
    listed = ", ".join(f"'{run_id}'" for run_id in run_ids)
    state = {"searchFilter": f"attributes.run_id IN ({listed})", **SMALLEST_DROP}
    return _view("The best of each pair of widths", WIDTHS, state, created_at_ms)


def _view(name: str, widths: Mapping[str, int], state: Mapping[str, Any], created_at_ms: int) -> str:
    """The value of a tag: a table with these columns, and charts of top1 over bits, size and epochs."""
    columns = [column for column in widths if column.partition(".")[0] in ("params", "metrics", "tags")]
    table = {"selectedColumns": columns, "columnOrder": list(widths), "columnWidths": dict(widths)}
    charts = [
        {
            "type": "PARALLEL",
            "selectedParams": ["weight_bits", "act_bits", "method"],
            "selectedMetrics": ["top1"],
            "showAllRuns": True,
        },
        _scatter("weight_bits", "PARAM"),
        _scatter("model_size_mb", "METRIC"),
        {"type": "BAR", "metricKey": "top1"},
        {"type": "BAR", "metricKey": "drop"},
        *(_line(metric) for metric in ("top1", "train_loss")),
    ]
    sections = [_section("accuracy", "Accuracy of each run"), _section("curves", "Training curves")]
    placed = [_placed(f"suite-{n}", chart) for n, chart in enumerate(charts)]
    whole = {**BARE, **table, "compareRunCharts": placed, "compareRunSections": sections, **state}
    packed = base64.b64encode(zlib.compress(json.dumps(whole).encode(), 9)).decode()
    return json.dumps({"name": name, "createdAt": created_at_ms, "state": f"deflate;{packed}"})


BARE = {
    "searchFilter": "tags.role != 'report'",
    "orderByKey": "metrics.`top1`",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "runsHiddenMode": "SHOW_ALL",
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": True,
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "groupBy": None,
    "groupsExpanded": {},
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}
"""The state of a page of which nobody has touched anything, but that runs are sorted by top1."""


def _placed(uuid: str, chart: Mapping[str, Any]) -> dict[str, Any]:
    section = "curves" if chart["type"] == "LINE" else "accuracy"
    usual = {"deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    return {"uuid": uuid, "metricSectionId": section, **usual, **chart}


def _section(uuid: str, name: str) -> dict[str, Any]:
    usual = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, "name": name, **usual, "columns": 2, "cardHeight": 360}


def _scatter(key: str, kind: str) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "xaxis": {"key": key, "type": kind},
        "yaxis": {"key": "top1", "type": "METRIC"},
    }


def _line(metric: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        "ignoreOutliers": False,
    }
