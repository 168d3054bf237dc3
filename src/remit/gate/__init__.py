"""The gate: the one pipeline that every call passes."""
