"""One stage on one rank."""
