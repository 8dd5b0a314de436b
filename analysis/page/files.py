"""All files of a report: tables as CSV, Markdown and LaTeX, figures, and the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.page import write
from analysis.report import latex, tables
from analysis.report.results import Results


def write_all(found: Results, folder: Path, kinds: Sequence[str], doing: Callable[[str], None]) -> list[Path]:
    """Write them into `folder`, figures as files of these `kinds`; returns the paths, the page last. `doing` hears
    what is being done."""
    folder.mkdir(parents=True, exist_ok=True)
    table = tables.joined(found.summary, found.comparison)
    for name, rows in (("runs", found.marked), ("table", table), ("published", found.comparison)):
        rows.to_csv(folder / f"{name}.csv", index=False)
    texts = {
        "table.md": tables.markdown(found),
        "table.tex": latex.table(found),
        "summary.md": tables.summary(found),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    paths = [folder / name for name in ("runs.csv", "table.csv", "published.csv", *texts)]
    return paths + write.write(found, folder / "report.html", kinds, doing)
