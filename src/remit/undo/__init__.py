"""Undo: the compensations of a run's completed writes, newest first, as gated calls."""
