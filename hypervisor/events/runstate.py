"""Run-state accounts: how long a virtual CPU ran, waited to run, slept, or was off.

A vCPU is always in one of four states; a change books the time since the last one (Xen's
vcpu_runstate_change). Guests ask by hypercall, or name a place in their memory that is kept up to
date whenever they run: from `time[RUNNABLE]` they know what was stolen from them.
"""

from __future__ import annotations

from hypervisor.abi.layout import layout
from hypervisor.abi.vcpu import Runstate, VcpuRunstateInfo
from hypervisor.abi.width import Width
from hypervisor.domain.domain import Domain, Vcpu, VcpuState

_WAITING = frozenset({VcpuState.BLOCKED, VcpuState.POLLING})


def change_runstate(vcpu: Vcpu, state: Runstate, now_ns: int) -> None:
    """`vcpu` is in `state` from now on."""
    account = vcpu.runstate
    account.time_ns[account.state] += now_ns - account.since_ns
    account.state = state
    account.since_ns = now_ns


def waiting_runstate(dom: Domain, vcpu: Vcpu) -> Runstate:
    """The state of a vCPU that is not on the CPU."""
    if vcpu.state in _WAITING:
        return Runstate.BLOCKED
    return Runstate.RUNNABLE if dom.is_runnable(vcpu) else Runstate.OFFLINE


def runstate_info(vcpu: Vcpu) -> VcpuRunstateInfo:
    """What is booked, as the area has it: the present state's time up to its beginning."""
    account = vcpu.runstate
    return VcpuRunstateInfo(account.state, account.since_ns, list(account.time_ns))


def runstate_info_now(vcpu: Vcpu, now_ns: int) -> VcpuRunstateInfo:
    """The same with the present state's time up to now (vcpu_runstate_get)."""
    info = runstate_info(vcpu)
    info.time[vcpu.runstate.state] += now_ns - vcpu.runstate.since_ns
    return info


def packed(info: VcpuRunstateInfo, width: Width) -> bytes:
    """`info` as guests of `width` read it."""
    return layout(VcpuRunstateInfo, width).pack(info)
