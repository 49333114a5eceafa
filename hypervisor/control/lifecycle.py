"""What becomes of domains: the operations of whoever controls the machine, and what is done by
itself when a domain ends.

A domain ends by its own wish, for something it did, or because somebody says so; in all three cases
its memory stays as it is, to be looked at. What is done then is a policy that was chosen when it
was made, an `Action` for each kind of end, with the words of xl.cfg.

Nothing here acts inside a callback of the engine: the run loop calls when no guest is on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from hypervisor.abi.sched import ShutdownReason
from hypervisor.control.host import Host
from hypervisor.domain.domain import Domain, DomainState, Vcpu
from hypervisor.events.timers import TimerKey, TimerKind
from hypervisor.machine.state import CpuState
from hypervisor.x86.flags import RAX
from hypervisor.x86.paging import PAGE_SHIFT


class LifeCycleError(Exception):
    """The domain is not in a state in which that can be done; the message is one sentence."""


class Action(Enum):
    """What to do about a domain that has ended."""

    DESTROY = "destroy"
    RESTART = "restart"  # destroy it, and make a new one from the same parameters
    PRESERVE = "preserve"  # leave it to be looked at


@dataclass(frozen=True, slots=True)
class Policies:
    """The action for each kind of end."""

    on_poweroff: Action = Action.PRESERVE
    on_reboot: Action = Action.PRESERVE
    on_crash: Action = Action.PRESERVE  # a watchdog that fired counts as a crash


def action_for(dom: Domain, policies: Policies) -> Action:
    """What `policies` say about `dom`, which has ended.

    A suspended domain, one that wants a soft reset and one with a reason of its own are preserved:
    only who asked for those knows what comes next.
    """
    if dom.state is DomainState.CRASHED:
        return policies.on_crash
    match dom.shutdown_reason:
        case ShutdownReason.POWEROFF:
            return policies.on_poweroff
        case ShutdownReason.REBOOT:
            return policies.on_reboot
        case ShutdownReason.CRASH | ShutdownReason.WATCHDOG:
            return policies.on_crash
        case _:
            return Action.PRESERVE


def require(dom: Domain, *states: DomainState) -> None:
    """Raise LifeCycleError unless `dom` is in one of `states`."""
    if dom.state not in states:
        wanted = " or ".join(state.value for state in states)
        raise LifeCycleError(f"d{dom.domid} {dom.name!r} is {dom.state.value}, not {wanted}")


def require_existing(dom: Domain) -> None:
    """Raise LifeCycleError if `dom` has been destroyed."""
    require(dom, DomainState.RUNNING, DomainState.SHUTDOWN, DomainState.CRASHED)


def start_at(host: Host, dom: Domain, time_ns: int) -> None:
    """Take one pause of `dom` back when the system time is `time_ns`."""
    host.set_timer(TimerKey(dom.domid, 0, TimerKind.START), time_ns)


def crash(host: Host, dom: Domain, why: str) -> None:
    """End `dom` as if it had done something wrong, with a report on its first vCPU."""
    require(dom, DomainState.RUNNING)
    vcpu = dom.vcpus[0]
    if host.running is not vcpu:
        with_state(host, vcpu, lambda state: _report(host, dom, vcpu, why))
    else:
        host.crash(dom, vcpu, why)


def _report(host: Host, dom: Domain, vcpu: Vcpu, why: str) -> None:
    """Crash a domain that is not on the CPU: the report is about what `current` says is."""
    host.current.set(dom, vcpu)
    host.crash(dom, vcpu, why)
    if host.running is not None and host.running.domid in host.domains:
        host.current.set(host.domain_of(host.running), host.running)


def resume(host: Host, dom: Domain, *, cancelled: bool) -> None:
    """Let `dom`, which has shut down to be suspended, go on in place.

    Its call returns 1 if the suspension was `cancelled`, else 0, as after being restored elsewhere
    (xc_domain_resume; XENFEAT and notes call it SUSPEND_CANCEL). Raises LifeCycleError.
    """
    require(dom, DomainState.SHUTDOWN)
    if cancelled:
        with_state(host, dom.vcpus[0], lambda state: state.set_gpr(RAX, 1))
    host.resume(dom)


def set_max_memory(dom: Domain, memory_mib: int) -> None:
    """Let `dom` have `memory_mib` at most; what it has beyond, it keeps (XEN_DOMCTL_max_mem)."""
    require_existing(dom)
    if memory_mib <= 0:
        raise LifeCycleError(f"d{dom.domid} cannot have at most {memory_mib} MiB")
    dom.max_frames = memory_mib << 20 - PAGE_SHIFT


def with_state(host: Host, vcpu: Vcpu, act: Callable[[CpuState], None]) -> None:
    """Do `act` with the state of `vcpu` in the CPU, and keep what it changed."""
    state = host.cpu.state
    if host.running is vcpu:
        act(state)
        return
    before = state.save()
    state.load(vcpu.saved)
    try:
        act(state)
        vcpu.saved = state.save()
    finally:
        state.load(before)
