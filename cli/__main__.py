"""`python -m cli` is `ring1`, for a checkout that is not installed."""

from __future__ import annotations

from cli.main import entry_point

entry_point()
