"""Tables and texts in each format."""
