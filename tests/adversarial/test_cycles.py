"""A thousand lives leave the machine as it was before the first: in memory, in books, in Python."""

from __future__ import annotations

import gc
import hashlib
import tracemalloc
from typing import Final

import pytest

from guests import guest_path
from hypervisor.abi.sched import ShutdownReason
from hypervisor.abi.width import Width
from hypervisor.api import Action, DomainHandle, DomainState, Machine, Policies
from hypervisor.control.xen_log import LOG_BYTES
from hypervisor.mm.audit import audit
from tests.adversarial.test_life import use_everything
from tests.support.callers import Guest, nop_kernel

pytestmark = pytest.mark.slow

CYCLES: Final = 1000
WARM_UP: Final = 60  # lives after which Python's own caches have what they will have
WIDTHS: Final = tuple(Width)
KERNELS: Final = {width: nop_kernel(width) for width in Width}
WATCHED: Final = range(120, 300)  # lives during which Python's memory is watched, which is slow
GROWTH_BYTES: Final = 4096  # in all of them: some 20 bytes each


def state_of(machine: Machine) -> dict[str, object]:
    """All that a life could leave behind, but for the log and the next number."""
    vmm, host = machine.vmm, machine.vmm.host
    in_use = [mfn for mfn, count in enumerate(host.frames.ref_count) if count]
    contents = hashlib.sha256()
    for mfn in in_use:
        contents.update(host.memory.frame(mfn))
    return {
        "free frames": sorted(host.frames.free_list()),
        "frames in use": [(mfn, host.frames.owner[mfn], host.frames.type[mfn]) for mfn in in_use],
        "their contents": contents.hexdigest(),
        "counts": (sum(host.frames.type_count), sum(host.frames.ref_count)),
        "domains": (sorted(host.domains), sorted(machine.domains), list(host.ended)),
        "ports": sorted(host.events.tables),
        "grants": sorted(host.grants.tables),
        "timers": host.timers.next_deadline(),
        "who runs": host.scheduler.pick(host.now_ns),
        "consoles": sorted(vmm.consoles),
        "xenstore": sorted(vmm.backends.store.nodes),
        "connections": len(vmm.backends.store.connections),
    }


def live(machine: Machine, number: int) -> None:
    """One domain from its first frame to its last; how it ends depends on `number`."""
    width = WIDTHS[number % len(WIDTHS)]
    match number // len(WIDTHS) % 6:
        case 0:  # as guests do
            dom = machine.create(guest_path("hello", width.value), memory_mib=4)
            machine.run()
            assert dom.shutdown_reason == ShutdownReason.POWEROFF
        case 1:  # in the middle of its work, with all that a guest can hold
            guest = Guest(machine, width)
            use_everything(guest)
            dom = machine.domains[guest.dom.domid]
        case 2:
            dom = run_a_little(machine, width)
            dom.crash()
        case 3:  # by itself, and made anew
            dom = run_a_little(machine, width, Policies(on_reboot=Action.RESTART))
            dom.shutdown(ShutdownReason.REBOOT)
            machine.run(time_limit_ns=machine.now_ns + 1000)
            assert dom.successor is not None
            dom = dom.successor
        case 4:  # before it ever ran
            dom = machine.create(KERNELS[width], memory_mib=4, start_ns=1 << 60)
        case _:
            dom = run_a_little(machine, width)
            dom.shutdown(ShutdownReason.SUSPEND)
            dom.resume()
            dom.pause()
    dom.destroy()
    assert dom.state is DomainState.DESTROYED


def memory_held() -> int:
    """Bytes that Python holds of what it was asked for since tracing began."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def run_a_little(machine: Machine, width: Width, policies: Policies = Policies()) -> DomainHandle:  # noqa: B008
    dom = machine.create(KERNELS[width], memory_mib=4, policies=policies)
    machine.run(time_limit_ns=machine.now_ns + 1000)
    return dom


def test_a_thousand_lives_leave_the_machine_as_it_was() -> None:
    with Machine(memory_mib=24) as machine:
        machine.audits = False  # once in a hundred lives, below
        for number in range(WARM_UP):
            live(machine, number)
        before = state_of(machine)
        machine.vmm.host.log.write(bytes(LOG_BYTES))  # as long as it ever is
        for number in range(WARM_UP, CYCLES):
            if number == WARM_UP:
                tracemalloc.start()
            if number == WATCHED.start:
                held = memory_held()
            live(machine, number)
            if number == WATCHED.stop:
                assert memory_held() - held < GROWTH_BYTES
                tracemalloc.stop()
            if number % 100 == 0:
                audit(machine.vmm.host.frames, machine.vmm.audit_subjects())
                assert state_of(machine) == before
        assert state_of(machine) == before
        free = machine.vmm.host.frames.free_list()
        assert not any(any(machine.vmm.memory.frame(mfn)) for mfn in free)
        assert len(machine.xen_log) <= LOG_BYTES
