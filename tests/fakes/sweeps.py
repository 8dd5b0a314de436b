"""A small sweep on disk."""

from __future__ import annotations

from pathlib import Path

from fakes.runs_folder import K_SIGMA, QAT, Json, begin, finish, plan, stage


def small(runs: Path) -> list[Json]:
    """A sweep of two seeds in which one method failed, one has half of its runs and one none."""
    stages = []
    for seed in (0, 1):
        start = stage("float", 32, seed)
        finish(runs, start, 91.0 + seed)
        recipes = {
            "nine": stage("k_sigma", 9, seed, start, **K_SIGMA),
            "five": stage("k_sigma", 5, seed, start, **K_SIGMA),
            "bad": stage("qat_asymmetric", 8, seed, start, **QAT),
            "new": stage("a|b", 4, seed, start),
        }
        finish(runs, recipes["nine"], 90.0 + seed)
        if seed == 0:
            finish(runs, recipes["five"], 10.0)
            begin(runs, recipes["bad"], {"event": "failed", "error": "CUDA out of memory"})
        stages += [start, *recipes.values()]
    plan(runs, *stages)
    return stages
