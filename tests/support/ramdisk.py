"""A ramdisk for Linux: a cpio archive of the kind that the kernel unpacks (newc, initramfs)."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field

_DIRECTORY, _FILE, _LINK, _DEVICE = 0o40755, 0o100755, 0o120777, 0o20666


@dataclass(slots=True)
class Ramdisk:
    """Collects files; `archive` is the gzipped whole, the same bytes for the same files."""

    parts: list[bytes] = field(default_factory=list)

    def directory(self, name: str) -> None:
        """An empty directory."""
        self._add(name, _DIRECTORY)

    def file(self, name: str, data: bytes) -> None:
        """An executable file."""
        self._add(name, _FILE, data)

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self._add(name, _LINK, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """A character device."""
        self._add(name, _DEVICE, device=(major, minor))

    def archive(self) -> bytes:
        """The archive, ended and compressed."""
        self._add("TRAILER!!!", 0)
        return gzip.compress(b"".join(self.parts), mtime=0)

    def _add(
        self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        raw = name.encode() + b"\0"
        ino = len(self.parts) + 1
        fields = (ino, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % value for value in fields) + raw
        self.parts.append(_padded(head) + _padded(data))


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def busybox_ramdisk(busybox: bytes, init: str, applets: tuple[str, ...]) -> bytes:
    """BusyBox with some of its applets, and `init` as the first program."""
    disk = Ramdisk()
    for name in ("bin", "dev", "proc", "sys"):
        disk.directory(name)
    disk.file("bin/busybox", busybox)
    for applet in applets:
        disk.link(f"bin/{applet}", "busybox")
    disk.device("dev/console", 5, 1)
    disk.device("dev/null", 1, 3)
    disk.file("init", init.encode())
    return disk.archive()
