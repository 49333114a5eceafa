"""One machine with one domain on it, run to an end, and what that end means.

The run loop here is all that the host does while a guest runs: let the machine run, hand over what
was typed or is to be sent, notice why the run ended.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from cli.console_output import ConsoleOutput
from cli.exits import Exit, Refusal
from cli.kernels import Kernel, find_kernel, read_file
from cli.run import run
from cli.terminal import Terminal
from cli.tracing import open_trace
from cli.verdict import Ending, Limits, judge
from cli.watch import Watch
from hypervisor.api import BuildError, DomainHandle, ImageError, Machine, RunEnd
from hypervisor.testing.script import Expect, Script, Step

OVERHEAD_MIB: Final = 16  # machine memory beyond the domain's: Xen's own frames, tables
OVERHEAD_SHARE: Final = 256  # and a 256th: the M2P has twelve bytes for each frame
POLL_S: Final = 0.2  # how often a blocked session looks at the time-out


@dataclass(slots=True)
class Session:
    """A machine, its one domain, and where the domain's console goes."""

    machine: Machine
    domain: DomainHandle
    output: ConsoleOutput

    @classmethod
    def start(
        cls,
        stack: ExitStack,
        *,
        kernel: str,
        width: str,
        memory_mib: int,
        ramdisk: Path | None,
        cmdline: str,
        vcpus: int = 1,
        clock: Literal["virtual", "host"] = "virtual",
        seed: int = 0,
        audit: bool = False,
        trace: Path | None = None,
        is_shown: bool = True,
    ) -> Self:
        """A session that is ready to run; `stack` closes what it holds.

        The domain's console goes to stdout if it `is_shown`.
        Raises Refusal for a kernel or ramdisk that cannot be used.
        """
        found = find_kernel(kernel, width)
        image = read_file(found.path, "kernel")
        initrd = None if ramdisk is None else read_file(ramdisk, "ramdisk")
        machine = stack.enter_context(
            create_machine(memory_mib, clock=clock, seed=seed, audit=audit)
        )
        domain = create_domain(machine, found, image, memory_mib, cmdline, initrd, vcpus)
        if trace is not None:
            open_trace(stack, machine, trace)
        output = ConsoleOutput()
        if is_shown:
            domain.console.on_output(output.write)
        return cls(machine, domain, output)

    def play(self, steps: Sequence[Step], limits: Limits) -> Exit:
        """Run with a script, which may be empty."""
        script = Script(steps, {self.domain.name: self.domain.console})
        with Watch(self.machine.interrupt, limits.host_s) as watch:
            run_end = self._converse(script, limits, watch)
        return self._conclude(Ending(run_end, watch, limits, script))

    def _converse(self, script: Script, limits: Limits, watch: Watch) -> RunEnd:
        has_expectation = any(isinstance(step, Expect) for step in script.steps)
        end_ns = limits.end_ns(self.machine.now_ns)
        while True:
            script.act()
            if script.done and has_expectation:
                return RunEnd.PREDICATE
            run_end = run(
                self.machine, until=None if script.done else script.due, time_limit_ns=end_ns
            )
            if run_end is RunEnd.INTERRUPTED and not watch.ended:
                continue
            if run_end is not RunEnd.PREDICATE:
                return run_end

    def attach(self, limits: Limits) -> Exit:
        """Run with the user's terminal as the console, until the guest ends or ^] is typed."""
        self.output.say(f"console of {self.domain.name}; ^] ends the session")
        with (
            Watch(self.machine.interrupt, limits.host_s) as watch,
            Terminal(sys.stdin.fileno(), self.machine.interrupt) as terminal,
        ):
            run_end = self._serve(terminal, limits, watch)
        if terminal.left:
            self.output.say(f"session ended; {self.domain.name} destroyed")
            return Exit.MET
        return self._conclude(Ending(run_end, watch, limits, script=None))

    def _serve(self, terminal: Terminal, limits: Limits, watch: Watch) -> RunEnd:
        end_ns = limits.end_ns(self.machine.now_ns)
        while True:
            run_end = run(self.machine, time_limit_ns=end_ns)
            typed = terminal.typed()
            if run_end is RunEnd.BLOCKED_FOREVER:
                # it waits for us, so wait with it; a time-out is looked for in between
                while not (typed or terminal.left or watch.ended):
                    typed = terminal.wait(POLL_S)
            elif run_end is not RunEnd.INTERRUPTED:
                return run_end
            if terminal.left or watch.ended:
                return RunEnd.INTERRUPTED
            if typed:
                self.domain.console.send(typed)

    def _conclude(self, ending: Ending) -> Exit:
        status, sentences = judge(self.machine, self.domain, ending)
        for sentence in sentences:
            self.output.say(sentence)
        return status

    def print_digest(self) -> None:
        """SHA-256 over memory and CPU states, on a line of its own."""
        self.output.fresh_line()
        sys.stdout.write(f"digest: {self.machine.digest()}\n")
        sys.stdout.flush()


def create_machine(
    memory_mib: int,
    *,
    clock: Literal["virtual", "host"] = "virtual",
    seed: int = 0,
    audit: bool = False,
) -> Machine:
    """A machine with room for domains of `memory_mib` in all.

    Raises Refusal when the host has not got that much.
    """
    total = memory_mib + OVERHEAD_MIB + memory_mib // OVERHEAD_SHARE
    try:
        return Machine(memory_mib=total, clock=clock, seed=seed, audit=audit)
    except (OSError, MemoryError) as error:
        raise Refusal(f"this host has no {total} MiB of memory for a machine") from error


def create_domain(
    machine: Machine,
    kernel: Kernel,
    image: bytes,
    memory_mib: int,
    cmdline: str = "",
    ramdisk: bytes | None = None,
    vcpus: int = 1,
) -> DomainHandle:
    """A domain with `kernel` in it. Raises Refusal with the reason when it cannot be made."""
    try:
        return machine.create(
            image,
            name=kernel.name,
            memory_mib=memory_mib,
            cmdline=cmdline,
            ramdisk=ramdisk,
            width=kernel.width,
            nr_vcpus=vcpus,
        )
    except (ImageError, BuildError) as error:
        raise Refusal(f"cannot boot {str(kernel.path)!r}: {error}") from error
