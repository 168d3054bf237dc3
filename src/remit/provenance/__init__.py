"""Provenance: where each argument came from, so that injected text can't spend authority."""
