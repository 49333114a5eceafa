"""BVT as Xen 2 and 3 had it, for comparison: what it did, not what it meant to do.

Between vCPUs, each with its own 32-bit `avt` and `evt`; the parameters are the domain's. Known from
Xen's common/sched_bvt.c (until 3.0.3), as facts. What differs from the definition (sched.bvt):

- A slice is the lead of the next vCPU, divided by the advance for a charging unit, *plus* the
  context switch allowance. The first is a number of units and the second are ns: so a slice is the
  allowance and hardly more, whatever the weights. They show in who comes next.
- What ran is rounded up to whole units each time the scheduler is asked. While the same vCPU goes
  on running, it is charged each time for all the time since it came to the CPU, again.
- A vCPU that wakes preempts if its `evt` is less *or equal*.
- `evt` is `avt` less the warp value, in 32 bits: early in the machine's life that is below zero,
  and so the largest number there is. Who warps is last then. (The idle vCPU has ~0.)
- The warp timer starts when a warped vCPU gets the CPU and stops when it loses it: what is limited
  is one run, not the sum of many. With an unwarp time of 0 the domain never warps again. Whoever
  is put off keeps the old `evt` until it has run or slept.
- At 0xf0000000 the scheduler virtual time, and every `avt` and `evt`, are set back by 0xe0000000:
  also those of a vCPU that sleeps, which may then be less than zero, and again the largest.

Xen is told advances, not weights: here the advance for a unit is ADVANCE_OF_WEIGHT_1 / weight,
rounded down. A warp value in ns is what avt grows by in that time with a weight of 1.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from hypervisor.domain.domain import Vcpu
from hypervisor.sched.params import SchedParams, SchedParamsError, SchedSettings
from hypervisor.sched.protocol import SchedStats

ADVANCE_OF_WEIGHT_1: Final = 840  # divisible by all weights to 8; Xen's default, 10, has no room
REBASE_AT: Final = 0xF000_0000
REBASE_BY: Final = 0xE000_0000
IDLE_EVT: Final = 0xFFFF_FFFF
_M32: Final = 0xFFFF_FFFF
_ALONE: Final = 10


@dataclass(slots=True, eq=False)
class XenDomain:
    """struct bvt_dom_info."""

    params: SchedParams
    advance: int = 0
    warpback: bool = False  # it may warp at all
    warp: bool = False  # it does
    warp_value: int = 0  # in the unit of avt
    warp_ends_ns: int | None = None  # the warp timer
    unwarp_ends_ns: int | None = None  # the unwarp timer
    stats: SchedStats = field(default_factory=SchedStats)


@dataclass(slots=True, eq=False)
class XenVcpu:
    """struct bvt_vcpu_info."""

    vcpu: Vcpu
    dom: XenDomain
    avt: int
    evt: int


class BvtXen:
    """The policy at work on one physical CPU."""

    def __init__(self, settings: SchedSettings, *, svt: int = 0) -> None:
        self.settings = settings
        self.svt = svt
        self._domains: dict[int, XenDomain] = {}
        self._infos: dict[tuple[int, int], XenVcpu] = {}
        self._queue: deque[XenVcpu] = deque()  # that can run, with the one that does
        self._running: XenVcpu | None = None  # None: the idle vCPU
        self._entered_ns = 0  # when the one that runs came to the CPU
        self._counted_ns = 0
        self._asked = False  # somebody raised the scheduler's softirq
        self._slice_ends_ns = 0

    @property
    def least_turn_ns(self) -> int:
        """The context switch allowance."""
        return self.settings.ctx_allow_ns

    # --- domains -------------------------------------------------------------------------------
    def add_domain(self, domid: int, params: SchedParams, now_ns: int) -> None:
        """Keep parameters for `domid`; its vCPUs start at the scheduler virtual time."""
        dom = self._domains[domid] = XenDomain(params)
        self._set_params(dom, params)

    def remove_domain(self, domid: int, now_ns: int) -> None:
        """Forget `domid` and its vCPUs."""
        self.charge(now_ns)
        self._queue = deque(info for info in self._queue if info.vcpu.domid != domid)
        if self._running is not None and self._running.vcpu.domid == domid:
            self._running = None
        self._infos = {key: info for key, info in self._infos.items() if key[0] != domid}
        del self._domains[domid]

    def adjust(self, domid: int, params: SchedParams, now_ns: int) -> bool:
        """Other parameters from now on: seen by what waits when it is charged next (bvt_adjdom)."""
        self._set_params(self._domains[domid], params)
        return False

    def _set_params(self, dom: XenDomain, params: SchedParams) -> None:
        advance = ADVANCE_OF_WEIGHT_1 // params.weight
        if advance == 0:
            raise SchedParamsError(
                f"weight is {params.weight}: Xen's advance for a charging unit would be 0"
            )
        dom.params = params
        dom.advance = advance
        dom.warpback = dom.warp = params.warp
        dom.warp_value = params.warp_value_ns * ADVANCE_OF_WEIGHT_1 // self.settings.mcu_ns
        dom.unwarp_ends_ns = None
        if not params.warp:
            dom.warp_ends_ns = None

    def params(self, domid: int) -> SchedParams:
        """What `domid` is promised at present."""
        return self._domains[domid].params

    def stats(self, domid: int) -> SchedStats:
        """What `domid` got up to the last charge."""
        return self._domains[domid].stats

    def info(self, vcpu: Vcpu) -> XenVcpu:
        """The account of `vcpu`, made when it is first seen."""
        key = (vcpu.domid, vcpu.vcpu_id)
        if key not in self._infos:
            self._infos[key] = XenVcpu(vcpu, self._domains[vcpu.domid], self.svt, self.svt)
        return self._infos[key]

    # --- who can run -----------------------------------------------------------------------------
    def wake(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` goes to the head of the queue; it preempts, or shortens the slice (bvt_wake)."""
        info = self.info(vcpu)
        if any(queued is info for queued in self._queue):
            return False
        self.charge(now_ns)
        self._fire_timers(now_ns)
        self._queue.appendleft(info)
        info.avt = max(info.avt, self.svt)
        info.evt = _evt(info.dom, info.avt)
        running = self._running
        if running is None:
            return True
        current_evt = _evt(running.dom, self._avt_now(running, now_ns))
        if info.evt <= current_evt:
            self._asked = True
            return True
        # r_time: as if the woken one were second; units are added to ns here too
        lead = (info.evt - current_evt & _M32) // running.dom.advance
        end_ns = self._entered_ns + lead + self.settings.ctx_allow_ns
        if self._slice_ends_ns <= end_ns:
            return False
        self._slice_ends_ns = end_ns
        return True

    def sleep(self, vcpu: Vcpu, now_ns: int) -> bool:
        """`vcpu` leaves the queue, the one that runs when the scheduler is asked (bvt_sleep)."""
        info = self.info(vcpu)
        if not any(queued is info for queued in self._queue):
            return False
        self.charge(now_ns)
        self._queue = deque(queued for queued in self._queue if queued is not info)
        if info is not self._running:
            return False
        self._leave_cpu(info, now_ns)
        self._running = None
        return True

    def yield_(self, vcpu: Vcpu, now_ns: int) -> bool:
        """The scheduler is asked, and may choose `vcpu` again."""
        if self._running is None or self._running.vcpu is not vcpu:
            return False
        self._asked = True
        return True

    # --- the choice ------------------------------------------------------------------------------
    def pick(self, now_ns: int) -> tuple[Vcpu, int] | None:
        """Who runs by bvt_do_schedule, if it is time to ask it, and until when."""
        self.charge(now_ns)
        self._fire_timers(now_ns)
        running = self._running
        if running is None or self._asked or now_ns >= self._slice_ends_ns:
            self._schedule(now_ns)
            running = self._running
        if running is None:
            return None
        end_ns = self._slice_ends_ns
        for dom in self._domains.values():
            for timer_ns in (dom.warp_ends_ns, dom.unwarp_ends_ns):
                if timer_ns is not None:
                    end_ns = min(end_ns, timer_ns)
        return running.vcpu, max(1, end_ns - now_ns)

    def _schedule(self, now_ns: int) -> None:
        before = self._running
        self._asked = False
        if before is not None:
            self._queue.remove(before)
            self._leave_cpu(before, now_ns)
            self._queue.append(before)
        chosen, second = self._two_least()
        self._running = chosen
        if chosen is None:
            return
        if chosen.dom.warp and chosen.dom.params.warp_limit_ns:
            chosen.dom.warp_ends_ns = now_ns + chosen.dom.params.warp_limit_ns
        self._advance_svt()
        slice_ns = _ALONE * self.settings.ctx_allow_ns
        if second is not None:
            lead = (second.evt - chosen.evt & _M32) // chosen.dom.advance
            slice_ns = lead + self.settings.ctx_allow_ns  # units and ns
        self._slice_ends_ns = now_ns + slice_ns
        if chosen is not before:
            self._entered_ns = now_ns
            if before is None or before.dom is not chosen.dom:
                chosen.dom.stats.turns += 1
                if before is not None:
                    before.dom.stats.preemptions += 1

    def _two_least(self) -> tuple[XenVcpu | None, XenVcpu | None]:
        """The vCPU with the least evt, of equals the one nearest to the head, and the next."""
        first = second = None
        for info in self._queue:
            if first is None or info.evt < first.evt:
                first, second = info, first
            elif second is None or info.evt < second.evt:
                second = info
        return first, second

    def _leave_cpu(self, info: XenVcpu, now_ns: int) -> None:
        info.avt = self._avt_now(info, now_ns)
        info.evt = _evt(info.dom, info.avt)
        if info.dom.warpback and info.dom.params.warp_limit_ns:
            info.dom.warp_ends_ns = None

    def _avt_now(self, info: XenVcpu, now_ns: int) -> int:
        """All the time since it came to the CPU, in whole units (calc_avt)."""
        ran_for = now_ns - self._entered_ns & _M32
        units = -(-ran_for // self.settings.mcu_ns)
        return info.avt + units * info.dom.advance & _M32

    def _advance_svt(self) -> None:
        """The least avt of all that can run; all times are set back before they overflow."""
        self.svt = min(info.avt for info in self._queue)
        if self.svt >= REBASE_AT:
            for info in self._infos.values():  # those asleep as well, wherever that leaves them
                info.avt = info.avt - REBASE_BY & _M32
                info.evt = info.evt - REBASE_BY & _M32
            self.svt -= REBASE_BY

    # --- time ------------------------------------------------------------------------------------
    def goes_on_ns(self, now_ns: int) -> int | None:
        """`pick` says it."""
        return None

    def next_event_ns(self) -> int | None:
        """Nothing happens here by itself."""
        return None

    def charge(self, now_ns: int) -> None:
        """Count what ran, for people; avt changes when the scheduler is asked."""
        if self._running is not None:
            self._running.dom.stats.cpu_ns += now_ns - self._counted_ns
        self._counted_ns = now_ns

    def _fire_timers(self, now_ns: int) -> None:
        """warp_timer_fn and unwarp_timer_fn, for those whose time has come."""
        for dom in self._domains.values():
            if dom.warp_ends_ns is not None and dom.warp_ends_ns <= now_ns:
                dom.unwarp_ends_ns = dom.warp_ends_ns + dom.params.unwarp_ns
                dom.warp_ends_ns = None
                dom.warp = False
                if dom.params.unwarp_ns == 0:
                    dom.warpback = False
                    self._asked = True
            if dom.unwarp_ends_ns is not None and dom.unwarp_ends_ns <= now_ns:
                dom.unwarp_ends_ns = None
                if dom.warpback:
                    dom.warp = True
                    dom.stats.warps += 1
                    self._asked = True


def _evt(dom: XenDomain, avt: int) -> int:
    return avt - dom.warp_value & _M32 if dom.warp else avt
