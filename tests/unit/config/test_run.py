"""Files for `ring1 run`: what is read, and one sentence with its line for all that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervisor.config import ConfigError, Document, RunSpec, read_run
from hypervisor.config.run import parse_run
from hypervisor.control.lifecycle import Action, Policies
from hypervisor.sched.params import SchedParams

MS = 10**6

GOOD = """\
title = "two of a kind"

[machine]
memory_mib = 100
scheduler = "rr"
seed = 7
mcu_us = 50

[[domains]]
name = "film"
kernel = "decoder"
width = "x86_64"
memory_mib = 5
vcpus = 2
cmdline = "frames=3"
weight = 3
warp = true
warp_value_ms = 12.5
warp_limit_ms = 5
unwarp_ms = 1
start_ms = 70
on_reboot = "restart"
on_crash = "destroy"

[[domains]]
kernel = "deb:grub-xen-host/usr/lib/grub-xen/grub-i386-xen.bin"
count = 3

[run]
until_ms = 1500
"""


def read(text: str) -> RunSpec:
    return parse_run(Document("r.toml", text))


def test_everything_that_is_said_is_understood() -> None:
    spec = read(GOOD)
    film = spec.domains[0]
    assert (spec.title, spec.until_ns, spec.memory_mib) == ("two of a kind", 1500 * MS, 100)
    assert (spec.machine.scheduler, spec.machine.seed, spec.machine.mcu_us) == ("rr", 7, 50)
    assert (film.name, film.kernel, film.width, film.nr_vcpus) == ("film", "decoder", "x86_64", 2)
    assert film.sched == SchedParams(3, True, 12_500_000, 5 * MS, 1 * MS)
    assert film.policies == Policies(Action.PRESERVE, Action.RESTART, Action.DESTROY)
    assert film.start_ns == 70 * MS


def test_replicas_are_numbered_and_alike() -> None:
    _, *grubs = read(GOOD).domains
    assert [grub.name for grub in grubs] == [f"grub-i386-xen{number}" for number in (1, 2, 3)]
    assert {grub.kernel for grub in grubs} == {grubs[0].kernel}


def test_what_is_not_said_has_a_default() -> None:
    (domain,) = read('[[domains]]\nkernel = "some/kernel.elf"').domains
    assert (domain.name, domain.memory_mib, domain.width, domain.start_ns) == (
        "kernel",
        16,
        None,
        0,
    )
    assert (domain.sched, domain.policies) == (SchedParams(), Policies())


def test_a_machine_has_room_for_its_domains() -> None:
    assert read(GOOD.replace("memory_mib = 100\n", "")).memory_mib > 5 + 3 * 16


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("weight = 3", "wieght = 3",
         r"16: \[domains 1\] 'wieght' is not known here; did you mean 'weight'\?"),
        ("count = 3", "counts = 3",
         r"27: \[domains 2\] 'counts' is not known here; did you mean 'count'\?"),
        ("count = 3", "count = 0", r"27: \[domains 2\] count = 0 is not between 1 and 1000"),
        ("seed", "sead", r"6: \[machine\] 'sead' is not known here; did you mean 'seed'\?"),
        ("title", "[extra]\ntitle", r"1: 'extra' is not known here"),
        ("weight = 3", "weight = 0",
         r"16: \[domains 1\] weight is 0: it lies between 1 and \d+"),
        ("weight = 3", 'weight = "3"', r"16: \[domains 1\] weight = '3' is not a whole number"),
        ("warp = true", "warp = 1", r"17: \[domains 1\] warp = 1 is not true or false"),
        ("vcpus = 2", "vcpus = 33", r"14: \[domains 1\] vcpus = 33 is not between 1 and 32"),
        ("x86_64", "x86_65",
         r"12: \[domains 1\] width = 'x86_65' is none of x86_32, x86_32p, x86_64"),
        ('"restart"', '"again"',
         r"22: \[domains 1\] on_reboot = 'again' is none of destroy, restart, preserve"),
        ('"rr"', '"edf"', r"5: \[machine\] scheduler = 'edf' is none of [\w, -]+"),
        ("start_ms = 70", "start_ms = -1",
         r"21: \[domains 1\] start_ms = -1 is not a number of milliseconds"),
        ("start_ms = 70", "start_ms = inf",
         r"21: \[domains 1\] start_ms = inf is not a number of milliseconds"),
        ("= 1500", "= nan", r"30: \[run\] until_ms = nan is not a number of milliseconds"),
        ('"decoder"', '""', r"11: \[domains 1\] kernel = '' names no kernel"),
        ('"film"', '"a\\n"',
         r"10: \[domains 1\] name = 'a\\n' is nothing to call a domain"),
        ('"frames=3"', '"' + "x" * 1024 + '"',
         r"15: \[domains 1\] cmdline has 1024 bytes, at most 1023 fit"),
        ('kernel = "decoder"', "", r"9: \[domains 1\] lacks 'kernel'"),
    ],
)  # fmt: skip
def test_mistake_is_refused_with_its_line(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=rf"^r\.toml:{said}$"):
        read(GOOD.replace(old, new, 1))


def test_two_of_one_name_are_refused() -> None:
    said = r"^r.toml: two domains have the same name, 'grub-i386-xen2'$"
    with pytest.raises(ConfigError, match=said):
        read(GOOD.replace('"film"', '"grub-i386-xen2"'))


def test_what_is_no_toml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^r.toml is not TOML: .*line 3"):
        read(GOOD.replace("[machine]", "[machine"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"^r.toml has no domain$"),
        ("domains = 3", r"^r.toml:1: domains = 3 is not a list$"),
        ("domains = [3]", r"^r.toml:1: domains is a list of tables, written \[\[domains\]\]$"),
        ("machine = 'big'", r"^r.toml:1: machine = 'big' is not a table$"),
        ("domains = [{kernel = 'x', weigth = 1}]", r"^r.toml: \[domains 1\] 'weigth' is not known"),
        ("[[domains]]\nkernel = 'a'\ncount = 1000\n[[domains]]\nkernel = 'b'", "has 1001 domains"),
    ],
)
def test_other_shapes_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"^r.toml is not UTF-8: "):
        read_run(path)
