"""Playing a scenario on a machine of its own, to a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from guests import REPORT_FAIL, REPORT_PASS, built_guests, guest_path
from hypervisor.abi.sched import ShutdownReason
from hypervisor.abi.width import Width
from hypervisor.api import DomainHandle, DomainState, Machine, RunEnd
from hypervisor.testing.debian import debian_file
from hypervisor.testing.scenario import DomainSpec, Scenario
from hypervisor.testing.script import RunFor, Script

LAST_LINES: Final = 12
PACKAGE_FILE: Final = "deb:"  # kernel = "deb:PACKAGE/PATH": a file of a Debian package

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
    """Play it once, for one of its widths. Raises ScenarioFailure; debian.Unavailable when a
    kernel cannot be had."""
    with Machine(memory_mib=scenario.machine_mib, seed=scenario.seed) as machine:
        domains = {
            spec.name: _create(machine, spec, spec.width or width, scenario.path.parent)
            for spec in scenario.domains
        }
        script = Script(scenario.steps, {name: domain.console for name, domain in domains.items()})
        _converse(machine, scenario, script)
        _run_to_the_ends(machine, scenario, domains)
        for spec in scenario.domains:
            _judge(spec, domains[spec.name])


def kernel_path(kernel: str, width: str | None, folder: Path) -> Path:
    """Where the kernel is that a scenario names."""
    if kernel.startswith(PACKAGE_FILE):
        package, _, file = kernel.removeprefix(PACKAGE_FILE).partition("/")
        return debian_file(package, file)
    if (built_in := built_guests().get(kernel)) is not None:
        return guest_path(kernel, width or built_in.widths[0])
    return folder / kernel


def _create(machine: Machine, spec: DomainSpec, width: str | None, folder: Path) -> DomainHandle:
    return machine.create(
        kernel_path(spec.kernel, width, folder),
        name=spec.name,
        memory_mib=spec.memory_mib,
        cmdline=spec.cmdline,
        width=None if width is None else Width(width),
        privileged=spec.privileged,
    )


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
    to_end = [domains[spec.name] for spec in scenario.domains if spec.ends != "running"]

    def over() -> bool:
        return all(ended(domain) for domain in to_end)

    if not over():
        machine.run(until=over, time_limit_ns=machine.now_ns + scenario.time_limit_ns)


def ended(domain: DomainHandle) -> bool:
    """Whether the domain runs no more."""
    return domain.state in (DomainState.SHUTDOWN, DomainState.CRASHED)


def _judge(spec: DomainSpec, domain: DomainHandle) -> None:
    """Raise ScenarioFailure when the domain did not end as the scenario says."""
    seen = how_it_stands(domain)
    text = bytes(domain.console.output).decode("utf-8", "replace")
    if spec.ends == "pass":
        failed = REPORT_FAIL.search(text)
        right = seen == "poweroff" and REPORT_PASS.search(text) is not None and failed is None
        said = "no PASS line" if failed is None else failed[0].strip()
    else:
        right = seen == spec.ends
        said = (domain.crash_report or "").strip()
    if not right:
        raise ScenarioFailure(f"{spec.name} is to end by {spec.ends!r}, not {seen!r}: {said}")


def how_it_stands(domain: DomainHandle) -> str:
    """The domain's end, in the words of a scenario's `ends`."""
    if domain.state is DomainState.CRASHED:
        return "crash"
    if domain.state is not DomainState.SHUTDOWN:
        return "running"
    reason = domain.shutdown_reason
    return next((word for word, number in REASONS.items() if number == reason), f"reason {reason}")
