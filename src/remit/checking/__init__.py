"""Checking: `remit check` and `remit policy test` read everything of a project and say every problem."""
