"""Contracts: what one workflow is for and may do; loaded, checked and compiled to policy."""
