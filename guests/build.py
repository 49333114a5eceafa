"""Build the guests: `python -m guests.build [--out DIR] [--width WIDTH]... [NAME]...`.

The compiler is clang as the `ziglang` package brings it, pinned in pyproject.toml, so that no
compiler need be on the machine and everybody gets the same bytes: nothing in the output depends on
paths, times or the order of directory entries, and a test builds twice to compare.

Each output has a key beside it: a hash of its command line, its inputs, all headers and the
compiler's version. An output whose key still holds is left alone, so a second build costs a few
milliseconds. `make` was rejected because the package's build must not need it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import ziglang

from guests import WIDTHS

HERE: Final = Path(__file__).resolve().parent
NAMES: Final = (
    "hello",
    "traps",
    "ticker",
    "clocks",
    "decoder",
    "refusals",
    "smp",
    "attacks",
    "pagetables",
    "events",
    "pingpong",
    "crash",
    "bench",
    "spinner",
    "demand",
)

_COMMON_FLAGS: Final = (
    "-std=gnu11",
    "-O2",
    "-g0",
    "-ffreestanding",
    "-fno-pie",
    "-fno-stack-protector",
    "-fno-omit-frame-pointer",  # backtraces of a crashed domain follow ebp/rbp
    "-fno-sanitize=all",  # zig adds UBSan traps by default
    "-fno-asynchronous-unwind-tables",
    "-fno-strict-aliasing",
    "-mno-red-zone",  # Xen pushes trap frames right below the kernel's stack pointer
    "-mno-mmx",
    "-mno-sse",
    "-mno-sse2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wmissing-prototypes",
    "-Wno-unused-command-line-argument",  # the same flags serve assembly
)
_WIDTH_FLAGS: Final = {
    "x86_32": ("-target", "x86-freestanding-none", "-march=i686", "-DWIDTH_X86_32"),
    "x86_32p": ("-target", "x86-freestanding-none", "-march=i686", "-DWIDTH_X86_32P"),
    "x86_64": ("-target", "x86_64-freestanding-none", "-mcmodel=kernel", "-DWIDTH_X86_64"),
}
_LINK_FLAGS: Final = (
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack",
)


def width_flags(width: str) -> tuple[str, ...]:
    """What the compiler is told for any source of a width."""
    return (*_WIDTH_FLAGS[width], *_COMMON_FLAGS)


class BuildError(Exception):
    """The compiler refused; the text is what it said."""


class Toolchain:
    """The pinned compiler, run in `guests/` with relative paths and caches of its own."""

    def __init__(self, cache: Path) -> None:
        package = Path(ziglang.__file__).resolve().parent
        self.zig = package / ("zig.exe" if os.name == "nt" else "zig")
        self.environment = dict(
            os.environ,
            ZIG_GLOBAL_CACHE_DIR=str(cache / "global"),
            ZIG_LOCAL_CACHE_DIR=str(cache / "local"),
        )

    @cached_property
    def version(self) -> str:
        """What `zig version` prints."""
        return self._run(["version"]).strip()

    def cc(self, arguments: Sequence[str]) -> str:
        """Run the C compiler and return what it printed to its standard output."""
        return self._run(["cc", *arguments])

    def _run(self, arguments: Sequence[str]) -> str:
        done = subprocess.run(
            [str(self.zig), *arguments],
            cwd=HERE,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildError(f"zig {' '.join(arguments)}\n{done.stderr}")
        return done.stdout


@dataclass(frozen=True, slots=True)
class Step:
    """One output of the compiler: made from `inputs` by `arguments`, unless its key still holds."""

    output: Path
    inputs: tuple[Path, ...]
    arguments: tuple[str, ...]


@dataclass(slots=True)
class Builder:
    """Builds into `out`, one folder per width; everything but the kernels goes to `out/.work`."""

    out: Path
    toolchain: Toolchain
    headers_key: str
    pool: ThreadPoolExecutor
    built: list[Path] = field(default_factory=list)

    def build(self, widths: Iterable[str], names: Iterable[str]) -> None:
        """Bring the named guests up to date for the given widths."""
        widths, names = tuple(widths), tuple(names)
        for width in widths:
            self._offsets_header(width)
        objects = {
            (width, unit): self._objects(width, unit)
            for width in widths
            for unit in ("kit", *names)
        }
        scripts = [self._linker_script(width) for width in widths]
        self._run(step for steps in objects.values() for step in steps)
        self._run(scripts)
        self._run(
            self._link(width, name, [*objects[width, "kit"], *objects[width, name]], script.output)
            for width, script in zip(widths, scripts, strict=True)
            for name in names
        )

    def _run(self, steps: Iterable[Step]) -> None:
        list(self.pool.map(self._make, steps))

    def _make(self, step: Step) -> None:
        key_file = step.output.with_name(step.output.name + ".key")
        if step.output.suffix == ".elf":
            key_file = self.out / ".work" / step.output.parent.name / key_file.name
        key = self._key(step)
        if step.output.is_file() and key_file.is_file() and key_file.read_text() == key:
            return
        step.output.parent.mkdir(parents=True, exist_ok=True)
        key_file.unlink(missing_ok=True)
        self.toolchain.cc(step.arguments)
        key_file.write_text(key)
        self.built.append(step.output)

    def _key(self, step: Step) -> str:
        # The place of the output is left out: the same inputs give the same bytes anywhere.
        arguments = [a.replace(str(self.out), "OUT") for a in step.arguments]
        key = hashlib.sha256(repr((self.toolchain.version, self.headers_key, arguments)).encode())
        for path in step.inputs:
            key.update(path.read_bytes())
        return key.hexdigest()

    def _work(self, width: str) -> Path:
        return self.out / ".work" / width

    def _flags(self, width: str) -> tuple[str, ...]:
        include = self._work(width) / "include"
        return (*width_flags(width), "-Ikit", f"-I{include}")

    def _offsets_header(self, width: str) -> None:
        """Write generated/offsets.h: what assembly must know of C's structures."""
        assembly = self._work(width) / "offsets.s"
        source = HERE / "kit" / "offsets.c"
        self._make(
            Step(
                assembly,
                (source,),
                (*self._flags(width), "-S", "kit/offsets.c", "-o", str(assembly)),
            )
        )
        names = re.findall(r"^\s*# -> (\w+) \$?(-?\w+)$", assembly.read_text(), re.MULTILINE)
        lines = ["/* Made by guests/build.py from guests/kit/offsets.c. */"]
        lines += [f"#define {name} {value}" for name, value in names]
        _write_if_changed(
            self._work(width) / "include" / "generated" / "offsets.h", "\n".join(lines) + "\n"
        )

    def _objects(self, width: str, unit: str) -> list[Step]:
        other_entry = "entry_32.S" if width == "x86_64" else "entry_64.S"
        sources = sorted(
            path
            for path in (HERE / unit).iterdir()
            if path.suffix in {".c", ".S"} and path.name not in {other_entry, "offsets.c"}
        )
        return [self._compile(width, source) for source in sources]

    def _compile(self, width: str, source: Path) -> Step:
        relative = source.relative_to(HERE)
        output = self._work(width) / f"{'-'.join(relative.parts)}.o"
        return Step(
            output,
            (source,),
            (*self._flags(width), "-c", relative.as_posix(), "-o", str(output)),
        )

    def _linker_script(self, width: str) -> Step:
        output = self._work(width) / "kernel.ld"
        source = HERE / "kit" / "kernel.ld"
        preprocess = ("-E", "-P", "-x", "assembler-with-cpp", "kit/kernel.ld", "-o", str(output))
        return Step(output, (source,), (*self._flags(width), *preprocess))

    def _link(self, width: str, name: str, objects: Sequence[Step], script: Path) -> Step:
        output = self.out / width / f"{name}.elf"
        files = [step.output for step in objects]
        return Step(
            output,
            (*files, script),
            (
                *_WIDTH_FLAGS[width][:2],
                *_LINK_FLAGS,
                f"-Wl,-T,{script}",
                *map(str, files),
                "-o",
                str(output),
            ),
        )


def _headers_key() -> str:
    key = hashlib.sha256()
    for path in sorted(HERE.glob("*/**/*.h")):
        key.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return key.hexdigest()


def _write_if_changed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def build(
    out: Path | None = None, widths: Sequence[str] = WIDTHS, names: Sequence[str] = NAMES
) -> list[Path]:
    """Bring the guests up to date in `out` (default: guests/built); return what was made anew.

    Raises BuildError with the compiler's words.
    """
    out = (HERE / "built") if out is None else out.resolve()
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        builder = Builder(out, Toolchain(out / ".work" / "cache"), _headers_key(), pool)
        builder.build(widths, names)
    return builder.built


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when something did not compile."""
    parser = argparse.ArgumentParser(prog="python -m guests.build", description="Build the guests.")
    parser.add_argument("--out", type=Path, help="where to (default: guests/built)")
    parser.add_argument("--width", action="append", choices=WIDTHS, help="only this width")
    parser.add_argument("name", nargs="*", help=f"only these of {', '.join(NAMES)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.name) - set(NAMES):
        parser.error(f"no guest is called {', '.join(sorted(unknown))}")
    try:
        built = build(options.out, options.width or WIDTHS, options.name or NAMES)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    kernels = [path for path in built if path.suffix == ".elf"]
    sys.stdout.write(f"guests: {len(kernels)} built, the rest up to date\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
