"""The view of an experiment that MLflow's UI opens with: useful columns and charts instead of none.

MLflow stores shared views as experiment tags `mlflow.sharedViewState.KEY` in an undocumented format; this is the
format of mlflow 3.17, and a browser test opens it.
"""

from __future__ import annotations

import base64
import colorsys
import json
import zlib

LEADERBOARD_KEY = "suite-leaderboard"
COLUMNS = (
    "params.`method`",
    "params.`weight_bits`",
    "params.`act_bits`",
    "params.`seed`",
    "metrics.`top1`",
    "metrics.`top5`",
    "metrics.`loss`",
    "metrics.`model_size_mb`",
    "metrics.`images_per_s`",
    "params.`model`",
    "params.`dataset`",
    "tags.`role`",
)


def colour(method: str) -> str:
    """The colour of a method's runs in the table and the charts: always the same."""
    share = zlib.crc32(method.encode()) / 2**32
    red, green, blue = colorsys.hls_to_rgb(share, 0.45, 0.65)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def leaderboard(created_at_ms: int) -> str:
    """The value of the tag: runs by top1, with the columns above; charts of top1 over bits, size and epochs."""
    base = {"deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    accuracy, curves = "suite-accuracy", "suite-curves"
    line = {
        "type": "LINE",
        "metricSectionId": curves,
        "metricKey": "top1",
        "selectedMetricKeys": ["top1"],
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
    charts: list[dict[str, object]] = [
        {
            "type": "PARALLEL",
            "metricSectionId": accuracy,
            "selectedParams": ["method", "weight_bits", "act_bits"],
            "selectedMetrics": ["top1"],
            "showAllRuns": True,
        },
        {
            "type": "SCATTER",
            "metricSectionId": accuracy,
            "xaxis": {"key": "model_size_mb", "type": "METRIC"},
            "yaxis": {"key": "top1", "type": "METRIC"},
        },
        {"type": "BAR", "metricSectionId": accuracy, "metricKey": "top1"},
        line,
    ]
    section = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    state = {
        "searchFilter": "tags.role != 'report'",
        "orderByKey": "metrics.`top1`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(COLUMNS),
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [{**base, "uuid": f"suite-{n}", **chart} for n, chart in enumerate(charts)],
        "compareRunSections": [
            {"uuid": accuracy, "name": "Accuracy", **section},
            {"uuid": curves, "name": "Training curves", **section},
        ],
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
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return json.dumps({"name": "Leaderboard", "createdAt": created_at_ms, "state": f"deflate;{packed}"})
