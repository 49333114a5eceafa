"""`--expect` and `--send` interleave in the order typed, which click alone forgets."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from cli.ordered import OrderedCommand, in_order


@click.command(cls=OrderedCommand)
@click.argument("kernel")
@click.option("--expect", "expects", multiple=True)
@click.option("--send", "sends", multiple=True)
@click.option("--memory", default=1)
@click.pass_context
def echo(
    ctx: click.Context,
    kernel: str,
    expects: tuple[str, ...],
    sends: tuple[str, ...],
    memory: int,
) -> None:
    for name, value in in_order(ctx, {"expects": expects, "sends": sends}):
        click.echo(f"{name[0]}:{value}")


def ordered(*args: str) -> str:
    result = CliRunner().invoke(echo, list(args))
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_order_between_different_options_is_kept() -> None:
    args = ["--send", "1", "--expect", "2", "--expect", "3", "--send", "4", "--expect", "5"]
    assert ordered("k", *args) == "s:1 e:2 e:3 s:4 e:5"


def test_other_options_and_the_argument_may_stand_between() -> None:
    assert ordered("--expect", "1", "k", "--memory", "3", "--send=2") == "e:1 s:2"


def test_same_text_may_be_given_to_both() -> None:
    assert ordered("k", "--send", "x", "--expect", "x", "--send", "x") == "s:x e:x s:x"


def test_none_given_is_an_empty_script() -> None:
    assert ordered("k") == ""


@pytest.mark.parametrize("args", [["k", "--expect"], ["k", "--nonsense"], []])
def test_usage_error_is_still_clicks_own(args: list[str]) -> None:
    result = CliRunner().invoke(echo, args)
    assert result.exit_code == 2
    assert "Error: " in result.output
