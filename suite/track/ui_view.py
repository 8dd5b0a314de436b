"""The view of an experiment that MLflow's UI opens with: useful columns and charts instead of none.

MLflow stores shared views as experiment tags `mlflow.sharedViewState.KEY` in an undocumented format; this is the
format of mlflow 3.17, and a browser test opens it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

LEADERBOARD_KEY = "suite-leaderboard"
WIDTHS = {
    "attributes.`Run Name`": 250,
    "params.`method`": 125,
    "params.`weight_bits`": 95,
    "params.`act_bits`": 75,
    "params.`seed`": 55,
    "metrics.`top1`": 85,
    "metrics.`top5`": 90,
    "metrics.`loss`": 90,
    "metrics.`model_size_mb`": 130,
    "metrics.`images_per_s`": 115,
    "params.`model`": 100,
    "params.`dataset`": 100,
    "tags.`role`": 90,
    "duration": 90,
    "runDateAndNestInfo": 140,
}
"""The table's columns from left to right, in pixels."""

PALETTE = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#9c755f"),
    *("#76b7b2", "#d4a600", "#ff5da2", "#1f3b6e", "#7f7f7f", "#8cd17d"),
)


def colours(methods: Iterable[str]) -> dict[str, str]:
    """A colour for each method's runs in the table and the charts."""
    return {name: PALETTE[n % len(PALETTE)] for n, name in enumerate(sorted(set(methods)))}


def pages(server: str, experiment: str, best: Sequence[str] = ()) -> dict[str, str]:
    """Links into MLflow's page at `server`, by what they show: the table of all runs, the charts and, of two run ids
    or more, the comparison of the `best`."""
    start = f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode="
    found = {
        mode.lower(): f"{start}{mode}&viewStateShareKey={LEADERBOARD_KEY}" for mode in ("TABLE", "CHART")
    }
    if len(best) > 1:
        runs, experiments = (quote(json.dumps(ids)) for ids in (list(best), [experiment]))
        found["compare the best"] = f"{server}/#/compare-runs?runs={runs}&experiments={experiments}"
    return found


def leaderboard(created_at_ms: int) -> str:
    """The value of the tag: runs by top1, with the columns above; charts of top1 over bits, size and epochs."""
    columns = [name for name in WIDTHS if name.partition(".")[0] in ("params", "metrics", "tags")]
    table = {"selectedColumns": columns, "columnOrder": list(WIDTHS), "columnWidths": WIDTHS}
    charts = [
        _scatter("weight_bits", "PARAM"),
        _scatter("model_size_mb", "METRIC"),
        {
            "type": "PARALLEL",
            "selectedParams": ["method", "weight_bits", "act_bits"],
            "selectedMetrics": ["top1"],
            "showAllRuns": True,
        },
        {"type": "BAR", "metricKey": "top1"},
        *(_line(metric) for metric in ("top1", "train_loss")),
    ]
    state = (
        BARE
        | table
        | {
            "compareRunCharts": [_placed(f"suite-{n}", chart) for n, chart in enumerate(charts)],
            "compareRunSections": [
                _section("accuracy", "Accuracy of each run"),
                _section("curves", "Training curves"),
            ],
        }
    )
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return json.dumps({"name": "Leaderboard", "createdAt": created_at_ms, "state": f"deflate;{packed}"})


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
