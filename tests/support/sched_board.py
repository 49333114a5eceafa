"""A machine for scheduling policies alone: no guests, just who wants the CPU and for how long.

Drives a policy as the VMM does: asks `pick` when what was granted is used up or a call said so, and
never else. Time is virtual and exact, so a second of 128 domains takes a moment.

A domain is a `Task`: it works until its work is done, and then says what comes next.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hypervisor.abi.width import Width
from hypervisor.domain.domain import Vcpu
from hypervisor.sched.params import DEFAULT_PARAMS, SchedParams
from hypervisor.sched.protocol import Scheduler

US: Final = 1_000
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
FOR_EVER: Final = 1 << 62


@dataclass(eq=False)
class Task:
    """What one domain does with its vCPU. Times are ns."""

    vcpu: Vcpu
    work_ns: int = FOR_EVER  # what it still has to do before it sleeps
    done: Callable[[], None] = lambda: None  # told when it has done that, and sleeps
    awake: bool = False
    service_ns: int = 0  # work done
    woken_ns: int = 0
    latencies_ns: list[int] = field(default_factory=list)  # from waking to work
    waits_for_cpu: bool = False

    @property
    def domid(self) -> int:
        return self.vcpu.domid


class SchedBoard:
    """One physical CPU, its policy, and what the domains do."""

    def __init__(self, scheduler: Scheduler, switch_cost_ns: int = 0) -> None:
        self.scheduler = scheduler
        self.switch_cost_ns = switch_cost_ns
        self.now_ns = 0
        self.tasks: dict[int, Task] = {}
        self.runs: list[tuple[int, int]] = []  # (since when, domid), one for each switch
        self.idle_ns = 0
        self.after: Callable[[], None] = lambda: None  # called after every step
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self._must_pick = False
        self._picked: Task | None = None
        self._granted_until_ns = 0
        self._ran_last: int | None = None
        self._overhead_ns = 0

    # --- domains -------------------------------------------------------------------------------
    def add(self, domid: int, params: SchedParams = DEFAULT_PARAMS) -> Task:
        """A domain that sleeps."""
        task = Task(Vcpu(domid, 0, Width.X86_64, 0))
        self.tasks[domid] = task
        self.scheduler.add_domain(domid, params, self.now_ns)
        return task

    def spinner(self, domid: int, params: SchedParams = DEFAULT_PARAMS) -> Task:
        """A domain that works for ever, from now on."""
        task = self.add(domid, params)
        self.wake(task)
        return task

    def periodic(
        self, domid: int, period_ns: int, work_ns: int, params: SchedParams = DEFAULT_PARAMS
    ) -> Task:
        """A domain that wakes every `period_ns` for `work_ns`; what is late is done one by one."""
        task = self.add(domid, params)
        task.work_ns = 0

        def tick() -> None:
            self.at(self.now_ns + period_ns, tick)
            task.work_ns += work_ns
            self.wake(task)

        self.at(self.now_ns + period_ns, tick)
        return task

    def wake(self, task: Task) -> None:
        """`task` can run."""
        if not task.awake:
            task.awake = task.waits_for_cpu = True
            task.woken_ns = self.now_ns
            if self.scheduler.wake(task.vcpu, self.now_ns) and not self._must_pick:
                left_ns = self.scheduler.goes_on_ns(self.now_ns)
                if left_ns is None:
                    self._must_pick = True
                else:
                    self._granted_until_ns = self.now_ns + left_ns

    def sleep(self, task: Task) -> None:
        """`task` cannot run."""
        task.awake = task.waits_for_cpu = False
        self._must_pick |= self.scheduler.sleep(task.vcpu, self.now_ns)

    def yield_(self, task: Task) -> None:
        """`task` gives its turn away."""
        self._must_pick |= self.scheduler.yield_(task.vcpu, self.now_ns)

    def adjust(self, task: Task, params: SchedParams) -> None:
        """`task` is promised something else."""
        self._must_pick |= self.scheduler.adjust(task.domid, params, self.now_ns)

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self._serial += 1
        heapq.heappush(self._events, (time_ns, self._serial, action))

    # --- running ---------------------------------------------------------------------------------
    def run(self, until_ns: int) -> None:
        """Let time pass."""
        while True:
            while self._events and self._events[0][0] <= self.now_ns:
                heapq.heappop(self._events)[2]()
            picked = self._picked
            if self._must_pick or (picked is not None and self.now_ns >= self._granted_until_ns):
                self._choose()
            if self.now_ns >= until_ns:
                break
            self._advance(until_ns)
            self.after()
        self.scheduler.charge(self.now_ns)

    def _choose(self) -> None:
        self._must_pick = False
        choice = self.scheduler.pick(self.now_ns)
        if choice is None:
            self._picked = None
            return
        vcpu, granted_ns = choice
        assert granted_ns >= 1
        self._picked = self.tasks[vcpu.domid]
        assert self._picked.awake
        self._granted_until_ns = self.now_ns + granted_ns
        if vcpu.domid != self._ran_last:
            self._overhead_ns = self.switch_cost_ns if self._ran_last is not None else 0
            self._ran_last = vcpu.domid
            self.runs.append((self.now_ns, vcpu.domid))

    def _advance(self, until_ns: int) -> None:
        """To the next moment at which something happens."""
        task = self._picked
        stop_ns = min(until_ns, self._events[0][0] if self._events else FOR_EVER)
        if task is None:
            due_ns = self.scheduler.next_event_ns()
            if due_ns is not None and due_ns <= stop_ns:
                stop_ns = due_ns
                self._must_pick = True
            self.idle_ns += stop_ns - self.now_ns
            self.now_ns = stop_ns
            return
        stop_ns = min(stop_ns, self._granted_until_ns)
        overhead_ns = min(self._overhead_ns, stop_ns - self.now_ns)
        self._overhead_ns -= overhead_ns
        self.now_ns += overhead_ns
        if self._overhead_ns:
            return
        if task.waits_for_cpu:
            task.waits_for_cpu = False
            task.latencies_ns.append(self.now_ns - task.woken_ns)
        work_ns = min(task.work_ns, stop_ns - self.now_ns)
        self.now_ns += work_ns
        task.service_ns += work_ns
        if task.work_ns < FOR_EVER // 2:
            task.work_ns -= work_ns
            if not task.work_ns:
                self.sleep(task)
                task.done()
