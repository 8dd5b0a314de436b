"""What came out of the rounds of a campaign of faults, and its record."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fakes.faults import FAULTS
from suite.record.files import write_bytes

ROUNDS = "rounds.jsonl"
"""The record of a campaign's rounds, a line each."""


@dataclass
class Verdict:
    """What happened in a round, and what is wrong at its end: nothing, if all is well."""

    on: str
    seed: int
    struck: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    commit: str = ""


def count(verdicts: Sequence[Verdict]) -> int:
    """How many faults happened."""
    return sum(len(verdict.struck) for verdict in verdicts)


def table(verdicts: list[Verdict]) -> str:
    """Markdown: of each fault how often it happened, in how many rounds of all, and how many of these lost nothing."""
    times, rounds, sound = Counter[str](), Counter[str](), Counter[str]()
    for verdict in verdicts:
        names = [name for name, _ in verdict.struck]
        times.update(names)
        rounds.update(set(names))
        sound.update(set(names) if not verdict.wrong else ())
    meaning: dict[str, Callable[..., str]] = {fault.__name__: fault for fault in FAULTS}
    lines = ["| fault | times | rounds with it | of these without a loss |", "| --- | ---: | ---: | ---: |"]
    for name, count in times.most_common():
        words = (meaning[name].__doc__ or name).splitlines()[0].rstrip(".")
        lines.append(f"| {words} | {count} | {rounds[name]} | {sound[name]} |")
    return "\n".join(lines)


def page(verdicts: list[Verdict], command: str) -> str:
    """The record of a campaign."""
    seconds = sum(verdict.seconds for verdict in verdicts)
    commits = ", ".join(dict.fromkeys(verdict.commit[:10] for verdict in verdicts))
    lost = [verdict for verdict in verdicts if verdict.wrong]
    lines = [
        f"# {count(verdicts)} faults in {len(verdicts)} sweeps",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {seconds / 3600:.1f} hours on {os.cpu_count()} cores "
        f"({platform.machine()}, Python {platform.python_version()}), commit {commits}. Each sweep is a training and "
        f"two recipes, launched on {', '.join(sorted({verdict.on for verdict in verdicts}))} in turn, with some "
        "faults at random moments. Then every stage has to be done exactly once, with the outcome and the weights, "
        "bit for bit, of a sweep that nobody disturbed, every metric once in MLflow, and no process left.",
        "",
        f"{len(verdicts) - len(lost)} of {len(verdicts)} sweeps lost nothing.",
        "",
        table(verdicts),
        "",
    ]
    for verdict in lost:
        what = "; ".join(words for _, words in verdict.struck)
        lines += [f"- {verdict.on}, seed {verdict.seed}: {what}. Wrong: {'; '.join(verdict.wrong)[:600]}"]
    return "\n".join(lines)


def read_rounds(folder: Path) -> list[Verdict]:
    """The rounds of all sittings so far."""
    record = folder / ROUNDS
    lines = record.read_text().splitlines() if record.exists() else []
    return [Verdict(**json.loads(line)) for line in lines]


def write_rounds(verdicts: list[Verdict], command: str, folder: Path) -> None:
    """The rounds of all sittings and the page on them, each whole or not at all: a sitting may be killed."""
    lines = "".join(json.dumps(asdict(verdict)) + "\n" for verdict in verdicts)
    write_bytes(lines.encode(), folder / ROUNDS)
    write_bytes(page(verdicts, command).encode(), folder / "README.md")
