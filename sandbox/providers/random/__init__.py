"""The sandbox's ``random`` provider: generated values that live in the state and nowhere else."""
