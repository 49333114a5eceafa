"""Software that nobody here wrote. Where it cannot be had: a skip for a user, a failure in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hypervisor.testing.debian import GRUB_32, GRUB_64, GRUB_PACKAGE, Unavailable, debian_file


def debian_or_skip(package: str, path: str) -> Path:
    """A file of a Debian package; without it the test is skipped, or fails if CI=true."""
    try:
        return debian_file(package, path)
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"needed in CI: {reason}")
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def grub_32() -> Path:
    """Debian's PV-GRUB for 32-bit PAE domains."""
    return debian_or_skip(GRUB_PACKAGE, GRUB_32)


@pytest.fixture(scope="session")
def grub_64() -> Path:
    """Debian's PV-GRUB for 64-bit domains."""
    return debian_or_skip(GRUB_PACKAGE, GRUB_64)
