"""Everything that `hypervisor.abi` declares, compared with Xen's own public headers.

A C file that names every structure, member and number is made from the declarations and compiled,
once per word size, with the guests' compiler against the headers of Debian's libxen-dev. The
compiler puts what it thinks into a section of the object, which is read back: nothing is run.

The declarations are found by walking the package, so one that nobody has said how to compare fails
a test. What 4.17's headers do not have is exempt by name, with its source.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NewType

import pytest
from elftools.elf.elffile import ELFFile

import hypervisor.abi
from guests import build
from hypervisor.abi import layout as layouts
from hypervisor.abi.layout import declared, layout
from hypervisor.abi.width import Width
from tests.support.debian import debian_tree_or_skip

BITS: Final = {32: (Width.X86_32, Width.X86_32P), 64: (Width.X86_64,)}
TARGET: Final = {32: "x86_32", 64: "x86_64"}
ONLY: Final = {"arch_x86_32": 32, "arch_x86_64": 64}  # modules of one word size

HEADERS: Final = (
    "xen.h", "callback.h", "elfnote.h", "errno.h", "event_channel.h", "features.h",
    "grant_table.h", "memory.h", "nmi.h", "physdev.h", "sched.h", "vcpu.h", "version.h",
    "arch-x86/cpuid.h", "io/console.h", "io/xs_wire.h",
)  # fmt: skip

# The machinery itself, and names that are types: nothing to compare.
NO_DECLARATIONS: Final = {"layout", "width", "errors"}

#: The C prefix of each enumeration's members; case follows the headers.
PREFIXES: Final = {
    "CallbackOp": "CALLBACKOP_",
    "CallbackType": "CALLBACKTYPE_",
    "ConsoleioCmd": "CONSOLEIO_",
    "ElfNote": "XEN_ELFNOTE_",
    "Errno": "XEN_",
    "EvtchnOp": "EVTCHNOP_",
    "EvtchnStat": "EVTCHNSTAT_",
    "Feature": "XENFEAT_",
    "GntStatus": "GNTST_",
    "GnttabOp": "GNTTABOP_",
    "HypercallNr": "__HYPERVISOR_",
    "MmuCommand": "MMU_",
    "MmuextCmd": "MMUEXT_",
    "PhysdevOp": "PHYSDEVOP_",
    "Runstate": "RUNSTATE_",
    "SchedOp": "SCHEDOP_",
    "Segbase": "SEGBASE_",
    "ShutdownReason": "SHUTDOWN_",
    "VcpuOp": "VCPUOP_",
    "Vgcf": "VGCF_",
    "Virq": "VIRQ_",
    "VmAssistCmd": "VMASST_CMD_",
    "VmAssistType": "VMASST_TYPE_",
    "XenmemOp": "XENMEM_",
    "XennmiOp": "XENNMI_",
    "XenstoreError": "XENSTORE_ERROR_",
    "XenverCmd": "XENVER_",
    "XsType": "XS_",
}

#: Structures whose C tag is not the class's name in lower case.
TAGS: Final = {
    "CompileInfo": "xen_compile_info",
    "FeatureInfo": "xen_feature_info",
    "PlatformParameters": "xen_platform_parameters",
}

#: Members that have another name in C, most of them in a union.
MEMBERS: Final = {
    "CallbackUnregister.unused": "_unused",
    "StartInfo.console_mfn": "console.domU.mfn",
    "StartInfo.console_evtchn": "console.domU.evtchn",
    "EvtchnStatus.u": "u.virq",
    "EvtchnStatus.u_port": "u.interdomain.port",
    "XenconsInterface.in_": "in",
    "XenMemoryExchange.in_": "in",
}

#: Numbers that are an expression of the headers, or are no name in Python.
EXPRESSIONS: Final = {
    "VmAssistType.FOURGB_SEGMENTS": "VMASST_TYPE_4gb_segments",
    "VmAssistType.FOURGB_SEGMENTS_NOTIFY": "VMASST_TYPE_4gb_segments_notify",
    "TI_DPL": "TI_GET_DPL(&(struct trap_info){ .flags = 0xff })",
    "TI_IF": "TI_GET_IF(&(struct trap_info){ .flags = 0xff })",
}

#: What 4.17's headers do not declare, by name, and where it comes from.
EXEMPT: Final[dict[str, str]] = {
    "EvtchnOp.RESET_CONT": "event_channel.h shows it to Xen alone (#ifdef __XEN__)",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One number of ours, and the C expression for the same."""

    name: str
    value: int
    expression: str


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(hypervisor.abi.__path__, "hypervisor.abi.")
    return [importlib.import_module(module.name) for module in found]


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def is_for(module: ModuleType, bits: int) -> bool:
    return ONLY.get(module.__name__.rpartition(".")[2], bits) == bits


def struct_facts(cls: type[Any], bits: int) -> Iterator[Fact]:
    shape = layout(cls, BITS[bits][0])
    tag = f"struct {TAGS.get(cls.__name__, snake(cls.__name__))}"
    yield Fact(f"sizeof {cls.__name__}", shape.size, f"sizeof({tag})")
    for name in shape.field_names:
        full = f"{cls.__name__}.{name}"
        size = shape.size_of(name)
        if size == 0:
            continue  # a member that this width does not have
        member = MEMBERS.get(full, name)
        yield Fact(f"offset of {full}", shape.offset(name), f"__builtin_offsetof({tag}, {member})")
        yield Fact(f"size of {full}", size, f"sizeof((({tag} *)0)->{member})")


def enum_facts(enum: type[IntEnum] | type[IntFlag], c_names: dict[str, str]) -> Iterator[Fact]:
    for name, member in enum.__members__.items():
        full, c_name = f"{enum.__name__}.{name}", PREFIXES[enum.__name__] + name
        yield Fact(full, int(member), EXPRESSIONS.get(full, c_names.get(c_name.lower(), c_name)))


def number_facts(module: ModuleType, c_names: dict[str, str]) -> Iterator[Fact]:
    for name, value in vars(module).items():
        if name.isupper() and isinstance(value, int) and not isinstance(value, IntEnum):
            yield Fact(name, value, EXPRESSIONS.get(name, c_names.get(name.lower(), name)))


def enums_of(module: ModuleType) -> list[type[Any]]:
    return [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, (IntEnum, IntFlag))
        and thing.__module__ == module.__name__
    ]


def facts(bits: int, c_names: dict[str, str]) -> list[Fact]:
    """All that is declared for guests of a word size."""
    found: list[Fact] = []
    for module in modules():
        if module.__name__.rpartition(".")[2] in NO_DECLARATIONS or not is_for(module, bits):
            continue
        for enum in enums_of(module):
            found += enum_facts(enum, c_names)
        found += number_facts(module, c_names)
        for cls in declared():
            if cls.__module__ == module.__name__:
                found += struct_facts(cls, bits)
    return [fact for fact in found if fact.name not in EXEMPT]


# --- the compiler --------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def headers() -> Path:
    """The directory that holds Xen's public headers as <xen/...>."""
    return debian_tree_or_skip("libxen-dev") / "usr" / "include"


@pytest.fixture(scope="session")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> build.Toolchain:
    return build.Toolchain(tmp_path_factory.mktemp("cache"))


def includes() -> str:
    # The errors of xs_wire.h and the tools' half of the headers are for others.
    lines = ["#include <stddef.h>", "#include <stdint.h>"]
    return "\n".join([*lines, *(f"#include <xen/{header}>" for header in HEADERS), ""])


def flags(bits: int, headers: Path) -> list[str]:
    return [*build.width_flags(TARGET[bits]), "-w", "-ferror-limit=0", f"-isystem{headers}",
            "-D__XEN_TOOLS__",
            "-D__XEN_INTERFACE_VERSION__=__XEN_LATEST_INTERFACE_VERSION__"]  # fmt: skip


def macro_names(
    toolchain: build.Toolchain, headers: Path, bits: int, folder: Path
) -> dict[str, str]:
    """Every macro of the headers as it is spelt, by its name in lower case."""
    source = folder / "macros.c"
    source.write_text(includes())
    printed = toolchain.cc([*flags(bits, headers), "-E", "-dM", str(source)])
    names = re.findall(r"^#define (\w+)\b(?!\()", printed, re.MULTILINE)
    return {name.lower(): name for name in names}


def values_in_c(
    toolchain: build.Toolchain, headers: Path, bits: int, expressions: list[str], folder: Path
) -> list[int]:
    """What the compiler makes of the expressions."""
    rows = ",\n".join(f"    (long long)({expression})" for expression in expressions)
    source = folder / "values.c"
    source.write_text(
        f"{includes()}\n"
        'const long long values[] __attribute__((used, section(".values"))) = {\n'
        f"{rows}\n}};\n"
    )
    target = source.with_suffix(".o")
    toolchain.cc([*flags(bits, headers), "-c", str(source), "-o", str(target)])
    with target.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".values")
        assert section is not None
        data = section.data()
    return list(struct.unpack(f"<{len(expressions)}q", data))


def differences(bits: int, ours: list[Fact], theirs: list[int]) -> list[str]:
    mask = (1 << 64) - 1
    return [
        f"{fact.name} is {fact.value:#x}; in Xen's headers for {bits} bits it is {value & mask:#x}"
        for fact, value in zip(ours, theirs, strict=True)
        if (fact.value - value) & mask
    ]


# --- tests ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("bits", [32, 64])
def test_every_declaration_is_as_in_xens_headers(
    bits: int, headers: Path, toolchain: build.Toolchain, tmp_path: Path
) -> None:
    c_names = macro_names(toolchain, headers, bits, tmp_path)
    ours = facts(bits, c_names)
    theirs = values_in_c(toolchain, headers, bits, [fact.expression for fact in ours], tmp_path)
    assert differences(bits, ours, theirs) == []
    assert len(ours) > 500


def test_a_difference_is_noticed(headers: Path, toolchain: build.Toolchain, tmp_path: Path) -> None:
    wrong = [Fact("SCHEDOP_poll", 4, "SCHEDOP_poll")]
    theirs = values_in_c(toolchain, headers, 64, ["SCHEDOP_poll"], tmp_path)
    assert differences(64, wrong, theirs) == [
        "SCHEDOP_poll is 0x4; in Xen's headers for 64 bits it is 0x3"
    ]


def test_a_name_that_the_headers_do_not_have_is_noticed(
    headers: Path, toolchain: build.Toolchain, tmp_path: Path
) -> None:
    with pytest.raises(build.BuildError, match="SCHEDOP_dance"):
        values_in_c(toolchain, headers, 64, ["SCHEDOP_dance"], tmp_path)


def test_every_enumeration_has_a_prefix() -> None:
    names = {enum.__name__ for module in modules() for enum in enums_of(module)}
    assert names == set(PREFIXES)


def is_declaration(value: object, module: ModuleType) -> bool:
    """Whether a name of a module was made there, and is no mere type."""
    home = getattr(value, "__module__", module.__name__)
    return home == module.__name__ and not isinstance(value, NewType)


def test_nothing_is_declared_that_is_not_compared() -> None:
    forgotten = []
    for module in modules():
        if module.__name__.rpartition(".")[2] in NO_DECLARATIONS:
            continue
        compared = {fact.name for fact in number_facts(module, {})}
        compared |= {enum.__name__ for enum in enums_of(module)}
        compared |= {cls.__name__ for cls in declared()}
        for name, value in vars(module).items():
            known = name in compared or name in vars(layouts) or name.startswith("__")
            if not known and is_declaration(value, module):
                forgotten.append(f"{module.__name__}.{name}")
    assert forgotten == []
