"""Exit statuses, refusals, and the report of a bug.

A script must be able to tell a guest's failure from a typing error and both from a bug of ours, so
each has a status of its own.
"""

from __future__ import annotations

import os
import platform
import shlex
import tempfile
import traceback
from collections.abc import Sequence
from enum import IntEnum
from importlib import metadata
from pathlib import Path


class Exit(IntEnum):
    """What `ring1` tells the shell."""

    MET = 0  # all expectations were met; or, without any, the guest powered off
    UNMET = 1  # an expectation was not met, or the run ended before the guest did
    USAGE = 2  # bad usage or input
    CRASHED = 3  # the domain crashed, or an own guest reported a failed check
    BUG = 4  # a bug of ours; a report was saved
    INTERRUPTED = 130  # ^C, as shells count signals
    BROKEN_PIPE = 141  # nobody reads our output any more, counted likewise


class Refusal(Exception):
    """The input cannot be used. The message is one sentence for a person, without a full stop."""


def save_report(error: BaseException, args: Sequence[str]) -> Path:
    """Write down all that is known about a bug; where it was written.

    The current folder is preferred, because there it is found; where that cannot be written, the
    folder for temporary files.
    """
    text = "\n".join(
        [
            f"ring1 {version('ring1')}, unicorn {version('unicorn')}",
            f"Python {platform.python_version()} on {platform.platform()}",
            f"command: ring1 {shlex.join(args)}",
            "",
            "".join(traceback.format_exception(error)),
            # the machine's own account of its state, where the machine noticed the bug itself
            str(getattr(error, "report", "")),
        ]
    )
    name = f"ring1-report-{os.getpid()}.txt"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return folder / name
    return Path(os.devnull)


def version(package: str) -> str:
    """The installed version of a package, or a word that says that it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
