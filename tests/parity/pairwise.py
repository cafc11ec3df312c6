"""Rows of options in which every two options meet.

A factor is one option with its levels; a row gives every factor a level. `rows` picks rows greedily (AETG) until each
pair of levels that the rules allow stands together in one of them. A rule forbids what cannot be, and what would hide
an option. One seed, one list.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Row = dict[str, Any]  # factor -> level
Item = tuple[str, Any]  # one factor's level
Pairs = dict[Item, set[Item]]  # which items stand together; each pair is in it both ways


@dataclass(frozen=True)
class Rule:
    """Allowed levels of a few factors together."""

    factors: tuple[str, ...]
    holds: Callable[..., bool]

    def allows(self, row: Row) -> bool:
        return self.holds(*(row[f] for f in self.factors))


@dataclass(frozen=True)
class Space:
    """Factors, base level first, and the rules between them."""

    name: str
    factors: dict[str, tuple]
    rules: tuple[Rule, ...]

    @cached_property
    def ruled(self) -> set[str]:
        return {factor for rule in self.rules for factor in rule.factors}

    @cached_property
    def base(self) -> Row:
        return {factor: levels[0] for factor, levels in self.factors.items()}

    def completes(self, row: Row) -> bool:
        """Whether the factors that have no level yet can be given one: base levels, but where a rule wants others."""
        filled = self.base | row
        broken = next((rule for rule in self.rules if not rule.allows(filled)), None)
        if broken is None:
            return True
        missing = next((f for f in broken.factors if f not in row), None)
        return missing is not None and any(self.completes(row | {missing: level}) for level in self.factors[missing])


def count(pairs: Pairs) -> int:
    return sum(map(len, pairs.values())) // 2


def all_pairs(space: Space) -> Pairs:
    """Every pair of levels that some row of the space can hold."""
    items = [(factor, level) for factor, levels in space.factors.items() for level in levels]
    pairs: Pairs = {item: set() for item in items}
    for a, b in itertools.combinations(items, 2):
        if a[0] != b[0] and space.completes(dict((a, b))):
            pairs[a].add(b)
            pairs[b].add(a)
    return pairs


def pairs_of(space: Space, chosen: list[Row]) -> Pairs:
    pairs: Pairs = {(factor, level): set() for factor, levels in space.factors.items() for level in levels}
    for row in chosen:
        for item in row.items():
            pairs[item] |= row.items() - {item}
    return pairs


def new_pairs(row: Row, wanted: Pairs) -> int:
    return sum(len(wanted[item] & row.items()) for item in row.items()) // 2


def extend(space: Space, row: Row, wanted: Pairs, rng: random.Random) -> Row:
    """Gives each factor without a level the one that covers most of `wanted`; ruled factors first, looking ahead."""
    missing = [f for f in space.factors if f not in row]
    rng.shuffle(missing)
    missing.sort(key=lambda f: f not in space.ruled)
    for factor in missing:
        levels = list(space.factors[factor])
        rng.shuffle(levels)
        levels.sort(key=lambda level: -len(wanted[factor, level] & row.items()))
        row = row | {factor: next(v for v in levels if factor not in space.ruled or space.completes(row | {factor: v}))}
    return row


def rows(space: Space, seed: int = 0, tries: int = 10) -> list[Row]:
    """The base levels, then the best of `tries` rows, each begun at a pair not yet covered, until none is left."""
    rng = random.Random(seed)
    wanted = all_pairs(space)
    chosen: list[Row] = []
    best = space.base
    while True:
        chosen.append(best)
        for item in best.items():
            wanted[item] -= best.items()
        open_pairs = [(item, other) for item, others in wanted.items() for other in sorted(others, key=repr)]
        if not open_pairs:
            return chosen
        starts = [dict(rng.choice(open_pairs)) for _ in range(tries)]
        best = max((extend(space, start, wanted, rng) for start in starts), key=lambda row: new_pairs(row, wanted))
