"""What tests do about a real part that isn't there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

CI = os.environ.get("CI") == "true"


def unavailable(reason: str) -> NoReturn:
    """Skip on a user's machine; in CI a part that is missing is a failure."""
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)
