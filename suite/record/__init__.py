"""What a run leaves in its directory, and who may write it. No torch at import."""
