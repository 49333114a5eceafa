"""Changing what was interesting once: other values, other order, parts of something else."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.fuzz.actions import Action, Block, Term
from tests.fuzz.grammar import Grammar

Sequence = tuple[Action, ...]
_LONGEST = 14


def mutated(found: Sequence, other: Sequence, grammar: Grammar, dice: random.Random) -> Sequence:
    """A variation of `found`, perhaps with a part of `other`."""
    actions = list(found)
    for _ in range(dice.choice((1, 1, 2, 3))):
        at = dice.randrange(len(actions))
        match dice.randrange(8):
            case 0:
                cut = dice.randrange(len(other))
                actions[at:] = [actions[at], *other[cut:]]
            case 1:
                actions.insert(at, dice.choice(actions))
            case 2 if len(actions) > 1:
                del actions[at]
            case 3:
                actions[at:at] = grammar.actions()
            case _:
                actions[at] = _other_values(actions[at], grammar, dice)
    return tuple(actions[:_LONGEST])


def _other_values(action: Action, grammar: Grammar, dice: random.Random) -> Action:
    blocks = [idx for idx, block in enumerate(action.blocks) if block.items]
    if action.args and (not blocks or dice.random() < 0.4):
        args = list(action.args)
        at = dice.randrange(len(args))
        args[at] = _other_value(args[at], grammar, dice)
        return replace(action, args=tuple(args))
    if not blocks:
        return action
    changed = list(action.blocks)
    which = dice.choice(blocks)
    changed[which] = _other_items(changed[which], grammar, dice)
    return replace(action, blocks=tuple(changed))


def _other_items(block: Block, grammar: Grammar, dice: random.Random) -> Block:
    items = list(block.items)
    at = dice.randrange(len(items))
    size, term = items[at]
    items[at] = (size, _other_value(term, grammar, dice))
    return replace(block, items=tuple(items))


def _other_value(term: Term, grammar: Grammar, dice: random.Random) -> Term:
    match dice.randrange(6):
        case 0:
            return replace(term, index=dice.randrange(24))
        case 1:
            return replace(term, plus=max(0, term.plus + dice.choice((-8, -4, -1, 1, 4, 8))))
        case 2:
            return replace(term, plus=term.plus ^ 1 << dice.randrange(12))
        case 3:
            return replace(term, pool=grammar.frame().pool)
        case 4:
            return grammar.entry()
        case _:
            return grammar.anything()
