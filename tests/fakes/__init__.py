"""What tests share: small runs, servers, clusters and tensors. No test is in here, and no test imports a test."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
"""The project."""
