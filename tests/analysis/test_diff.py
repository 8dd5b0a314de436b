"""What changed between two sweeps: image by image where that is known, over seeds elsewhere, and never by chance."""

from __future__ import annotations

import csv
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.answers import DATA, answered, right
from fakes.runs_folder import Json, begin, finish, plan, stage
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_ind

from analysis.__main__ import main
from analysis.compare import significance, sweeps
from analysis.report import diff


def stages(seeds: int = 1, **start: Any) -> list[Json]:
    """A training and two recipes for each seed."""
    found = []
    for seed in range(seeds):
        training = stage("float", 32, seed, epochs=3, **start)
        recipes = (stage("amax", bits, seed, training, epochs=3, feed_seed=seed, **start) for bits in (8, 4))
        found += [training, *recipes]
    return found


def sweep(runs: Path, counts: tuple[int, ...], seeds: int = 1, **start: Any) -> list[Json]:
    """A finished sweep: of each seed's float, 8 and 4 bits that many images are right."""
    listed = stages(seeds, **start)
    plan(runs, *listed)
    for index, one in enumerate(listed):
        answered(runs, one, right(counts[index % 3]))
    return listed


def compared(folder: Path) -> dict[str, Json]:
    """The rows of the sweep `small` in `a` and in `b`, by name."""
    found = sweeps.load((folder / "a", "small"), (folder / "b", "small"))
    return {f"{row['label']} {row['weight_bits']}": row for row in found.table.to_dict("records")}


def run(folder: Path, *words: str) -> int:
    return main(
        ["diff", *words, "--runs", str(folder / "a"), "--runs-b", str(folder / "b"), "--out", str(folder)]
    )


def test_a_kernel_that_loses_images_is_worse_and_ci_hears_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path / "a", (950, 940, 900))
    sweep(tmp_path / "b", (950, 915, 898))
    assert run(tmp_path, "small") == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == (
        "Worse: amax w8a8 (\N{MINUS SIGN}2.50). small → small, 3 configurations: "
        "1 worse, 1 not significant, 1 identical per image."
    )
    assert run(tmp_path, "small") == 1 and (tmp_path / "small-small" / "diff.md").exists()
    with (tmp_path / "small-small" / "diff.csv").open() as file:
        rows = {f"{row['label']} {row['weight_bits']}": row for row in csv.DictReader(file)}
    worse = rows["amax 8"]
    assert (worse["verdict"], worse["by"], worse["float_stage"]) == ("worse", "images", "same")
    assert float(worse["difference"]) == pytest.approx(-2.5) and float(worse["p"]) == pytest.approx(
        2 * 0.5**25
    )
    assert float(worse["p_holm"]) == pytest.approx(3 * float(worse["p"]))
    assert float(rows["amax 4"]["p"]) == 0.5 and rows["float 32"]["verdict"] == "identical per image"
    assert float(worse["low"]) < -2.5 < float(worse["high"]) < 0


def test_what_is_better_or_by_chance_is_not_worse(tmp_path: Path) -> None:
    sweep(tmp_path / "a", (950, 900, 900))
    sweep(tmp_path / "b", (950, 940, 897))
    assert run(tmp_path, "small") == 0
    assert [row["verdict"] for row in compared(tmp_path).values()] == [
        "better", "not significant", "identical per image"
    ]  # fmt: skip


def test_speed_is_compared_on_one_device_only_and_size_always(tmp_path: Path) -> None:
    listed = sweep(tmp_path / "a", (950, 900, 900))
    sweep(tmp_path / "b", (950, 900, 900))
    answered(tmp_path / "b", listed[1], right(900), images_per_s=5000.0, model_size_mb=0.136)
    rows = compared(tmp_path)
    assert (rows["amax 8"]["speed_ratio"], rows["amax 8"]["size_ratio"]) == (2.0, 0.5)
    begin(tmp_path / "b", listed[1], DATA, device="NVIDIA H200")
    assert math.isnan(compared(tmp_path)["amax 8"]["speed_ratio"])


def test_what_fails_now_is_worse_and_what_only_one_side_has_is_shown(tmp_path: Path) -> None:
    listed = sweep(tmp_path / "a", (950, 940, 900))
    other = stage("k_sigma", 5, 0, listed[0])
    plan(tmp_path / "b", *listed[:2], other)
    answered(tmp_path / "b", listed[0], right(950))
    begin(tmp_path / "b", listed[1], {"event": "failed", "error": "boom"})
    rows = compared(tmp_path)
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == {
        "amax 8": "failed now", "float 32": "identical per image", "k_sigma 5": "only in B", "amax 4": "only in A"
    }  # fmt: skip
    assert (rows["amax 4"]["n_a"], rows["amax 4"]["n_b"], rows["amax 4"]["top1_a"]) == (1, 0, 90.0)
    assert run(tmp_path, "small") == 1


@pytest.mark.parametrize("lacking", ["answers", "checksum", "same data"])
def test_without_the_same_images_it_is_the_seeds_that_decide(tmp_path: Path, lacking: str) -> None:
    listed = sweep(tmp_path / "a", (950, 940, 900), seeds=3)
    sweep(tmp_path / "b", (950, 940, 900), seeds=3)
    for seed, one in enumerate(listed[1::3]):
        events = {"answers": DATA, "checksum": {"event": "else"}, "same data": DATA | {"sha256": "f" * 64}}[
            lacking
        ]
        for side, count in (("a", 940), ("b", 900)):
            answered(tmp_path / side, one, right(count + seed), events if side == "b" else DATA)
            if lacking == "answers":
                finish(tmp_path / side, one, (count + seed) / 10)
    row = compared(tmp_path)["amax 8"]
    p = ttest_ind([90.0, 90.1, 90.2], [94.0, 94.1, 94.2], equal_var=False).pvalue
    assert (row["by"], row["n_a"], row["verdict"]) == ("seeds", 3, "worse") and row["p"] == pytest.approx(p)


def test_one_seed_without_per_image_results_is_too_few_and_is_called_so(tmp_path: Path) -> None:
    for side, top1 in (("a", 94.0), ("b", 50.0)):
        only = stage("amax", 8, 0)
        plan(tmp_path / side, only)
        finish(tmp_path / side, only, top1)
    row = compared(tmp_path)["amax 8"]
    assert (row["verdict"], row["difference"]) == ("too few seeds", -44.0) and math.isnan(row["p"])


@pytest.mark.parametrize("state", ["pending", "stopped", "only here"])
def test_a_sweep_without_results_is_not_called_good(
    tmp_path: Path, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = sweep(tmp_path / "a", (950, 940, 900))
    plan(tmp_path / "b", *listed)
    if state == "only here":
        shutil.rmtree(tmp_path / "a" / listed[0]["key"])
        plan(tmp_path / "a", listed[0])
    elif state == "stopped":
        begin(tmp_path / "b", listed[1], DATA)
    assert run(tmp_path, "small") == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "Cannot be tested. " if state == "only here" else "Worse: float (not done in B), amax w8a8 (not"
    )


def test_a_sweep_that_was_trained_otherwise_is_matched_by_its_methods_and_this_is_reported(
    tmp_path: Path,
) -> None:
    sweep(tmp_path / "a", (950, 940, 900))
    longer = [dict(one) for one in stages()]
    for one in longer:
        one["params"] = one["params"] | {"epochs": 30, "new_field": 1}
        one["key"] = one["key"][::-1]
        one["needs"] = [key[::-1] for key in one["needs"]]
    plan(tmp_path / "b", *longer, sweep="longer")
    for one, count in zip(longer, (960, 950, 910), strict=True):
        answered(tmp_path / "b", one, right(count))
    found = sweeps.load((tmp_path / "a", "small"), (tmp_path / "b", "longer"))
    assert len(found.table) == 3 and set(found.table["verdict"]) == {"another training, n 1"}
    assert found.table["p"].isna().all() and not found.is_worse and not found.is_tested
    assert set(found.table["float_stage"]) == {"", "other"}
    notes = " ".join(diff.notes(found))
    assert (
        "Trained otherwise, A → B: epochs 3 → 30." in notes
        and "In 3 rows A and B are different trainings" in notes
    )


@pytest.mark.parametrize("trained", ["start", "recipe"])
def test_what_was_trained_again_has_to_differ_over_images_and_over_seeds(
    tmp_path: Path, trained: str
) -> None:
    further = {"feed_epochs": 1} if trained == "recipe" else {}
    for side, starts, counts in (
        ("a", (950, 930, 940), (940, 900, 930)),
        ("b", (940, 955, 925), (880, 930, 900)),
    ):
        listed = stages(3, **further)
        plan(tmp_path / side, *listed)
        for index, one in enumerate(listed):
            start = 950 if trained == "recipe" else starts[index // 3]
            answered(tmp_path / side, one, right((start, counts[index // 3], 500)[index % 3]))
    row = compared(tmp_path)["amax 8"]
    paired = significance.paired(
        np.stack([right(count) for count in (940, 900, 930)]),
        np.stack([right(count) for count in (880, 930, 900)]),
    )
    over_seeds = significance.welch([94.0, 90.0, 93.0], [88.0, 93.0, 90.0])
    assert paired["p"] < 1e-5 and (row["by"], row["verdict"]) == ("both", "not significant")
    assert (row["p"], row["low"]) == (over_seeds["p"], over_seeds["low"])
    assert row["float_stage"] == ("same" if trained == "recipe" else "other")
    assert compared(tmp_path)["amax 4"]["verdict"] == "identical per image"


def test_trainings_of_one_sweep_that_only_their_own_fields_distinguish_are_not_mixed(tmp_path: Path) -> None:
    for side, counts in (("a", (950, 900)), ("b", (950, 800))):
        listed = [stage("float", 32, 0, epochs=epochs) for epochs in (3, 30)]
        plan(tmp_path / side, *listed)
        for one, count in zip(listed, counts, strict=True):
            answered(tmp_path / side, one, right(count))
    found = sweeps.load((tmp_path / "a", "small"), (tmp_path / "b", "small")).table
    assert found["verdict"].tolist() == ["identical per image", "another training, n 1"]
    assert found["difference"].tolist() == pytest.approx([0, -10])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["diff"],
            "parameter SWEEP_A requires an argument. See suite diff --help",
        ),
        (
            ["diff", "small"],
            "A and B are both 'small' in .*; name another sweep, or another folder with --runs-b",
        ),
        (["diff", "small", "none"], "holds no sweep 'none'; it holds other, small"),
        (["diff", "small", "other"], "'small' and 'other' have no configuration in common; compare others"),
        (["diff", "small", "--what"], "Unknown option: --what. See suite diff --help"),
    ],
)
def test_bad_input_is_a_line_and_exit_2(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path, (950, 940, 900))
    plan(tmp_path, stage("k_sigma", 8, 0, dataset="digits"), sweep="other")
    code = main([*words, "--runs", str(tmp_path), "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert code == 2 and not out and len(err.splitlines()) == 1 and not (tmp_path / "out").exists()
    assert re.search(message, err)


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_called_diff_is_reported_behind_two_dashes(tmp_path: Path) -> None:
    only = stage("amax", 8, 0)
    plan(tmp_path, only, sweep="diff")
    assert main(["--runs", str(tmp_path), "--out", str(tmp_path), "--", "diff"]) == 0
    assert (tmp_path / "diff" / "report.html").exists()


@given(st.lists(st.tuples(*[st.lists(st.booleans(), min_size=6, max_size=6)] * 4), min_size=1, max_size=1))
def test_the_p_of_several_seeds_is_that_of_all_ways_to_exchange_the_images(
    drawn: list[tuple[list[bool], ...]],
) -> None:
    one, two, three, four = (np.array(values) for values in drawn[0])
    before, after = np.stack([one, two]), np.stack([three, four])
    change = (after.astype(int) - before).sum(axis=0)
    every = permutation_test(
        (change, np.zeros_like(change)), lambda x, y, axis: (x - y).sum(axis=axis), permutation_type="samples",
        n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert significance.paired(before, after)["p"] == pytest.approx(min(1, every.pvalue))


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=8))
def test_a_corrected_p_is_never_smaller_and_keeps_the_order(ps: list[float]) -> None:
    corrected = significance.holm(ps)
    known = sorted((p, q) for p, q in zip(ps, corrected, strict=True) if not math.isnan(p))
    assert all(p <= q <= 1 for p, q in known) and [q for _, q in known] == sorted(q for _, q in known)
    assert [math.isnan(p) for p in ps] == [math.isnan(q) for q in corrected]
