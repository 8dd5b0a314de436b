"""Statistics and verdicts. Nothing is drawn here."""
