"""The tables of `plan` and `status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType

from suite.cli.rows import Rows
from suite.recipe import Stage
from suite.record.status import State, Status

COLOURS: dict[State, str] = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "stopped": "yellow",
    "queued": "blue",
    "pending": "bright_black",
}


def span(seconds: float) -> str:
    """A time for people: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plan_table(statuses: Sequence[Status]) -> Rows:
    """Each stage: key, what it is, what it needs, done or pending."""
    table = Rows(("key", "stage", "needs", "state"), wrapped=("stage",))
    for now in statuses:
        needs = " ".join(needed.key for needed in now.stage.needs)
        state = (now.state, COLOURS[now.state])
        table.rows.append(((now.stage.key, "cyan"), (now.stage.name, ""), (needs, "bright_black"), state))
    return table


def plan_summary(stages: Sequence[Stage], listed: int, statuses: Sequence[Status]) -> str:
    """How many stages there are, how many are done, and how much sharing saves."""
    wanted = Counter(needed.key for stage in stages for needed in stage.needs)
    shared = sum(count > 1 for count in wanted.values())
    saved = sum(count - 1 for count in wanted.values())
    done = sum(now.state == "done" for now in statuses)
    return (
        f"{len(stages)} stages for {listed} recipes: {done} done, {len(stages) - done} to run; "
        f"{shared} shared, which saves {saved} trainings or loadings"
    )


def status_table(statuses: Sequence[Status]) -> Rows:
    """Each stage: state, epochs, top-1 (grey until it is done), time since its last sign of life, its error; its job
    and how far MLflow is, where that is known."""
    with_jobs = any(now.job for now in statuses)
    with_mlflow = any(now.mlflow for now in statuses)
    titles = [
        "key",
        "stage",
        "state",
        "epoch",
        "top-1 %",
        "age",
        *["job"] * with_jobs,
        *["MLflow"] * with_mlflow,
    ]
    table = Rows([*titles, "error"], ("epoch", "top-1 %", "age"), ("stage", "job", "MLflow", "error"))
    for now in statuses:
        top1, age = now.top1, now.age_seconds
        row = [
            (now.stage.key, "cyan"),
            (now.stage.name, ""),
            (now.state, COLOURS[now.state]),
            (now.epochs, ""),
            ("" if top1 is None else f"{top1:.2f}", "" if now.outcome else "bright_black"),
            ("" if age is None else span(age), ""),
        ]
        row += [(now.job, "bright_black")] * with_jobs + [(now.mlflow, "bright_black")] * with_mlflow
        said = now.error if now.cause in ("", "code", "diverged") else f"{now.cause}: {now.error}"
        table.rows.append([*row, (said, "red")])
    return table


def status_summary(statuses: Sequence[Status]) -> str:
    """How many stages are in each state, and whose journals are damaged."""
    counts = Counter(now.state for now in statuses)
    states = f"{len(statuses)} stages: " + ", ".join(f"{counts[s]} {s}" for s in COLOURS if counts[s])
    return "\n".join(filter(None, [states, damage(statuses)]))


def damage(statuses: Sequence[Status]) -> str:
    """How many lines of journals are not what was written, and in which; nothing where all are."""
    keys = [now.stage.key for now in statuses if now.damaged]
    if not keys:
        return ""
    total, more = sum(now.damaged for now in statuses), f" and {len(keys) - 5} more" * (len(keys) > 5)
    which = ", ".join(keys[:5]) + more
    return f"{total} damaged line{'s' * (total > 1)}, not counted, in the journals of {which}"


def shown(statuses: Sequence[Status], note: str) -> RenderableType:
    """The status of a sweep, and a note where there is one."""
    return Group(status_table(statuses), status_summary(statuses), *filter(None, [note]))
