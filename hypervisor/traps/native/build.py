"""Compile traps.c into ../generated/fast_code.py.

    python hypervisor/traps/native/build.py [--check]

Users have no compiler, so what it makes is part of the sources: bytes in hexadecimal, and where the
functions lie in them. The compiler is the guests' own, pinned, so that everybody who runs this gets
the same bytes; `--check` says whether the file is up to date, and changes nothing.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from elftools.elf.elffile import ELFFile  # noqa: E402
from elftools.elf.sections import SymbolTableSection  # noqa: E402

from hypervisor.abi import arch_x86, arch_x86_64  # noqa: E402
from hypervisor.domain import domain, trap_state  # noqa: E402
from hypervisor.machine import _native, state  # noqa: E402
from hypervisor.traps import bounce, fast_context, segments  # noqa: E402
from hypervisor.x86 import flags, paging  # noqa: E402

TARGET: Final = ROOT / "hypervisor" / "traps" / "generated" / "fast_code.py"
FUNCTIONS: Final = ("interrupt", "system_call", "invalid", "iret", "context")
_FLAGS: Final = """
    -target x86_64-freestanding-none -std=gnu11 -O2 -g0 -ffreestanding -fPIE -mcmodel=small
    -fvisibility=hidden -fno-stack-protector -fno-sanitize=all -fno-asynchronous-unwind-tables
    -fno-strict-aliasing -mno-mmx -mno-sse -mno-sse2 -fomit-frame-pointer -fno-jump-tables
    -fno-builtin -Wall -Wextra -Werror -Wno-missing-prototypes
"""
_LINK: Final = (
    "-nostdlib",
    "-static",
    "-Wl,--build-id=none",
    "-Wl,-e,interrupt",
    "-Wl,--no-gc-sections",
    "-T",
    str(HERE / "flat.ld"),
)
_WORDS_PER_LINE: Final = 44  # bytes


def _numbers(module: ModuleType, names: str) -> dict[str, int]:
    """Constants of a module; a leading underscore is Python's business."""
    found = vars(module)
    return {name: found[name] if name in found else found[f"_{name}"] for name in names.split()}


def definitions() -> dict[str, int | str]:
    """What traps.c is compiled with."""
    everything = " ".join(name for name in vars(fast_context) if name.isupper())
    words = " ".join(name for name in vars(trap_state) if name.isupper())
    return {
        **_numbers(fast_context, everything),
        **_numbers(trap_state, words),
        **_numbers(
            state,
            "RIP EFLAGS CC_SRC CC_OP DF HFLAGS CR2 CR3 ERROR_CODE EXCEPTION_IS_INT OLD_EXCEPTION "
            "CC_OP_EFLAGS CC_FLAGS DF_FLAG LAZY_FLAGS HF_CS32 HF_SS32 HF_ADDSEG HF_LMA HF_CS64 "
            "ES CS SS DS FS GS",
        ),
        "SEGMENTS": state._SEGS,
        **_numbers(_native, "COUNTER START END LIMIT"),
        **_numbers(flags, "EFLAGS_IF EFLAGS_IOPL EFLAGS_VM EFLAGS_TF RCX RSP R11"),
        **_numbers(bounce, "CLEARED_32 CLEARED_64"),
        **_numbers(paging, "PTE_P PTE_RW PTE_A PTE_D PTE_PSE PTE_FRAME"),
        **_numbers(
            arch_x86_64,
            "HYPERVISOR_VIRT_END FLAT_KERNEL_CS64 FLAT_KERNEL_SS64 FLAT_USER_CS32 FLAT_USER_CS64 "
            "FLAT_USER_SS64 VGCF_IN_SYSCALL",
        ),
        **_numbers(arch_x86, "FIRST_RESERVED_GDT_ENTRY"),
        "CR2_OFFSET_32": domain.CR2_OFFSET[4],
        "CR2_OFFSET_64": domain.CR2_OFFSET[8],
        "XEN_GDT_32": _array(segments.XEN_GDT_32),
        "XEN_GDT_64": _array(segments.XEN_GDT_64),
    }


def _array(gdt: dict[int, int]) -> str:
    """Xen's page of the GDT as a C initialiser of eight descriptors."""
    first = arch_x86.FIRST_RESERVED_GDT_BYTE
    return "{" + ",".join(f"{gdt.get(first + 8 * idx, 0):#x}ull" for idx in range(8)) + "}"


def _define(name: str, value: int | str) -> str:
    if isinstance(value, int):
        return f"-D{name}={value:#x}{'ull' if value >> 31 else ''}"
    return f"-D{name}={value}"


def compiled() -> str:
    """The text of the generated module."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "traps.elf"
        defines = [_define(name, value) for name, value in definitions().items()]
        compiler = [sys.executable, "-m", "ziglang", "cc"]
        options = [*_FLAGS.split(), *defines, *_LINK, "-o", str(output)]
        command = [*compiler, *options, str(HERE / "traps.c")]
        subprocess.run(command, check=True)
        elf = ELFFile(io.BytesIO(output.read_bytes()))
    (segment,) = [part for part in elf.iter_segments() if part["p_type"] == "PT_LOAD"]
    image = segment.data().ljust(segment["p_memsz"], b"\0")
    symbols = elf.get_section_by_name(".symtab")
    assert isinstance(symbols, SymbolTableSection), "the linker keeps symbols"
    lines = [
        "# Made by hypervisor/traps/native/build.py from traps.c beside it: do not edit.",
        '"""Machine code of x86-64, System V convention: what `fast` puts before Python."""',
        "",
    ]
    for name in FUNCTIONS:
        found = symbols.get_symbol_by_name(name)
        assert found, f"traps.c has no {name}"
        (symbol,) = found
        lines.append(f"{name.upper()} = {symbol['st_value'] - segment['p_vaddr']}")
    lines += ["CODE = bytes.fromhex("]
    lines += [
        f'    "{image[at : at + _WORDS_PER_LINE].hex()}"'
        for at in range(0, len(image), _WORDS_PER_LINE)
    ]
    return "\n".join([*lines, ")", ""])


def main() -> None:
    """Write the file, or compare."""
    text = compiled()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text() != text:
            sys.exit(f"{TARGET.relative_to(ROOT)} is not what traps.c makes: run {sys.argv[0]}")
        return
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
