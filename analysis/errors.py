"""The one exception of the analysis."""


class AnalysisError(Exception):
    """Something that was read cannot be used; the message names it, what was got, and what to do."""
