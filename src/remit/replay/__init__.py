"""Replay: what the record says, whether today's code would do it again, and what would have come of something else."""
