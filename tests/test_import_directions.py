"""Imports go one way, and the core reads nothing but what it is given.

The layers are the architecture (docs/design.md): a package may import itself and what stands on an
earlier step, never a neighbour on its own step and never what stands above. The check reads the
sources with `ast`, so an import inside a function or under TYPE_CHECKING counts like any other.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent

STEPS: Final = (
    ("abi", "x86"),
    ("machine",),
    ("mm",),
    ("domain",),
    ("events",),
    ("sched", "traps", "grants"),
    ("backends",),
    ("control",),
    ("hypercalls",),
    ("vmm",),
    ("trace", "debug", "config"),
    ("api",),
    ("service", "testing"),
    ("cli",),
)
STEP_OF: Final = {name: step for step, names in enumerate(STEPS) for name in names}

ANYWHERE: Final = "probes"  # probe points are slots: everybody may fire one
ROOT_MODULE: Final = "hypervisor"  # its __init__ imports nothing, so that no layer pulls in another
GUESTS: Final = "guests"  # kernels and the list of them: data for the top of the house
MAY_IMPORT_GUESTS: Final = {GUESTS, "testing", "cli"}

# Third parties that one layer keeps to itself.
ONLY_IN: Final = {
    "unicorn": {"machine"},
    "click": {"cli"},
    "rich": {"cli"},
    "textual": {"cli"},
    "pytest": {"testing"},
    "ziglang": {GUESTS},
}

# Host time, entropy and environment make a run unrepeatable. Who may read them, and for what:
OUTSIDE: Final = {"cli", "testing", "service", GUESTS}
HOST_MODULES: Final = {"time", "datetime", "secrets", "uuid", "threading", "socket", "asyncio"}
HOST_NAMES: Final = {
    ("os", "environ"),
    ("os", "getenv"),
    ("os", "urandom"),
    ("os", "getrandom"),
    ("os", "times"),
    ("os", "getloadavg"),
}
EXCEPTIONS: Final = {
    "hypervisor/machine/clock.py": {"time", "threading"},  # the interactive mode reads the host
}

SOURCES: Final = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("hypervisor", "cli", "guests")
    for path in (ROOT / folder).rglob("*.py")
)


def layer(module: str) -> str | None:
    """The layer that a dotted module name belongs to; None when it is not ours."""
    parts = module.split(".")
    if parts[0] in ("cli", GUESTS, "tests"):
        return parts[0]
    if parts[0] != "hypervisor":
        return None
    return parts[1] if len(parts) > 1 else ROOT_MODULE


def module_name(source: str) -> str:
    """`hypervisor/mm/frames.py` as `hypervisor.mm.frames`."""
    return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that the source names in an import.

    For `from hypervisor import mm` the name itself is the module, so each is given in full.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_violation(importer: str, target: str) -> str | None:
    """Why a module of layer `importer` may not import one of layer `target`; None when it may."""
    if importer == target or target == ANYWHERE or importer == "tests":
        return None
    if target == "tests":
        return "tests are not part of what is shipped"
    if target == GUESTS:
        return None if importer in MAY_IMPORT_GUESTS else "only testing and cli know the guests"
    if importer in (ROOT_MODULE, ANYWHERE, GUESTS):
        return f"{importer} imports nothing of ours"
    if target not in STEP_OF or importer not in STEP_OF:
        return f"{target if target not in STEP_OF else importer} stands on no step of the house"
    if STEP_OF[target] >= STEP_OF[importer]:
        return f"{target} does not stand below {importer}"
    return None


def import_violations(source: str, tree: ast.Module) -> Iterator[str]:
    """One sentence for each import in `source` that goes the wrong way."""
    importer = layer(module_name(source))
    assert importer is not None
    for name in imported(tree):
        target = layer(name)
        if target is None:
            allowed = ONLY_IN.get(name.split(".")[0])
            if allowed is not None and importer not in allowed:
                yield f"{source} imports {name}: only {', '.join(sorted(allowed))} may"
        elif (why := layer_violation(importer, target)) is not None:
            yield f"{source} imports {name}: {why}"


def typing_only(tree: ast.Module) -> set[str]:
    """What the source imports under `if TYPE_CHECKING:`."""
    return {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
        for name in imported(ast.Module(body=node.body, type_ignores=[]))
    }


def host_reads(source: str, tree: ast.Module) -> Iterator[str]:
    """One sentence for each way in which `source` could see the host's clock, entropy or
    environment. A `random.Random(seed)` is repeatable and therefore allowed."""
    allowed = EXCEPTIONS.get(source, set())
    for name in imported(tree):
        head = name.split(".")[0]
        if head in HOST_MODULES - allowed:
            yield f"{source} imports {head}"
        if name.startswith("random.") and name != "random.Random":
            yield f"{source} takes {name}, which nobody seeded"
        if tuple(name.split(".")[:2]) in HOST_NAMES:
            yield f"{source} reads {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            if pair in HOST_NAMES or (pair[0] == "random" and pair[1] != "Random"):
                yield f"{source}:{node.lineno} reads {'.'.join(pair)}"
        if (
            isinstance(node, ast.Call)
            and not node.args
            and ast.unparse(node.func).endswith("Random")
        ):
            yield f"{source}:{node.lineno} makes a random generator without a seed"


def parse(source: str) -> ast.Module:
    return ast.parse((ROOT / source).read_text(encoding="utf-8"), source)


@pytest.mark.parametrize("source", SOURCES)
def test_imports_go_down_the_layers(source: str) -> None:
    tree = parse(source)
    skip = typing_only(tree) if layer(module_name(source)) == ANYWHERE else set()
    wrong = [line for line in import_violations(source, tree) if line.split()[2][:-1] not in skip]
    assert wrong == []


@pytest.mark.parametrize("source", [s for s in SOURCES if layer(module_name(s)) not in OUTSIDE])
def test_core_reads_neither_host_time_nor_entropy_nor_environment(source: str) -> None:
    assert list(host_reads(source, parse(source))) == []


@pytest.mark.parametrize(
    ("source", "text", "said"),
    [
        (
            "hypervisor/mm/frames.py",
            "from hypervisor.domain import image",
            "domain does not stand below mm",
        ),
        (
            "hypervisor/sched/bvt.py",
            "import hypervisor.traps.entry",
            "traps does not stand below sched",
        ),
        (
            "hypervisor/abi/xen.py",
            "from hypervisor import machine",
            "machine does not stand below abi",
        ),
        ("hypervisor/mm/frames.py", "import unicorn.x86_const", "only machine may"),
        ("hypervisor/vmm.py", "def f():\n    import rich", "only cli may"),
        ("hypervisor/domain/builder.py", "import guests", "only testing and cli know the guests"),
        (
            "hypervisor/api.py",
            "from tests.support import x",
            "tests are not part of what is shipped",
        ),
        ("hypervisor/misc/odd.py", "from hypervisor.abi import xen", "misc stands on no step"),
        ("hypervisor/__init__.py", "from hypervisor.api import Machine", "imports nothing of ours"),
    ],
)
def test_wrong_import_is_named(source: str, text: str, said: str) -> None:
    found = list(import_violations(source, ast.parse(text)))
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from time import monotonic",
        "import os\nos.environ['HOME']",
        "from os import urandom",
        "import random\nrandom.randrange(4)",
        "import random\nrandom.Random()",
    ],
)
def test_read_of_the_host_is_named(text: str) -> None:
    assert list(host_reads("hypervisor/vmm.py", ast.parse(text))) != []


@pytest.mark.parametrize("text", ["import random\nrandom.Random(7)", "import os\nos.getpid"])
def test_repeatable_use_is_allowed(text: str) -> None:
    assert list(host_reads("hypervisor/vmm.py", ast.parse(text))) == []


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout
    return [ROOT / name for name in listing.decode().split("\0") if name]


def test_no_file_names_a_package_registry() -> None:
    """The project installs through the user's own pip and apt settings, wherever they point."""
    # spelled in two halves, so that this file passes its own test
    hosts = [b"pypi" + b".org", b"python" + b"hosted", b"deb." + b"debian.org", b"npmjs" + b".org"]
    files = tracked_files()
    if not files:
        pytest.skip("not a git work tree")
    naming = [
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and any(host in path.read_bytes() for host in hosts)
    ]
    assert naming == []
