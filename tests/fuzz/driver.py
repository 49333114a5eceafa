"""The fuzzer: rounds on fresh machines, a corpus of what was new, and failures made small.

A round begins with a machine that nobody has used and ends after `ROUND` hypercalls, so that what
it did is all there is to a failure. Everything follows from the seed and the width: the dice, the
corpus, the domains' frames.
"""

from __future__ import annotations

import hashlib
import random
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hypervisor.abi.width import Width
from tests.fuzz import coverage
from tests.fuzz.actions import Action, Kind, dumps
from tests.fuzz.coverage import Coverage
from tests.fuzz.grammar import Grammar
from tests.fuzz.mutate import mutated
from tests.fuzz.target import Setting, Target, target

ROUND: Final = 500  # hypercalls on one machine
CHECK_EVERY: Final = 50
_CORPUS: Final = 600
_FROM_CORPUS: Final = 0.35
_CONTEXT: Final = 8  # actions before the one that was new
_MOST_RETRIES: Final = 250  # to make a failure smaller


class Found(AssertionError):
    """A bug: what it says is how to see it again."""


@dataclass
class Fuzzer:
    """A run."""

    width: Width
    seed: int = 0
    coverage: Coverage = field(default_factory=Coverage)
    domains: int = 0
    rounds: int = 0
    corpus: list[tuple[Action, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(f"{self.seed} {self.width.name}")
        self.grammar = Grammar(self.width, self.dice)
        self._digest = hashlib.sha256()

    def run(self, nr_calls: int) -> str:
        """At least `nr_calls` hypercalls more; a digest of all results so far. Raises Found."""
        end = self.coverage.calls + nr_calls
        while self.coverage.calls < end:
            self._round(min(ROUND, end - self.coverage.calls))
        return self._digest.hexdigest()

    def _round(self, nr_calls: int) -> None:
        setting = Setting.of_round(self.width, self.rounds)
        self.grammar.help(self.coverage.starved(coverage.operations(self.width)))
        done: list[Action] = []
        try:
            with target(setting) as machine:
                while machine.calls < nr_calls:
                    for action in self._next():
                        self._do(machine, action, done)
                machine.check()
                machine.check_walks()
                self._digest.update(machine.digest().encode())
                self.domains += machine.domains
        except Exception as error:
            raise Found(self._report(setting, done, error)) from error
        self.rounds += 1

    def _next(self) -> Sequence[Action]:
        dice, corpus = self.dice, self.corpus
        if corpus and dice.random() < _FROM_CORPUS:
            return mutated(dice.choice(corpus), dice.choice(corpus), self.grammar, dice)
        return self.grammar.actions()

    def _do(self, machine: Target, action: Action, done: list[Action]) -> None:
        done.append(action)
        lines: set[tuple[str, int]] = set()
        with coverage.noted(lines):
            result = machine.do(action)
        self._digest.update(repr(result).encode())
        if action.kind is Kind.CALL:
            operations = coverage.operations_of(action, self.width)
            if self.coverage.note(operations, result, lines):
                self._keep(tuple(done[-_CONTEXT:]))
            if machine.calls % CHECK_EVERY == 0:
                machine.check()
        else:
            self.coverage.note_store(lines)

    def _keep(self, found: tuple[Action, ...]) -> None:
        if len(self.corpus) < _CORPUS:
            self.corpus.append(found)
        else:
            self.corpus[self.coverage.calls % _CORPUS] = found

    # --- failures --------------------------------------------------------------------------------
    def _report(self, setting: Setting, done: list[Action], error: Exception) -> str:
        small, last = shrunk(setting, done, error)
        lines = traceback.format_exception(last, chain=False)
        again = f"python -m tests.fuzz --width {self.width.name} --seed {self.seed}"
        again += f" --calls {self.coverage.calls + ROUND}"
        return "\n".join(
            [
                f"after {self.coverage.calls} hypercalls, seed {self.seed}, {setting}:",
                "".join(lines),
                f"again: {again}",
                f"{len(small)} of {len(done)} actions are enough; python -m tests.fuzz "
                f"--width {self.width.name} --round {self.rounds} --replay FILE does them:",
                dumps(small),
            ]
        )


def replay(setting: Setting, actions: Sequence[Action], *, check_each: bool = True) -> None:
    """Do `actions` on a new machine. Raises whatever is found."""
    with target(setting) as machine:
        for action in actions:
            machine.do(action)
            if check_each:
                machine.check()
        machine.check()
        machine.check_walks()


def shrunk(
    setting: Setting, actions: list[Action], error: Exception
) -> tuple[list[Action], Exception]:
    """As few actions as still fail in the same way, and how they fail."""
    tries = 0

    def fails(some: list[Action]) -> Exception | None:
        nonlocal tries
        tries += 1
        try:
            replay(setting, some, check_each=len(some) < 60)
        except Exception as again:  # noqa: BLE001 - whatever comes out is what we look for
            return again if type(again) is type(error) else None
        return None

    last = fails(actions)
    if last is None:
        return actions, error
    size = len(actions) // 2
    while size and tries < _MOST_RETRIES:
        at = 0
        while at < len(actions) and tries < _MOST_RETRIES:
            fewer = actions[:at] + actions[at + size :]
            if (again := fails(fewer)) is not None:
                actions, last = fewer, again
            else:
                at += size
        size //= 2
    return actions, last
