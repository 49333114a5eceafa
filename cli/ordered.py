"""Options whose order among each other matters.

click hands over each repeated option as a list of its own, so `--expect a --send b --expect c`
arrives as two lists and the interleaving is lost. The parser does know it: `parse_args` returns the
parameters in the order in which they were given, one entry for each occurrence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

ORDER: Final = f"{__name__}.order"


class OrderedCommand(click.Command):
    """A command that remembers in which order its options were given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[ORDER] = [param.name for param in order]
        return super().parse_args(ctx, args)


def in_order(ctx: click.Context, values: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """(option, value) for all occurrences of the options in `values`, as they were typed."""
    rest = {name: iter(given) for name, given in values.items()}
    for name in ctx.meta[ORDER]:
        if name in rest:
            yield name, next(rest[name])
