"""What was seen of a domain's memory, as lines for a person; 80 columns are enough."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from hypervisor.debug.frame_uses import FrameReport, FrameView, Use
from hypervisor.debug.inspection import LevelView, P2mRow, TableView, WalkView

COLUMNS_MIN: Final = 60
COLUMNS_MAX: Final = 120
USES_SHOWN: Final = 4  # of each frame of a walk; `frame` shows all
ROWS_SHOWN: Final = 20  # of what may be thousands
ADDRESSES_SHOWN: Final = 2
LONG_LEVELS: Final = 4


def columns() -> int:
    """How wide a line may be."""
    return min(max(shutil.get_terminal_size().columns, COLUMNS_MIN), COLUMNS_MAX)


def wrapped(text: str, first: str, rest: str | None = None) -> list[str]:
    """`text` in lines that begin with `first`, and `rest` from the second on."""
    indent = " " * len(first) if rest is None else rest
    return textwrap.wrap(
        text, columns(), initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )


def counted(count: int, noun: str) -> str:
    """1 frame, 2 frames."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --- walks ------------------------------------------------------------------------------------
def walk_lines(walk: WalkView, symbol: str | None, frames: Iterable[FrameReport]) -> Iterator[str]:
    """Every level's entry, where it leads, and why each frame on the way is what it is."""
    digits = 16 if walk.levels[0].level == LONG_LEVELS else 8
    name = f" {symbol}" if symbol else ""
    whose = "user" if walk.is_user else "kernel"
    yield f"{walk.vaddr:#0{digits + 2}x}{name}, by the {whose} tables of {walk.vcpu}"
    for level in walk.levels:
        yield from level_lines(level)
    yield from wrapped(verdict(walk), "=> ")
    if walk.region is not None:
        yield from wrapped(
            f"Xen's part of every address space, which nobody can change and no entry into Xen "
            f"has to flush: {walk.region}",
            "   ",
        )
    for report in frames:
        yield ""
        yield from frame_lines(report, most=USES_SHOWN)


def level_lines(level: LevelView) -> list[str]:
    """One entry; a slot of Xen's is marked."""
    mark = "  (Xen's slot)" if level.is_xens else ""
    where = f"L{level.level} mfn {level.table.mfn:#x} [{level.slot:#x}]"
    flags = " ".join(level.flags) if level.names or level.entry else "empty"
    if level.entry and not level.entry & 1:
        flags = f"not present ({flags})" if flags else "not present"
    return wrapped(f"{flags}{mark}", f"{where:24} {level.entry:016x}  ")


def verdict(walk: WalkView) -> str:
    """Where the walk ended, as a sentence."""
    if walk.maddr is None:
        last = walk.levels[-1]
        if last.entry & 1:
            return f"L{last.level} names a frame beyond the machine's memory"
        return f"not mapped: the L{last.level} entry is not present, so an access is a page fault"
    rights = ["read"]
    rights += ["written"] if walk.writable else []
    rights += ["executed"] if walk.executable else []
    return f"maddr {walk.maddr:#x}, which may be {listed(rights)} by {_whom(walk)}"


def _whom(walk: WalkView) -> str:
    if walk.is_user:
        return "user mode" if walk.user else "nobody in user mode"
    if walk.levels[0].level == LONG_LEVELS and walk.region is None:
        return "the kernel (in ring 3, so US is set for it; user mode has other tables)"
    return "the kernel and user mode" if walk.user else "the kernel only"


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# --- frames -----------------------------------------------------------------------------------
def frame_line(frame: FrameView) -> str:
    """A row of the frame table."""
    pfn = "" if frame.pfn is None else f" (pfn {frame.pfn:#x})"
    marks = [word for word, is_so in _marks(frame) if is_so]
    counts = f"{frame.type} x{frame.type_count}, {counted(frame.ref_count, 'reference')}"
    return ", ".join([f"mfn {frame.mfn:#x} of {frame.owner}{pfn}: {counts}", *marks])


def _marks(frame: FrameView) -> tuple[tuple[str, bool], ...]:
    return (("pinned", frame.pinned), ("validated", frame.validated))


def frame_lines(report: FrameReport, most: int | None = None) -> Iterator[str]:
    """A frame, what that means, and its uses, those that hold a type first; `most` of them."""
    yield frame_line(report.frame)
    yield from wrapped(report.meaning, "  ")
    uses = sorted(report.uses, key=lambda use: -use.types)
    if uses:
        yield "  refs types"
    for use in uses[:most]:
        yield from use_lines(use)
    if (left := len(uses) - len(uses[:most])) > 0:
        yield f"              and {left} more: frame {report.frame.mfn:#x}"
    if not report.adds_up:
        found = (sum(use.references for use in uses), sum(use.types for use in uses))
        yield f"  these are {found[0]} and {found[1]}: the counts are WRONG, a bug of ring1's"


def use_lines(use: Use) -> list[str]:
    """What a use takes, and why."""
    shown = ", ".join(f"{vaddr:#x}" for vaddr in use.vaddrs[:ADDRESSES_SHOWN])
    more = len(use.vaddrs) - ADDRESSES_SHOWN
    where = f", at {shown}" + (f" and {more} more" if more > 0 else "") if shown else ""
    return wrapped(f"{use.why}{where}", f"  {use.references:>4} {use.types:>5}  ")


def summary_lines(name: str, frames: Sequence[FrameView]) -> Iterator[str]:
    """How many frames of each type there are."""
    yield f"{name} owns {counted(len(frames), 'frame')}"
    yield f"  {'type':10}{'frames':>8}{'in use':>8}{'pinned':>8}{'validated':>11}"
    by_type = Counter(frame.type for frame in frames)
    for kind, count in by_type.most_common():
        of_kind = [frame for frame in frames if frame.type == kind]
        in_use = sum(frame.type_count > 0 for frame in of_kind)
        pinned = sum(frame.pinned for frame in of_kind)
        validated = sum(frame.validated for frame in of_kind)
        yield f"  {kind:10}{count:>8}{in_use:>8}{pinned:>8}{validated:>11}"
    yield "  (a frame that is not in use keeps the type of its last use)"


def table_lines(name: str, tables: Sequence[TableView]) -> Iterator[str]:
    """Every page table, the top level first."""
    yield f"{name} has {counted(len(tables), 'page table')}"
    yield f"  {'type':8}{'mfn':>10}{'pfn':>10}{'types':>7}{'refs':>6}{'present':>9}  from"
    for table in tables:
        frame = table.frame
        pfn = "" if frame.pfn is None else f"{frame.pfn:#x}"
        mark = "  pinned" if frame.pinned else ""
        vaddrs = ", ".join(f"{vaddr:#x}" for vaddr in table.vaddrs[:ADDRESSES_SHOWN])
        more = "" if len(table.vaddrs) <= ADDRESSES_SHOWN else ", ..."
        counts = f"{frame.type_count:>7}{frame.ref_count:>6}{table.present:>9}"
        yield f"  {frame.type:8}{frame.mfn:>#10x}{pfn:>10}{counts}  {vaddrs or '-'}{more}{mark}"


def p2m_lines(rows: Sequence[P2mRow], *, is_list: bool) -> Iterator[str]:
    """Each row, or with `is_list` those in which the list and the machine disagree."""
    wrong = [row for row in rows if row.problem]
    for row in wrong[:ROWS_SHOWN] if is_list else rows:
        m2p = "none" if row.m2p is None else f"{row.m2p:#x}"
        line = f"pfn {row.pfn:#x} -> mfn {row.mfn:#x} of {row.owner}; M2P {m2p}"
        yield f"{line}: {row.problem}" if row.problem else f"{line}: they agree"
    if is_list and len(wrong) > ROWS_SHOWN:
        yield f"and {len(wrong) - ROWS_SHOWN} more that disagree"
    if is_list:
        yield (
            f"{counted(len(rows), 'pfn')} at the start of day: {len(rows) - len(wrong)} agree "
            f"with the M2P, {len(wrong)} do not"
        )
