"""Files out of Debian's packages: kernels that nobody here wrote, and Xen itself.

A package is fetched without root by `apt-get download`, unpacked by `dpkg-deb -x` and kept in
`$XDG_CACHE_HOME/ring1/debian/<package>`. It appears there by one rename, so that a reader never
sees half of one, and test workers that run side by side fetch it once. Which version that is
depends on the machine's package lists; `package_version` says it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

GRUB_PACKAGE: Final = "grub-xen-host"
GRUB_32: Final = "usr/lib/grub-xen/grub-i386-xen.bin"
GRUB_64: Final = "usr/lib/grub-xen/grub-x86_64-xen.bin"
LINUX_PACKAGE: Final = "linux-image-amd64"  # depends on the one that has the kernel
GRUB_PVH: Final = "usr/lib/grub-xen/grub-i386-xen_pvh.bin"

_TIMEOUT_S: Final = 300
_VERSION_FILE: Final = ".ring1-version"
_DEPENDS_FILE: Final = ".ring1-depends"


class Unavailable(Exception):
    """A package or a file in it cannot be had here; the message says why in a sentence."""


def debian_file(package: str, path: str) -> Path:
    """The file `path` (without a leading slash) of a Debian package, fetched if need be.

    Raises Unavailable.
    """
    root = _package_root(package)
    found = root / path
    if not found.is_file():
        raise Unavailable(f"Debian's package {package} ({package_version(package)}) has no {path}")
    return found


def debian_tree(package: str) -> Path:
    """Where a Debian package is unpacked, fetched if need be. Raises Unavailable."""
    return _package_root(package)


def linux_kernel() -> Path:
    """The newest stock kernel for amd64, a bzImage. Raises Unavailable."""
    depends = (_package_root(LINUX_PACKAGE) / _DEPENDS_FILE).read_text()
    found = re.search(r"linux-image-[\w.+-]+", depends)
    if found is None:
        raise Unavailable(f"Debian's package {LINUX_PACKAGE} depends on no kernel: {depends!r}")
    kernels = list((_package_root(found[0]) / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise Unavailable(f"Debian's package {found[0]} has {len(kernels)} kernels")
    return kernels[0]


def package_version(package: str) -> str:
    """The version of a package that is in the cache."""
    return (cache_directory() / package / _VERSION_FILE).read_text().strip()


def cache_directory() -> Path:
    """Where unpacked packages are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ring1" / "debian"


def _package_root(package: str) -> Path:
    cache = cache_directory()
    root = cache / package
    if root.is_dir():
        return root
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"Debian's package {package} is not cached, and {tool} is not here")
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache / ".lock"):
        if not root.is_dir():
            _fetch(package, root)
    return root


def _fetch(package: str, root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".fetch-") as scratch_name:
        scratch = Path(scratch_name)
        _download(package, scratch)
        archives = list(scratch.glob("*.deb"))
        if len(archives) != 1:
            raise Unavailable(f"apt-get download {package} brought {len(archives)} packages")
        unpacked = scratch / "unpacked"
        _run(["dpkg-deb", "-x", str(archives[0]), str(unpacked)], scratch)
        version = _run(["dpkg-deb", "-f", str(archives[0]), "Version"], scratch)
        (unpacked / _VERSION_FILE).write_text(version)
        depends = _run(["dpkg-deb", "-f", str(archives[0]), "Depends"], scratch)
        (unpacked / _DEPENDS_FILE).write_text(depends)
        unpacked.rename(root)


def _download(package: str, scratch: Path) -> None:
    """Fetch by the machine's package lists; where it has none, by lists fetched for the purpose."""
    try:
        _run(["apt-get", "download", package], scratch)
    except Unavailable:
        private = _private_lists(scratch)
        try:
            _run(["apt-get", *private, "update"], scratch)
            _run(["apt-get", *private, "download", package], scratch)
        except Unavailable as reason:
            raise Unavailable(f"Debian's package {package} cannot be fetched: {reason}") from reason


def _private_lists(scratch: Path) -> list[str]:
    """Options that keep apt's lists and caches in `scratch`, where no root is needed."""
    state, cache = scratch / "apt-state", scratch / "apt-cache"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return [
        "-o", f"Dir::State={state}",
        "-o", f"Dir::Cache={cache}",
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip


def _run(command: list[str], directory: Path) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took longer than {_TIMEOUT_S} s") from None
    if done.returncode:
        last = (done.stderr.strip() or "it gave no reason").splitlines()[-1]
        raise Unavailable(f"{command[0]} {command[-1]}: {last}")
    return done.stdout


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time in here; the lock goes with its holder."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
