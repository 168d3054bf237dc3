"""Limits: budgets of one run, and rates over sliding windows that hold across runs and processes."""
