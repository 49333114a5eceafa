"""Scenarios: what is read, and that every misspelling is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervisor.config import Document
from hypervisor.testing.scenario import Scenario, ScenarioError, parse, read_scenario
from hypervisor.testing.script import Expect, RunFor, Send

GOOD = """
summary = "a greeting"
widths = ["x86_32", "x86_64"]

[[domains]]
kernel = "hello"
ends = "pass"

[[steps]]
expect = "ring [13]"

[[steps]]
send = 'q\\n'

[[steps]]
run_for_ms = 5
"""


def read(text: str) -> Scenario:
    return parse(Document("s.toml", text), Path("/somewhere/s.toml"))


def test_defaults_are_filled_in() -> None:
    (domain,) = read(GOOD).domains
    spec = domain.spec
    assert (spec.name, spec.memory_mib, spec.width, domain.ends) == ("hello", 16, None, "pass")


def test_steps_keep_their_order() -> None:
    expect, send, wait = read(GOOD).steps
    assert isinstance(expect, Expect)
    assert isinstance(send, Send)
    assert send.data == b"q\n"
    assert wait == RunFor(5_000_000)


def test_machine_has_room_for_all_domains() -> None:
    assert read(GOOD).memory_mib > 16


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('summary = "a greeting"', "", r"^s.toml: lacks 'summary'"),
        ("expect", "expct", r"^s.toml:9: \[steps 1\] lacks 'run_for_ms'"),
        ("ends", "end", r"^s.toml:7: \[domains 1\] 'end' is not known here; did you mean 'ends'\?"),
        ('"pass"', '"fine"', r"^s.toml:7: \[domains 1\] ends = 'fine' is none of pass, poweroff"),
        ("run_for_ms = 5", "run_for_ms = '5'", r"run_for_ms = '5' is not a number"),
        ('"ring [13]"', '"("', r"^s.toml:9: \[steps 1\] '\(' is not a regular expression"),
        ("'q\\n'", "'\\q'", r"is no C escape"),
        ('"x86_64"', '"x86_65"', r"^s.toml: widths: 'x86_65' is none of"),
        ('expect = "ring', 'domain = "x"\nexpect = "ring', r"^s.toml: no domain is called 'x'"),
        ("widths", "width", r"^s.toml:3: 'width' is not known here; did you mean 'widths'\?"),
        ('ends = "pass"', "memory_mib = true", r"memory_mib = True is not a whole number"),
    ],
)
def test_mistake_is_refused_and_placed(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ScenarioError, match=said):
        read(GOOD.replace(old, new, 1))


def test_two_domains_of_one_name_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"two domains have the same name"):
        read(GOOD + '[[domains]]\nkernel = "hello"\n')


def test_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("summary = ")
    with pytest.raises(ScenarioError, match=r"^s.toml is not TOML: "):
        read_scenario(path)
