"""Parameters in words, as names of stages have them, for those who read records."""

from suite.recipe.words import counted, in_words, is_seed, phrase

__all__ = ["counted", "in_words", "is_seed", "phrase"]
