"""What is said of a domain that Xen had to end, in the shape that Xen says it.

People grep these reports, so lines keep Xen's form (show_registers and show_guest_stack in
arch/x86/x86_64/traps.c and arch/x86/traps.c), as a real Xen 4.17 printed them: `RIP: e033:[<...>]`,
`CONTEXT: pv guest (d1v0)`. Added are the code at RIP, a backtrace with the image's symbols, and the
last hypercalls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.mm.guest_memory import GuestFault
from hypervisor.mm.walk import walk
from hypervisor.traps.current import Current
from hypervisor.x86.flags import CS, DS, ES, FS, GPR_NAMES, GS, RBP, RSP, SS
from hypervisor.x86.paging import PAGE_SIZE, PTE_P, pte_mfn

_STACK_LINES: Final = 20  # debug_stack_lines
_STACK_LINE_BYTES: Final = 32
_MAX_CALLS: Final = 16
_CODE_BEFORE: Final = 15
_CODE_AFTER: Final = 16
_GPR_ORDER: Final = (0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15)


def crash_report(current: Current, why: str, now_ns: int) -> str:
    """The report for the guest on the CPU."""
    dom, vcpu = current.dom, current.vcpu
    lines = [
        f"{vcpu.name} {why}",
        *_page_walk(current),
        f"domain_crash called for d{dom.domid} {dom.name!r} at {now_ns} ns",
        f"Domain {dom.domid} (vcpu#{vcpu.vcpu_id}) crashed on cpu#0:",
        "----[ Xen-4.17.ring1  x86_64  debug=n  Not tainted ]----",
        "CPU:    0",
        *_registers(current),
        *_code(current),
        *_stack(current),
        "Guest call trace:",
        *_backtrace(current),
        "Last hypercalls:",
        *_hypercalls(dom, vcpu),
    ]
    return "".join(f"(XEN) {line}\n" for line in lines)


def _registers(current: Current) -> Iterator[str]:
    state, vcpu = current.state, current.vcpu
    rip = state.rip
    cs = state.segment(CS).selector
    yield f"RIP:    {cs:04x}:[<{rip:016x}>]{_suffix(current.dom, rip)}"
    masked = int(current.events_masked)
    yield f"RFLAGS: {state.rflags:016x}   EM: {masked}   CONTEXT: pv guest ({vcpu.name})"
    named = [(GPR_NAMES[number], state.gpr(number)) for number in _GPR_ORDER]
    named += [("cr0", state.cr0), ("cr4", state.cr4)]
    for start in range(0, len(named), 3):
        yield _named(named[start : start + 3])
    yield _named([("cr3", state.cr3), ("cr2", state.cr2)])
    bases = (state.segment(FS).base, state.segment(GS).base, vcpu.gs_base_user)
    yield _named(list(zip(("fsb", "gsb", "gss"), bases, strict=True)))
    order = (("ds", DS), ("es", ES), ("fs", FS), ("gs", GS), ("ss", SS), ("cs", CS))
    yield "   ".join(f"{name}: {state.segment(n).selector:04x}" for name, n in order)


def _named(values: list[tuple[str, int]]) -> str:
    return "   ".join(f"{name + ':':<4} {value:016x}" for name, value in values)


def _code(current: Current) -> Iterator[str]:
    """The bytes around RIP, that at RIP in angle brackets; `??` where there is no memory."""
    rip = current.state.rip
    yield f"Guest code around <{rip:016x}>{_suffix(current.dom, rip)}:"
    base = current.state.segment(CS).base
    shown = []
    for vaddr in range(rip - _CODE_BEFORE, rip + _CODE_AFTER):
        text = _byte_at(current, base + vaddr)
        shown.append(f"<{text}>" if vaddr == rip else text)
    yield " " + " ".join(shown)


def _byte_at(current: Current, vaddr: int) -> str:
    if vaddr < 0:
        return "??"
    try:
        return current.mem.read_raw(vaddr, 1).hex()
    except GuestFault:
        return "??"


def _stack(current: Current) -> Iterator[str]:
    """The words from the stack pointer on, to the end of their page."""
    size = current.vcpu.width.word_bytes
    rsp = current.state.gpr(RSP)
    yield f"Guest stack trace from {'rsp' if size == 8 else 'esp'}={rsp:0{2 * size}x}:"
    length = min(_STACK_LINES * _STACK_LINE_BYTES, PAGE_SIZE - rsp % PAGE_SIZE)
    try:
        raw = current.mem.read_raw(rsp, length - length % size)
    except GuestFault:
        yield "  Fault while accessing guest memory."
        return
    words = [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]
    per_line = _STACK_LINE_BYTES // size
    for start in range(0, len(words), per_line):
        shown = " ".join(f"{word:0{2 * size}x}" for word in words[start : start + per_line])
        yield f"   {shown}"


def _backtrace(current: Current) -> Iterator[str]:
    """RIP, then return addresses along the frame pointers, as long as they lead upwards."""
    size = current.vcpu.width.word_bytes
    yield _call(current, current.state.rip)
    frame = current.state.gpr(RBP)
    for _ in range(_MAX_CALLS):
        try:
            raw = current.mem.read_raw(frame, 2 * size)
        except GuestFault:
            return
        above = int.from_bytes(raw[:size], "little")
        yield _call(current, int.from_bytes(raw[size:], "little"))
        if above <= frame:
            return
        frame = above


def _call(current: Current, rip: int) -> str:
    width = 2 * current.vcpu.width.word_bytes
    return f"   [<{rip:0{width}x}>]{_suffix(current.dom, rip)}"


def _suffix(dom: Domain, vaddr: int) -> str:
    """` name+0x12` where the image has a symbol for it."""
    name = dom.symbols.describe(vaddr) if dom.symbols else None
    return f" {name}" if name else ""


def _page_walk(current: Current) -> Iterator[str]:
    """The entries that lead to the address that could not be reached, if it was about one."""
    vaddr = current.lost_vaddr
    if vaddr is None:
        return
    yield f"Pagetable walk from {vaddr:016x}:"
    found = walk(current.frames.memory, current.dom.page_tables.mode, current.state.cr3, vaddr)
    for step in found.steps:
        is_present = step.entry & PTE_P
        kind = current.frames.describe(pte_mfn(step.entry)) if is_present else "not present"
        yield f" L{step.level}[0x{step.slot:03x}] = {step.entry:016x} {kind}"


def _hypercalls(dom: Domain, vcpu: Vcpu) -> Iterator[str]:
    for number, rip in vcpu.calls.latest():
        known = number in HypercallNr._value2member_map_
        name = HypercallNr(number).name.lower() if known else f"unknown {number}"
        yield f"   {name} from {rip:#x}{_suffix(dom, rip)}"
