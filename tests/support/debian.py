"""Debian's packages in tests: without one a test is skipped on a user's machine and fails in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hypervisor.testing.debian import Unavailable, debian_tree


def debian_tree_or_skip(package: str) -> Path:
    """Where a Debian package is unpacked."""
    try:
        return debian_tree(package)
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"needed in CI: {reason}")
        pytest.skip(str(reason))
