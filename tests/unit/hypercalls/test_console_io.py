"""console_io, and the hypervisor's log that it writes to."""

from __future__ import annotations

import pytest

from hypervisor.abi.errno import Errno
from hypervisor.abi.xen import ConsoleioCmd, HypercallNr
from hypervisor.control.xen_log import LINE_BYTES, LOG_BYTES, XenLog
from hypervisor.hypercalls.table import Preempted
from tests.support.callers import UNMAPPED, Guest, refused

CHUNK = 4096
PIECE = 16 * CHUNK


def console_io(guest: Guest, command: int, count: int, vaddr: int) -> int | None:
    return guest.call(HypercallNr.CONSOLE_IO, command, count, vaddr)


def write(guest: Guest, text: bytes) -> None:
    assert console_io(guest, ConsoleioCmd.WRITE, len(text), guest.put(text)) == 0


def test_lines_of_a_domain_stand_in_the_log_under_its_number(pair: tuple[Guest, Guest]) -> None:
    near, far = pair
    write(near, b"one ")
    write(far, b"three\n")
    write(near, b"two\nfour")
    assert near.machine.xen_log == b"(d2) three\n(d1) one two\n"


def test_privileged_domain_writes_its_console(dom0: tuple[Guest, Guest]) -> None:
    near, _ = dom0
    write(near, b"\x1b[1mraw")
    assert near.machine.xen_log == b"\x1b[1mraw"
    assert near.machine.domains[near.dom.domid].console.output == b"\x1b[1mraw"


def test_nothing_can_be_written_from_nowhere(guest: Guest) -> None:
    assert console_io(guest, ConsoleioCmd.WRITE, 0, UNMAPPED) == 0


def test_text_before_a_fault_is_written(guest: Guest) -> None:
    end = guest.end_of_memory()
    guest.enter().mem.write(end - CHUNK, b"x\n" + bytes(CHUNK - 2))
    with refused(Errno.EFAULT, "is not mapped$"):
        console_io(guest, ConsoleioCmd.WRITE, 0xFFFF_FFFF, end - CHUNK)
    assert guest.machine.xen_log == b"(d1) x\n"


def test_long_text_is_written_in_pieces(guest: Guest) -> None:
    start = guest.end_of_memory() - PIECE - CHUNK
    with pytest.raises(Preempted) as later:
        console_io(guest, ConsoleioCmd.WRITE, PIECE + 10, start)
    assert later.value.arguments == (ConsoleioCmd.WRITE, 10, start + PIECE)


def test_count_is_32_bits_wide(guest: Guest) -> None:
    assert console_io(guest, ConsoleioCmd.WRITE, 1 << 32, UNMAPPED) == 0


def test_only_a_privileged_domain_may_do_anything_else(guest: Guest) -> None:
    for command in (ConsoleioCmd.READ, 9):
        with refused(Errno.EPERM, "^d1 may only write to Xen's console$"):
            console_io(guest, command, 1, guest.data)


def test_privileged_domain_reads_what_was_typed(dom0: tuple[Guest, Guest]) -> None:
    near, _ = dom0
    near.host.emergency_read = lambda dom, size: b"typed"[:size]
    assert console_io(near, ConsoleioCmd.READ, 3, near.data) == 3
    assert near.get(3) == b"typ"
    with refused(Errno.EFAULT, "is not mapped$"):
        console_io(near, ConsoleioCmd.READ, 3, UNMAPPED)


def test_privileged_domain_is_told_what_is_wrong(dom0: tuple[Guest, Guest]) -> None:
    near, _ = dom0
    with refused(Errno.ENOSYS, "^console_io command 9 is unknown$"):
        console_io(near, 9, 0, 0)
    with refused(Errno.E2BIG, "^0x80000000 bytes to read"):
        console_io(near, ConsoleioCmd.READ, 1 << 31, near.data)


# --- the log --------------------------------------------------------------------------------------
def test_unprintable_characters_are_left_out() -> None:
    log = XenLog()
    log.write_lines(3, b"a\x1b[2Jb\tc\xff\r\n\n")
    assert log.text == b"(d3) a[2Jb\tc\n(d3) \n"


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_long_lines_are_cut(piece: int) -> None:
    log = XenLog()
    text = b"x" * (2 * LINE_BYTES + 5) + b"\n"
    for at in range(0, len(text), piece):
        log.write_lines(1, text[at : at + piece])
    lines = bytes(log.text).splitlines()
    assert [len(line) - len(b"(d1) ") for line in lines] == [LINE_BYTES, LINE_BYTES, 5]


def test_log_keeps_its_end() -> None:
    log = XenLog()
    for _ in range(3):
        log.write(b"a" * LOG_BYTES)
    log.write(b"b")
    assert len(log.text) == LOG_BYTES
    assert log.text.endswith(b"ab")


def test_unfinished_line_goes_with_its_domain() -> None:
    log = XenLog()
    log.write_lines(1, b"lost")
    log.forget(1)
    log.write_lines(1, b"kept\n")
    assert log.text == b"(d1) kept\n"
