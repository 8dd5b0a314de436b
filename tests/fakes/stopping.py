"""A signal that comes at a place that a test chooses."""

from __future__ import annotations


class AfterQuestions:
    """A Stop whose signal comes before it is asked for the n-th time."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    @property
    def asked_by(self) -> str:
        self.left -= 1
        return "SIGTERM" if self.left < 0 else ""
