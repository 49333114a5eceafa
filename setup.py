"""The one step of the build that pyproject.toml cannot say: guest kernels are compiled first.

setuptools runs `build_py` for a wheel and for an editable install alike, so both end with the
kernels in place. `guests.build` only rebuilds what is older than its sources.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


class BuildWithGuests(build_py):
    """Build the guest kernels, then collect packages and their data as usual."""

    def run(self) -> None:
        if subprocess.run([sys.executable, "-m", "guests.build"], cwd=HERE, check=False).returncode:
            raise SystemExit("ring1: the guest kernels did not build; the lines above say why")
        super().run()


setup(cmdclass={"build_py": BuildWithGuests})
