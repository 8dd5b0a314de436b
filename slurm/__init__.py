"""The suite on a SLURM cluster."""
