"""A real Xen under QEMU: starts one of our 64-bit kernels as its dom0 and reads the serial line.

Only TCG is used, so that the result does not depend on the host's processor. Xen 4.17 takes about
two seconds to the kernel's first instruction.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Final

from guests import CHECK_LINE, REPORT_FAIL, REPORT_PASS

XEN_PACKAGE: Final = "xen-hypervisor-4.17-amd64"
XEN_FILE: Final = "boot/xen-4.17-amd64.gz"
QEMU: Final = "qemu-system-x86_64"

_OPTIONS: Final = (
    *("-accel", "tcg", "-cpu", "Nehalem", "-m", "512"),
    *("-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"),
)
_XEN_COMMAND_LINE: Final = "console=com1 com1=115200,8n1 dom0_mem=128M noreboot loglvl=all"
_DOM0_ENDED: Final = re.compile(r"\(XEN\).*(Hardware Dom0|Domain 0) (crashed|halted|shutdown)")
_TIMEOUT_S: Final = 120


def unpacked_xen(packed: Path, folder: Path) -> Path:
    """Xen as an ELF file, which is what QEMU's multiboot loader takes."""
    xen = folder / "xen"
    xen.write_bytes(gzip.decompress(packed.read_bytes()))
    return xen


def qemu() -> str | None:
    """Where QEMU is, None when it is not installed."""
    return shutil.which(QEMU)


def console_of_dom0(xen: Path, kernel: Path, command_line: str = "", cpus: int = 1) -> str:
    """Boot `kernel` as dom0 of `xen`; return the serial line's text up to the guest's verdict.

    It has as many vCPUs as the machine has `cpus`.
    """
    process = subprocess.Popen(
        [
            QEMU,
            *_OPTIONS,
            *("-smp", str(cpus)),
            *("-kernel", str(xen), "-append", _XEN_COMMAND_LINE),
            *("-initrd", f"{kernel} {command_line}".rstrip()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="latin-1",
    )
    watchdog = threading.Timer(_TIMEOUT_S, process.kill)
    watchdog.start()
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if REPORT_PASS.match(line) or REPORT_FAIL.match(line) or _DOM0_ENDED.search(line):
                break
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()
    return "".join(lines)


def check_results(console: str) -> dict[str, tuple[str, str]]:
    """Verdict and what was seen, by the id of the check."""
    return {m["id"]: (m["verdict"], m["seen"]) for m in CHECK_LINE.finditer(console)}
