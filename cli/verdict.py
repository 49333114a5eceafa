"""How a run ended, as an exit status and as sentences for a person.

The order of the rules is the point. A crash or a failed check is said before an expectation that
was therefore not met; whoever wrote `--expect` still learns which one was waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cli.exits import Exit
from cli.watch import Watch
from guests import REPORT_FAIL
from hypervisor.abi.sched import ShutdownReason
from hypervisor.api import DomainHandle, DomainState, Machine, RunEnd
from hypervisor.testing.script import TAIL_BYTES, Expect, Script, readable_lines

LAST_LINES: Final = 8

ASKED: Final = {
    ShutdownReason.POWEROFF: "powered off",
    ShutdownReason.REBOOT: "asked for a reboot",
    ShutdownReason.SUSPEND: "asked to be suspended",
    ShutdownReason.CRASH: "reported a crash",
    ShutdownReason.WATCHDOG: "was ended by its watchdog",
    ShutdownReason.SOFT_RESET: "asked for a soft reset",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a run that would go on. None: nothing does."""

    host_s: float | None
    virtual_ns: int | None

    def end_ns(self, now_ns: int) -> int | None:
        """The virtual time at which a run that starts now has to end."""
        return None if self.virtual_ns is None else now_ns + self.virtual_ns


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the run came back, and what had been hoped for."""

    run_end: RunEnd
    watch: Watch
    limits: Limits
    script: Script | None

    @property
    def waiting(self) -> Script | None:
        """The script, when one of its expectations was not met."""
        script = self.script
        return script if script is not None and isinstance(script.next_step, Expect) else None

    @property
    def nr_expectations(self) -> int:
        steps = () if self.script is None else self.script.steps
        return sum(isinstance(step, Expect) for step in steps)

    @property
    def met(self) -> bool:
        """Whether there were expectations, and all were met."""
        return self.script is not None and self.script.done and self.nr_expectations > 0


def judge(machine: Machine, domain: DomainHandle, ending: Ending) -> tuple[Exit, list[str]]:
    """The exit status, and the sentences that say why."""
    if ending.met:
        count = ending.nr_expectations
        return Exit.MET, [f"{count} of {count} expectations met after {seconds(machine)}"]
    status, reason = _without_expectations(machine, domain, ending)
    sentences = [reason]
    if domain.state is DomainState.CRASHED and domain.crash_report:
        sentences.append("its last state:\n" + domain.crash_report.rstrip())
    if (script := ending.waiting) is not None:
        status = Exit.UNMET if status is Exit.MET else status
        sentences.insert(0, script.unmet())
    if status is not Exit.MET:
        sentences.append(_last_lines(domain))
    return status, sentences


def _without_expectations(
    machine: Machine, domain: DomainHandle, ending: Ending
) -> tuple[Exit, str]:
    name = domain.name
    after = f"after {seconds(machine)}"
    if (ended := how_it_ended(domain)) is not None:
        status, what = ended
        return status, f"{name} {what} {after}"
    if ending.watch.timed_out:
        return Exit.UNMET, f"{name} was still running after {ending.watch.timeout_s:g} s"
    if ending.watch.signalled is not None:
        return Exit.INTERRUPTED, f"interrupted; {name} destroyed {after}"
    if ending.run_end is RunEnd.TIME_LIMIT:
        return Exit.UNMET, f"{name} was still running {after}, the time limit"
    return Exit.UNMET, f"{name} blocked for ever {after}: nothing is left that could wake it"


def how_it_ended(domain: DomainHandle) -> tuple[Exit, str] | None:
    """What became of a domain that ended by itself; None while it lives.

    A failed check that one of our own guests reported counts as a crash, however it shut down.
    """
    text = bytes(domain.console.output).decode("utf-8", "replace")
    if domain.state is DomainState.CRASHED or domain.crash_report is not None:
        return Exit.CRASHED, "crashed"
    if domain.shutdown_reason is None:
        return None
    if (failed := REPORT_FAIL.search(text)) is not None:
        return Exit.CRASHED, f"reported a failure ({failed['why']})"
    reason = domain.shutdown_reason
    what = ASKED.get(ShutdownReason(reason)) if reason in set(ShutdownReason) else None
    match reason:
        case ShutdownReason.POWEROFF | ShutdownReason.REBOOT:
            status = Exit.MET
        case ShutdownReason.CRASH:
            status = Exit.CRASHED
        case _:
            status = Exit.UNMET
    return status, what or f"shut down with the unknown reason {reason}"


def seconds(machine: Machine) -> str:
    """The machine's time, for a sentence."""
    return f"{machine.now_ns / 1e9:.6f} s of virtual time"


def _last_lines(domain: DomainHandle) -> str:
    lines = readable_lines(bytes(domain.console.output[-TAIL_BYTES:]))[-LAST_LINES:]
    if not lines:
        return "its console shows nothing"
    return "\n".join(["its console's last lines:", *(f"  | {line}" for line in lines)])
