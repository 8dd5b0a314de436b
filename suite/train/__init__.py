"""The training loop, its precision, its optimizer, and evaluation."""
