"""Run directories, MLflow and published numbers as tables."""
