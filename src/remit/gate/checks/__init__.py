"""The checks, each a function from a call and its run to a fuller call or a verdict."""
