"""Playing a scenario on a machine of its own, to a verdict."""

from __future__ import annotations

from typing import Final

from guests import REPORT_FAIL, REPORT_PASS
from hypervisor.abi.sched import ShutdownReason
from hypervisor.api import DomainHandle, DomainState, Machine, RunEnd
from hypervisor.testing import stage
from hypervisor.testing.scenario import Scenario, ScenarioDomain
from hypervisor.testing.script import RunFor, Script

LAST_LINES: Final = 12

REASONS: Final = {
    "poweroff": ShutdownReason.POWEROFF,
    "reboot": ShutdownReason.REBOOT,
    "suspend": ShutdownReason.SUSPEND,
    "crash": ShutdownReason.CRASH,
}

WHY: Final = {
    RunEnd.ALL_STOPPED: "every domain has ended",
    RunEnd.BLOCKED_FOREVER: "every domain is blocked, and nothing is left that could wake one",
    RunEnd.TIME_LIMIT: "the time limit is reached",
    RunEnd.INTERRUPTED: "the run was interrupted",
}


class ScenarioFailure(AssertionError):
    """The guests did not do what the scenario says; the message is for a person."""


def play(scenario: Scenario, width: str | None = None) -> None:
    """Play it once, for one of its widths. Raises ScenarioFailure; StageError when a domain cannot
    be made, and debian.Unavailable when a kernel cannot be had."""
    actors = stage.cast((each.spec for each in scenario.domains), scenario.path.parent, width)
    with stage.make_machine(scenario.machine, scenario.memory_mib) as machine:
        domains = {actor.spec.name: stage.create(machine, actor) for actor in actors}
        script = Script(scenario.steps, {name: domain.console for name, domain in domains.items()})
        _converse(machine, scenario, script)
        _run_to_the_ends(machine, scenario, domains)
        for each in scenario.domains:
            _judge(each, latest(domains[each.spec.name]))


def _converse(machine: Machine, scenario: Scenario, script: Script) -> None:
    """Play all steps. Raises ScenarioFailure for an expectation that is not met."""
    end_ns = machine.now_ns + scenario.time_limit_ns
    while True:
        wait = script.act()
        if wait is None and script.done:
            return
        if isinstance(wait, RunFor):
            machine.run(time_limit_ns=min(machine.now_ns + wait.duration_ns, end_ns))
            continue
        run_end = machine.run(until=script.due, time_limit_ns=end_ns)
        if run_end is not RunEnd.PREDICATE:
            tails = [
                f"  {name} | {line}"
                for name, transcript in script.transcripts.items()
                for line in transcript.last_lines(LAST_LINES)
            ]
            raise ScenarioFailure("\n".join([f"{script.unmet()}: {WHY[run_end]}", *tails]))


def _run_to_the_ends(
    machine: Machine, scenario: Scenario, domains: dict[str, DomainHandle]
) -> None:
    """Run until every domain that is to end has ended, or cannot any more."""
    to_end = [domains[each.spec.name] for each in scenario.domains if each.ends != "running"]

    def over() -> bool:
        return all(ended(latest(domain)) for domain in to_end)

    if not over():
        machine.run(until=over, time_limit_ns=machine.now_ns + scenario.time_limit_ns)


def latest(domain: DomainHandle) -> DomainHandle:
    """What it is now, if it was restarted."""
    while domain.successor is not None:
        domain = domain.successor
    return domain


def ended(domain: DomainHandle) -> bool:
    """Whether the domain runs no more."""
    return domain.state is not DomainState.RUNNING


def _judge(each: ScenarioDomain, domain: DomainHandle) -> None:
    """Raise ScenarioFailure when the domain did not end as the scenario says."""
    seen = how_it_stands(domain)
    text = bytes(domain.console.output).decode("utf-8", "replace")
    if each.ends == "pass":
        failed = REPORT_FAIL.search(text)
        right = seen == "poweroff" and REPORT_PASS.search(text) is not None and failed is None
        said = "no PASS line" if failed is None else failed[0].strip()
    else:
        right = seen == each.ends
        said = (domain.crash_report or "").strip()
    if not right:
        name = each.spec.name
        raise ScenarioFailure(f"{name} is to end by {each.ends!r}, not {seen!r}: {said}")


def how_it_stands(domain: DomainHandle) -> str:
    """The domain's end, in the words of a scenario's `ends`."""
    if domain.crash_report is not None:
        return "crash"
    if (reason := domain.shutdown_reason) is None:
        return "running"
    return next((word for word, number in REASONS.items() if number == reason), f"reason {reason}")
