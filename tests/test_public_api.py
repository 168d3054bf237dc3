"""The public interface is small, and grows or shrinks only on purpose."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import remit

PUBLIC = [
    "Completed",
    "Deferred",
    "Denied",
    "Effect",
    "Failed",
    "Held",
    "Idempotency",
    "Money",
    "NotCompleted",
    "Outcome",
    "OutcomeUnknown",
    "Parked",
    "Rejected",
    "Remit",
    "RemitError",
    "Resource",
    "Retry",
    "Run",
    "RunResult",
    "Tool",
    "ToolContext",
    "ToolFailed",
    "Unknown",
    "run_sync",
    "tool",
]


def test_the_public_names_are_exactly_these() -> None:
    assert remit.__all__ == PUBLIC
    assert len(PUBLIC) <= 25


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(importlib.import_module("remit"), name) is not None


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute `Gate`"):
        _ = remit.Gate


def test_importing_the_package_imports_none_of_its_parts() -> None:
    code = "import sys, remit; print([m for m in sys.modules if m.startswith('remit.')])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
