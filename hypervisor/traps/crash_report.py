"""What is said of a domain that Xen had to end, in the shape that Xen says it.

People grep these reports, so lines keep Xen's form (show_registers and friends in arch/x86/x86_64/
traps.c): `RIP: e033:[<...>]`, `CONTEXT: pv guest (d1v0)`. Added to it: a backtrace with the image's
symbols, and the last hypercalls.
"""

from __future__ import annotations

from collections.abc import Iterator

from hypervisor.abi.xen import HypercallNr
from hypervisor.domain.domain import Domain, Vcpu
from hypervisor.mm.guest_memory import GuestFault
from hypervisor.mm.walk import walk
from hypervisor.traps.current import Current
from hypervisor.x86.flags import CS, DS, ES, FS, GPR_NAMES, GS, RBP, RSP, SS
from hypervisor.x86.paging import pte_mfn

_STACK_WORDS = 16
_MAX_CALLS = 16
_GPR_ORDER = (0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15)


def crash_report(current: Current, why: str, now_ns: int) -> str:
    """The report for the guest on the CPU."""
    dom, vcpu = current.dom, current.vcpu
    lines = [
        f"(XEN) {why}",
        *_page_walk(current),
        f"(XEN) Domain {dom.domid} (vcpu#{vcpu.vcpu_id}) crashed on cpu#0 at {now_ns} ns:",
        "(XEN) ----[ Xen-4.17.ring1  x86_64  debug=n  Not tainted ]----",
        "(XEN) CPU:    0",
        *_registers(current),
        *_stack(current),
        "(XEN) Guest call trace:",
        *_backtrace(current),
        "(XEN) Last hypercalls:",
        *_hypercalls(dom, vcpu),
    ]
    return "\n".join(lines) + "\n"


def _registers(current: Current) -> Iterator[str]:
    state, vcpu = current.state, current.vcpu
    rip = state.rip
    cs = state.segment(CS).selector
    yield f"(XEN) RIP:    {cs:04x}:[<{rip:016x}>]{_suffix(current.dom, rip)}"
    masked = int(current.events_masked)
    yield (f"(XEN) RFLAGS: {state.rflags:016x}   EM: {masked}   CONTEXT: pv guest ({vcpu.name})")
    for start in range(0, 15, 3):
        names = _GPR_ORDER[start : start + 3]
        yield "(XEN) " + "   ".join(f"{GPR_NAMES[n]:<3}: {state.gpr(n):016x}" for n in names)
    yield (f"(XEN) r15: {state.gpr(15):016x}   cr0: {state.cr0:016x}   cr4: {state.cr4:016x}")
    yield f"(XEN) cr3: {state.cr3:016x}   cr2: {state.cr2:016x}"
    order = (("ds", DS), ("es", ES), ("fs", FS), ("gs", GS), ("ss", SS), ("cs", CS))
    yield "(XEN) " + "   ".join(f"{name}: {state.segment(n).selector:04x}" for name, n in order)


def _stack(current: Current) -> Iterator[str]:
    size = current.vcpu.width.word_bytes
    rsp = current.state.gpr(RSP)
    yield f"(XEN) Guest stack trace from {'rsp' if size == 8 else 'esp'}={rsp:0{2 * size}x}:"
    try:
        raw = current.mem.read_raw(rsp, _STACK_WORDS * size)
    except GuestFault as fault:
        yield f"(XEN)    {fault}"
        return
    words = [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]
    for start in range(0, len(words), 4):
        yield "(XEN)    " + " ".join(f"{word:0{2 * size}x}" for word in words[start : start + 4])


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
    return f"(XEN)    [<{rip:0{width}x}>]{_suffix(current.dom, rip)}"


def _suffix(dom: Domain, vaddr: int) -> str:
    """` name+0x12` where the image has a symbol for it."""
    name = dom.symbols.describe(vaddr) if dom.symbols else None
    return f" {name}" if name else ""


def _page_walk(current: Current) -> Iterator[str]:
    state = current.state
    vaddr = state.cr2
    if not vaddr:
        return
    yield f"(XEN) Pagetable walk from {vaddr:016x}:"
    found = walk(current.frames.memory, current.dom.page_tables.mode, state.cr3, vaddr)
    for step in found.steps:
        kind = current.frames.describe(pte_mfn(step.entry)) if step.entry & 1 else "not present"
        yield f"(XEN)  L{step.level}[0x{step.slot:03x}] = {step.entry:016x} {kind}"


def _hypercalls(dom: Domain, vcpu: Vcpu) -> Iterator[str]:
    for number, rip in vcpu.recent:
        known = number in HypercallNr._value2member_map_
        name = HypercallNr(number).name.lower() if known else f"unknown {number}"
        yield f"(XEN)    {name} from {rip:#x}{_suffix(dom, rip)}"
