"""The guests declare the ABI in C, the hypervisor in Python: both must say the same.

A C file is made of what Python declares, as static assertions over the guests' headers, and
compiled with the guests' own compiler for each width. A structure or number that only one side has
is left out: the guests declare what they use.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import pytest

import hypervisor.abi
from guests import WIDTHS, build
from hypervisor.abi.layout import declared, layout
from hypervisor.abi.width import Width

HEADERS: Final = sorted((build.HERE / "kit" / "xen").glob("*.h"))

# C constants with this prefix are members of that enumeration, in capitals.
PREFIXES: Final = {
    "__HYPERVISOR_": "HypercallNr",
    "CALLBACKOP_": "CallbackOp",
    "CALLBACKTYPE_": "CallbackType",
    "EVTCHNOP_": "EvtchnOp",
    "EVTCHNSTAT_": "EvtchnStat",
    "MMUEXT_": "MmuextCmd",
    "PHYSDEVOP_": "PhysdevOp",
    "SCHEDOP_": "SchedOp",
    "SHUTDOWN_": "ShutdownReason",
    "VCPUOP_": "VcpuOp",
    "VIRQ_": "Virq",
    "XENFEAT_": "Feature",
    "XENMEM_": "XenmemOp",
    "XENVER_": "XenverCmd",
}

# Where C has a union or another name.
MEMBERS: Final = {
    ("start_info", "console_mfn"): "console.domU.mfn",
    ("start_info", "console_evtchn"): "console.domU.evtchn",
    ("evtchn_status", "u_port"): "u.interdomain.port",
    ("xencons_interface", "in_"): "in",
}


def _modules() -> list[Any]:
    return [
        importlib.import_module(f"hypervisor.abi.{module.name}")
        for module in pkgutil.iter_modules(hypervisor.abi.__path__)
    ]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _sources() -> str:
    return "\n".join(path.read_text() for path in HEADERS)


def _is_for(cls: type[Any], width: str) -> bool:
    """Whether a structure is one of guests of `width`: some are declared once per word size."""
    other = "arch_x86_32" if Width(width).is_64 else "arch_x86_64"
    return not cls.__module__.endswith(other)


def _size_assertions(width: str) -> list[str]:
    """One line per structure, and per member, that both sides have."""
    in_c = set(re.findall(r"^struct (\w+) \{", _sources(), re.MULTILINE))
    lines = []
    for cls in declared():
        if (tag := _snake(cls.__name__)) not in in_c or not _is_for(cls, width):
            continue
        shape = layout(cls, Width(width))
        lines.append(f'_Static_assert(sizeof(struct {tag}) == {shape.size}, "{tag}");')
        for name in shape.field_names:
            if shape.size_of(name) == 0:
                continue  # a member that this width does not have
            member = MEMBERS.get((tag, name), name)
            where = f"__builtin_offsetof(struct {tag}, {member})"
            lines.append(f'_Static_assert({where} == {shape.offset(name)}, "{tag}.{member}");')
    return lines


def _number_assertions() -> list[str]:
    """One line per constant of the headers that an enumeration of ours has too."""
    _modules()
    enums = {cls.__name__: cls for cls in IntEnum.__subclasses__()}
    lines = []
    for name in re.findall(r"^#define (\w+) ", _sources(), re.MULTILINE):
        for prefix, enum in PREFIXES.items():
            member = name.removeprefix(prefix).upper()
            if name.startswith(prefix) and member in enums[enum].__members__:
                value = enums[enum][member].value
                lines.append(f'_Static_assert({name} == {value}, "{name}");')
    return lines


def _compile(source: Path, width: str) -> None:
    tools = build.Toolchain(source.parent / "cache")
    tools.cc([*build.width_flags(width), "-c", str(source), "-o", str(source.with_suffix(".o"))])


@pytest.mark.parametrize("width", WIDTHS)
def test_c_and_python_declare_the_same_abi(width: str, tmp_path: Path) -> None:
    _modules()
    source = tmp_path / "agreement.c"
    includes = [f'#include "{path}"' for path in HEADERS]
    sizes, numbers = _size_assertions(width), _number_assertions()
    assert len(sizes) > 50
    assert len(numbers) > 70
    source.write_text("\n".join([*includes, *sizes, *numbers, ""]))
    _compile(source, width)


def test_an_assertion_that_does_not_hold_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    include = f'#include "{build.HERE}/kit/xen/sched.h"'
    source.write_text(f'{include}\n_Static_assert(sizeof(struct sched_poll) == 15, "poll");\n')
    with pytest.raises(build.BuildError, match="poll"):
        _compile(source, "x86_32")
