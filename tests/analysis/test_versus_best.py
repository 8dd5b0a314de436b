"""The methods of one sweep against the best of their widths: image by image, on the same networks, never by chance."""

from __future__ import annotations

import math
import random
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes.answers import DATA, answered, right, swept
from fakes.pages import Elements, words, written
from fakes.runs_folder import Json, begin, finish, plan, stage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from analysis.__main__ import main
from analysis.compare import configurations, significance, versus_best
from analysis.page import best_section
from analysis.read import run_folders
from analysis.report import results
from analysis.report.wording import MINUS

METHODS = ("amax", "entropy", "mse", "percentile")
ANSWERS = st.integers(1, 120).flatmap(lambda n: arrays(bool, st.tuples(st.integers(2, 4), st.just(n))))
GOLDEN = """\
**resnet20 on cifar10**

| widths                | best (top-1 %)  | not significantly different (points) | worse |
| --------------------- | --------------- | ------------------------------------ | ----: |
| w8, float activations | mse (95.00)     | linear (+0.00)                       |       |
| w4a4                  | entropy (90.00) | mse (~0.50); not compared: 1         |     1 |

| configuration       |    n | top-1 % | to the best |           95 % |       p | verdict                     |
| ------------------- | ---: | ------: | ----------: | -------------: | ------: | --------------------------- |
| mse w8              |    1 |   95.00 |             |                |         | best                        |
| linear w8           |    1 |   95.00 |       +0.00 | +0.00 to +0.00 |   1.000 | not significantly different |
| entropy w4a4        |    1 |   90.00 |             |                |         | best                        |
| mse w4a4            |    1 |   89.50 |       ~0.50 | ~0.94 to ~0.06 |   0.125 | not significantly different |
| amax w4a4           |    1 |   85.00 |       ~5.00 | ~6.35 to ~3.65 | < 0.001 | worse                       |
| percentile w4a4 [a] |    1 |   84.00 |             |                |         | other test data             |

- Each configuration is compared with the best one of the same float networks and widths, in points of top-1, \
paired image by image over n pairs of runs of one network with the same seeds. p is exact: McNemar's test for \
n = 1; for more, all changes of one image count together.
- The best was chosen on these same images: part of a small lead is due to that choice, and what is not \
significantly different may be as good or better. p is about other test images, for these networks and seeds.
- p is corrected for the 3 comparisons of the sweep (Holm); worse means p below 0.05. The intervals are not corrected.
- [a] Another checksum of the test data behind this number: ffffffffff; in most of the table eeeeeeeeee.
""".replace("~", MINUS)


def table(runs: Path) -> pd.DataFrame:
    return versus_best.table(runs, configurations.mark(run_folders.load(runs, "small")[0]))


def rows(runs: Path) -> dict[str, Json]:
    """The rows of the sweep `small`, by label."""
    return {row["label"]: row for row in table(runs).to_dict("records")}


def mixed(runs: Path) -> list[Json]:
    """Four methods at w4a4, one of them on other test data, and two at w8 that answer alike."""
    start = stage("float", 32, 0)
    four = [stage(method, 4, 0, start) for method in ("amax", "mse", "entropy", "percentile")]
    eight = [stage(method, 8, 0, start, act_bits=32) for method in ("mse", "linear")]
    plan(runs, start, *four, *eight)
    for one, count in zip((start, *four, *eight), (960, 850, 895, 900, 840, 950, 950), strict=True):
        data = DATA | {"sha256": "f" * 64} if one is four[3] else DATA
        answered(runs, one, right(count), data)
    return [start, *four, *eight]


@settings(deadline=None, max_examples=20)
@given(ANSWERS, st.randoms(use_true_random=False))
def test_each_is_compared_with_the_best_by_the_exact_test_whatever_the_order_of_the_plan(
    answers: np.ndarray, chance: random.Random
) -> None:
    by_method = dict(zip(METHODS, answers, strict=False))
    order = chance.sample(list(by_method), len(by_method))
    images = chance.sample(range(answers.shape[1]), answers.shape[1])
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        swept(Path(one), by_method)
        swept(Path(other), {method: by_method[method][images] for method in order})
        found, again = rows(Path(one)), rows(Path(other))
    (first,) = [row for row in found.values() if row["verdict"] == "best"]
    assert first["difference"] == 0 and math.isnan(first["p"]) and math.isnan(first["low"])
    assert first["top1"] == max(row["top1"] for row in found.values())
    rest = [row for row in found.values() if row is not first]
    for row in rest:
        top, own = by_method[first["label"]], by_method[row["label"]]
        gained, lost = int((own & ~top).sum()), int((top & ~own).sum())
        p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert row["p"] == pytest.approx(p) and row["n"] == 1
        assert row["difference"] == pytest.approx(row["top1"] - first["top1"]) and row["difference"] <= 0
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["verdict"] == ("worse" if row["p_holm"] < 0.05 else "not significantly different")
    assert [row["p_holm"] for row in rest] == significance.holm([row["p"] for row in rest])
    if [row["top1"] for row in found.values()].count(first["top1"]) == 1:
        assert {name: row["p"] for name, row in again.items()} == pytest.approx(
            {name: row["p"] for name, row in found.items()}, nan_ok=True
        )


@pytest.mark.usefixtures("undrawn")
def test_the_markdown_is_this_one_and_is_written_beside_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed(tmp_path / "runs")
    assert main(["small", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "small" / "pairs.md").read_text() == GOLDEN
    written_rows = pd.read_csv(tmp_path / "small" / "pairs.csv")
    assert tuple(written_rows) == versus_best.COLUMNS and len(written_rows) == 6
    beside = pd.read_csv(tmp_path / "small" / "table.csv")
    assert set(written_rows["configuration"]) < set(beside["configuration"])
    out = capsys.readouterr().out
    assert "small/pairs.csv" in out and "small/pairs.md" in out


def test_the_page_has_them_under_a_heading_for_each_of_their_widths(tmp_path: Path) -> None:
    mixed(tmp_path / "runs")
    text = written(tmp_path / "runs")
    heads = [attributes for tag, attributes in Elements(text).found if attributes.get("scope") == "rowgroup"]
    assert [head["colspan"] for head in heads] == ["7", "7"]
    shown = words(text)
    assert "Methods against the best of their widths" in shown
    assert (
        "w4a4 entropy 1 90.00 best mse 1 89.50 -0.50 -0.94 to -0.06 0.125 not significantly different amax 1"
        in shown
    )
    assert "w4a4 entropy (90.00) mse (-0.50); not compared: 1 1" in shown


def test_of_very_many_the_page_shows_the_nearest_and_says_so(tmp_path: Path) -> None:
    swept(tmp_path, {f"method_{index:02}": right(950 - index) for index in range(best_section.MOST + 5)})
    section = best_section.section(results.load(tmp_path, "small"))
    assert section is not None
    shown = section.parts[-1].rows  # type: ignore[union-attr]
    assert (
        shown[0][0].text
        == f"w4a4: the nearest {best_section.MOST} of {best_section.MOST + 5}, all in pairs.csv"
    )
    assert len(shown) == 1 + best_section.MOST and shown[-1][0].text == f"method_{best_section.MOST - 1}"
    overview = section.parts[1].rows  # type: ignore[union-attr]
    assert re.fullmatch(rf"(method_\d+ \({MINUS}\d\.\d\d\); ){{5}}\d+ more", overview[0][2].text)
    assert len(table(tmp_path)) == best_section.MOST + 5


def test_several_seeds_are_paired_by_their_network_and_count_together(tmp_path: Path) -> None:
    listed = swept(tmp_path, {"mse": right(900), "amax": right(900)}, seeds=3)
    answers = {}
    for seed in range(3):
        for index, count in ((1, 900 + seed), (2, 890 - seed)):
            answers[seed, index] = np.roll(right(count), 7 * seed)
            answered(tmp_path, listed[3 * seed + index], answers[seed, index])
    before, after = (np.stack([answers[seed, index] for seed in range(3)]) for index in (1, 2))
    found = rows(tmp_path)
    assert {name: found["amax"][name] for name in ("difference", "low", "high", "p")} == significance.paired(
        before, after
    )
    assert (found["amax"]["n"], found["mse"]["n"], found["amax"]["by"]) == (3, 3, "images")
    assert found["mse"]["top1"] == pytest.approx(90.1) and found["amax"]["top1"] == pytest.approx(88.9)


def test_calibrations_of_one_seed_are_paired_and_what_needs_none_with_each(tmp_path: Path) -> None:
    start = stage("float", 32, 0)
    calibrated = [
        stage(method, 4, 0, start, feed_seed=seed) for method in ("mse", "amax") for seed in range(3)
    ]
    only = stage("k_sigma", 4, 0, start)
    plan(tmp_path, start, *calibrated, only)
    for one, count in zip(calibrated, (900, 901, 902, 880, 884, 882), strict=True):
        answered(tmp_path, one, right(count))
    answered(tmp_path, only, right(890))
    found = rows(tmp_path)
    assert {name: row["n"] for name, row in found.items()} == {"mse": 3, "amax": 3, "k_sigma": 3}
    assert found["k_sigma"]["difference"] == pytest.approx(-1.1)
    expected = significance.paired(
        np.stack([right(count) for count in (900, 901, 902)]), np.stack([right(890)] * 3)
    )
    assert found["k_sigma"]["p"] == expected["p"]


def test_networks_that_were_trained_otherwise_are_compared_among_themselves(tmp_path: Path) -> None:
    listed = []
    for epochs in (3, 30):
        start = stage("float", 32, 0, epochs=epochs)
        listed += [start, *(stage(method, 4, 0, start, epochs=epochs) for method in ("mse", "amax"))]
    plan(tmp_path, *listed)
    for one, count in zip(listed, (900, 800, 790, 950, 940, 930), strict=True):
        answered(tmp_path, one, right(count))
    found = table(tmp_path)
    assert found["float_network"].tolist() == ["float, epochs 3"] * 2 + ["float, epochs 30"] * 2
    assert found["difference"].tolist() == pytest.approx([0, -1, 0, -1])


@pytest.mark.parametrize(
    ("lacking", "verdict"),
    [
        ("answers", "per-image results missing"),
        ("checksum", "test data not recorded"),
        ("same data", "other test data"),
        ("images", "per-image results missing"),
        ("network", "no run in common"),
    ],
)
def test_what_was_not_tested_alike_is_not_compared_and_leaves_the_others_alone(
    tmp_path: Path, lacking: str, verdict: str
) -> None:
    by_method = {"mse": right(900), "entropy": right(898), "amax": right(850)}
    *_, odd = listed = swept(tmp_path, by_method)
    data = {"checksum": {"event": "else"}, "same data": DATA | {"sha256": "f" * 64}}.get(lacking, DATA)
    answered(tmp_path, odd, right(990)[: 999 if lacking == "images" else 1000], data)
    if lacking == "answers":
        finish(tmp_path, odd, 85.0)
        journal = (tmp_path / listed[1]["key"] / "events.jsonl").read_text()
        (tmp_path / odd["key"] / "events.jsonl").write_text(journal)
    elif lacking == "images":
        answered(tmp_path, odd, right(840)[:999])
    elif lacking == "network":
        (tmp_path / odd["key"] / "outcome.json").unlink()
        start = stage("float", 32, 1)
        further = stage("amax", 4, 1, start)
        plan(tmp_path, *listed, start, further)
        for one in (start, further):
            answered(tmp_path, one, right(999))
    found = rows(tmp_path)
    row = found["amax"]
    assert row["verdict"] == verdict and all(math.isnan(row[name]) for name in ("difference", "p", "p_holm"))
    assert found["mse"]["verdict"] == "best" and found["entropy"]["verdict"] == "not significantly different"
    assert found["entropy"]["p_holm"] == found["entropy"]["p"] == 0.5


def test_none_is_the_best_by_having_run_only_where_it_is_easy(tmp_path: Path) -> None:
    """`amax` has the higher mean because its run on the harder network failed."""
    listed = swept(tmp_path, {"mse": right(900), "entropy": right(895), "amax": right(890)}, seeds=2)
    for one in listed[5:]:
        answered(tmp_path, one, right(700))
    (tmp_path / listed[7]["key"] / "outcome.json").unlink()
    begin(tmp_path, listed[7], {"event": "failed", "error": "boom"})
    found = rows(tmp_path)
    assert found["mse"]["verdict"] == "best" and found["mse"]["top1"] == 80.0
    assert (found["amax"]["n"], found["amax"]["top1"]) == (1, 89.0)
    assert found["amax"]["difference"] == pytest.approx(-1.0)


def test_one_that_was_trained_on_has_to_be_worse_over_trainings_as_well(tmp_path: Path) -> None:
    listed = []
    for seed in range(3):
        start = stage("float", 32, seed)
        listed += [start, stage("mse", 4, seed, start), stage("qat_symmetric", 4, seed, start, feed_epochs=2)]
    plan(tmp_path, *listed)
    for index, one in enumerate(listed):
        answered(tmp_path, one, right((950, 886 + index, 850 + 5 * index)[index % 3]))
    row = rows(tmp_path)["qat_symmetric"]
    counts = (887, 890, 893), (860, 875, 890)
    by_images = significance.paired(*(np.stack([right(count) for count in side]) for side in counts))
    expected = significance.welch(*([count / 10 for count in side] for side in counts))
    assert by_images["p"] < 1e-4 and (row["by"], row["verdict"]) == ("both", "not significantly different")
    assert (row["p"], row["low"]) == (expected["p"], expected["low"])
    assert "Welch's t-test" in best_section.notes(table(tmp_path))[-1]


def test_one_training_on_is_too_few(tmp_path: Path) -> None:
    swept(tmp_path, {"mse": right(900), "qat_symmetric": right(800)}, feed_epochs=2)
    row = rows(tmp_path)["qat_symmetric"]
    assert (row["verdict"], row["difference"]) == ("too few trainings", -10.0) and math.isnan(row["p"])


def test_a_table_of_runs_has_no_per_image_results_and_so_no_pairs(tmp_path: Path) -> None:
    mixed(tmp_path)
    results.load(tmp_path, "small").marked.to_csv(tmp_path / "runs.csv", index=False)
    found = results.load(tmp_path, "small", str(tmp_path / "runs.csv"))
    assert not len(found.pairs) and best_section.section(found) is None


def test_a_configuration_alone_at_its_widths_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    swept(tmp_path, {"mse": right(900)})
    found = results.load(tmp_path, "small")
    assert not len(found.pairs) and best_section.section(found) is None


def test_every_per_image_result_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = mixed(tmp_path)
    read: list[str] = []
    original = significance.correct
    monkeypatch.setattr(significance, "correct", lambda runs, key: (read.append(key), original(runs, key))[1])
    found = results.load(tmp_path, "small")
    assert len(found.pairs) == len(found.pairs) == 6
    assert sorted(read) == sorted(one["key"] for one in listed[1:] if one["params"]["method"] != "percentile")
