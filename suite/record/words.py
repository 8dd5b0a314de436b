"""Parameters in words, as names of stages have them, for those who read records."""

from suite.recipe.words import in_words, phrase

__all__ = ["in_words", "phrase"]
