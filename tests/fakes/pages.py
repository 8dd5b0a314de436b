"""A report and what stands in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from matplotlib.figure import Figure

from analysis.draw import style
from analysis.page import html, write
from analysis.report import results
from fakes.runs_folder import Json

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def metrics(step: int, attempt: int = 1, **values: float | None) -> Json:
    return {"event": "metrics", "attempt": attempt, "step": step, "values": values}


@contextmanager
def without_drawing() -> Iterator[None]:
    """Figures are made and not drawn, which takes most of a report's time: their files are empty, and the page has an
    empty picture by the name of each."""

    def save(
        figure: Figure, stem: Path, kinds: Sequence[str] = ("png", "svg"), drawn: str | None = None
    ) -> list[Path]:
        paths = [stem.with_name(f"{stem.name}.{kind}") for kind in kinds]
        for path in paths:
            path.touch()
        return paths

    def inlined(text: str, name: str) -> str:
        return f'<svg id="{name}" aria-hidden="true"></svg>'

    with (
        mock.patch.object(style, "save", save),
        mock.patch.object(style, "svg", lambda figure: ""),
        mock.patch.object(html, "_inlined", inlined),
    ):
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    """As `without_drawing`, for a test."""
    with without_drawing():
        yield


def written(runs: Path, sweep: str = "small", drawn: bool = False, only: Sequence[Any] = ()) -> str:
    """The report of a sweep, as it lies beside its runs, without the figures' own files; all SECTIONS, or some."""
    folder = runs.parent / "results" / sweep
    folder.mkdir(parents=True, exist_ok=True)
    some = mock.patch.object(write, "SECTIONS", only or write.SECTIONS)
    with some, nullcontext() if drawn else without_drawing():
        return write.write(results.load(runs, sweep), folder / "report.html", kinds=())[-1].read_text()


def words(text: str) -> str:
    """What a reader sees, the script and its data left out, in plain spaces and minus signs."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split()).translate({0xA0: " ", 0x2212: "-"})


class Elements(HTMLParser):
    """Every element with its attributes, and the nesting checked."""

    VOID = ("meta", "link", "input", "br", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
