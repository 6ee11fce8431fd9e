r"""Two answer trees: are they the same answer, and is one of them still work to be done?

The rules that are conventions, each decided once:

- `50\%` is 1/2; a bare 50 is not.
- A unit may be left out, and may be written only where the truth has the same one; nothing is converted. The exception
  is a currency sign, which may stand before a bare truth: `\$5` is 5. A degree is a unit, so 90 may stand for
  `90^\circ`, and `\pi/2` may not.
- A set, and a list without brackets, has no order and no brackets to get right; a tuple and an interval have both.
- `x=5` (also `AB=5`, `f(x)=5`, `(x,y)=(1,5)`) may be answered by 5 or by `x=5`; 5 may not be answered by `x=5`. An
  equation in solved form is compared side by side, so that the question's equation is no answer; any other equation up
  to a constant factor.
- An interval, or a union of them, may be answered by `x \in` it and by the inequality that says the same, and the other
  way round.
- A based number (`101_2`) is its digits: 5 is no answer to it, nor it to 5.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from rewards.math.answer import CURRENCIES
from rewards.math.form import check, proportional, rational, same
from rewards.math.tree import MAX_SCIENTIFIC_EXPONENT, Node, number

Same = Callable[[Node, Node], bool | None]
STRUCTURES = frozenset({"group", "union", "matrix", "row", "relation", "measure", "percent", "based", "word"})
_UNORDERED = frozenset({"", "{}"})
_MIRROR = {">": "<", ">=": "<="}
_INTERVAL_SIGNS = frozenset({"<", "<="})
_FUNCTION_NAMES = frozenset("fghpqtvwFGHPQTVWS")
CONSTANT_NAMES = frozenset({"pi", "e", "i", "oo"})


def compare(gold: Node, given: Node, decide: Same = same) -> bool | None:
    """Whether `given` is the answer `gold`; `decide` compares two scalars. None where a scalar stays undecided."""
    if gold.kind == "measure" or given.kind == "measure":
        return _compare_measures(gold, given, decide)
    if gold.kind == "percent":
        gold = Node("div", (gold.items[0], number(100)))
    if given.kind == "percent":
        given = Node("div", (given.items[0], number(100)))
    if gold.kind != given.kind and {gold.kind, given.kind} & {"relation", "union"}:
        gold, given = as_set(gold) or gold, as_set(given) or given
    if gold.kind == "relation":
        return _compare_relations(gold, given, decide)
    if gold.kind not in STRUCTURES and given.kind not in STRUCTURES:
        return decide(gold, given)
    if gold.kind != given.kind:
        return False
    if gold.kind == "group" and gold.text in _UNORDERED and given.text in _UNORDERED:
        return _same_items(gold, given, decide)
    if gold.kind == "union":
        return _same_items(gold, given, decide)
    if gold.text != given.text or len(gold.items) != len(given.items):
        return False
    return _all(compare(one, two, decide) for one, two in zip(gold.items, given.items, strict=True))


def _all(opinions: object) -> bool | None:
    undecided = False
    for opinion in opinions:  # type: ignore[attr-defined]
        if opinion is False:
            return False
        undecided = undecided or opinion is None
    return None if undecided else True


def _compare_measures(gold: Node, given: Node, decide: Same) -> bool | None:
    if given.kind != "measure":
        return compare(gold.items[0], given, decide)
    if gold.kind != "measure":
        return given.text in CURRENCIES and compare(gold, given.items[0], decide)
    return gold.text == given.text and compare(gold.items[0], given.items[0], decide)


def _same_items(gold: Node, given: Node, decide: Same) -> bool | None:
    """Without order; with a set on either side also without repetitions."""
    as_set = "{}" in (gold.text, given.text)
    if not as_set and len(gold.items) != len(given.items):
        return False
    left = list(given.items)
    undecided = False
    for item in gold.items:
        opinions = [compare(item, other, decide) for other in (given.items if as_set else left)]
        if True in opinions:
            if not as_set:
                left.pop(opinions.index(True))
        elif None in opinions:
            undecided = True
        else:
            return False
    if as_set:
        for other in given.items:
            opinions = [compare(item, other, decide) for item in gold.items]
            if True not in opinions:
                if None not in opinions:
                    return False
                undecided = True
    return None if undecided else True


def _compare_relations(gold: Node, given: Node, decide: Same) -> bool | None:
    if given.kind != "relation":
        assigns = gold.text == "=" and _is_name(gold.items[0])
        return assigns and compare(gold.items[1], given, decide)
    (one_sides, one_signs), (two_sides, two_signs) = _oriented(gold), _oriented(given)
    if one_signs != two_signs:
        return False
    straight = _all(compare(a, b, decide) for a, b in zip(one_sides, two_sides, strict=True))
    if straight is True or one_signs != ["="]:
        return straight
    turned = _all(compare(a, b, decide) for a, b in zip(one_sides, reversed(two_sides), strict=True))
    scalars = all(side.kind not in STRUCTURES for side in (*one_sides, *two_sides))
    if turned is True or not scalars or any(side.kind == "symbol" for side in one_sides):
        return turned if turned is True or straight is False else straight
    return proportional((one_sides[0], one_sides[1]), (two_sides[0], two_sides[1]))


def _is_name(node: Node) -> bool:
    """`x`, `AB`, `f(x)`, `f(3)`, `|AB|`, `(x, y)`: what an answer gives a value to. A curve such as `xy=6` is none."""
    if node.kind == "group":
        return bool(node.items) and all(item.kind == "symbol" for item in node.items)
    if node.kind == "call" and node.text == "abs":
        return _is_name(node.items[0])
    if node.kind != "mul":
        return node.kind == "symbol"
    first, *rest = node.items
    function = len(rest) == 1 and first.text in _FUNCTION_NAMES and rest[0].kind in ("symbol", "number")
    return function or all(item.kind == "symbol" and item.text.isupper() for item in node.items)


def as_set(relation: Node) -> Node | None:
    """The interval or union that a relation, or several with "or" between them, says its one symbol lies in; None where
    it says something else."""
    if relation.kind == "group" and relation.text == "" and relation.items:
        parts = [as_set(item) for item in relation.items]
        found = [part for part in parts if part is not None]
        return Node("union", tuple(found)) if len(found) == len(parts) else None
    if relation.kind != "relation":
        return None
    sides, signs = _oriented(relation)
    if signs == ["in"] and sides[0].kind == "symbol" and sides[1].kind in ("group", "union"):
        return sides[1]
    bounds = [side for side in sides if side.kind != "symbol" or side.text in CONSTANT_NAMES]
    if not set(signs) <= _INTERVAL_SIGNS or len(bounds) != len(sides) - 1 or any(map(symbols, bounds)):
        return None
    infinity = Node("symbol", text="oo")
    if len(sides) == 3 and sides[1] not in bounds:
        low, high, (left, right) = sides[0], sides[2], signs
    elif len(sides) == 2:
        above = sides[1] not in bounds
        low, left = (sides[0], signs[0]) if above else (Node("neg", (infinity,)), "<")
        high, right = (infinity, "<") if above else (sides[1], signs[0])
    else:
        return None
    return Node("group", (low, high), ("[" if left == "<=" else "(") + ("]" if right == "<=" else ")"))


def _oriented(relation: Node) -> tuple[list[Node], list[str]]:
    """Sides and signs with every > turned into a <, where no < stands beside it."""
    sides, signs = list(relation.items), relation.text.split()
    if signs and all(sign in _MIRROR for sign in signs):
        return sides[::-1], [_MIRROR[sign] for sign in reversed(signs)]
    return sides, signs


def leaves(node: Node) -> list[Node]:
    """The scalars of an answer."""
    if node.kind in STRUCTURES:
        return [leaf for item in node.items for leaf in leaves(item)]
    return [node]


def check_scalars(node: Node) -> None:
    """Raises `NotUnderstood` or `TooLarge` where a scalar of the answer has no value within the bounds."""
    for leaf in leaves(node):
        check(leaf)


def symbols(node: Node) -> frozenset[str]:
    """The symbols in a tree that are no constants."""
    found = {node.text} if node.kind == "symbol" and node.text not in CONSTANT_NAMES else set()
    return frozenset(found.union(*(symbols(item) for item in node.items)))


def unevaluated(gold: Node, given: Node) -> frozenset[str]:
    """What `given` leaves undone that the truth has done, in scalars without symbols: "form" where the truth is a plain
    value (`3+4`, `14/2`, `2^3`, `\\sqrt{49}` for 7), else the kinds of `arithmetic` that the truth does without."""
    one, two = _constants(gold), _constants(given)
    if one and all(map(_is_value, one)):
        return frozenset() if all(map(_is_value, two)) else frozenset({"form"})
    done = frozenset().union(*map(arithmetic, one)) if one else frozenset()
    return frozenset().union(*map(arithmetic, two)) - done if one and two else frozenset()


def carried_out(node: Node) -> bool:
    """Whether every scalar is a value or a bare symbol."""
    return all(leaf.kind == "symbol" or _is_value(leaf) for leaf in leaves(node))


def _constants(node: Node) -> list[Node]:
    return [leaf for leaf in leaves(node) if not symbols(leaf)]


def _is_value(node: Node) -> bool:
    """An integer, a decimal, a reduced fraction, a mixed or a scientific number, infinity, with a sign or without."""
    node = node.items[0] if node.kind == "neg" else node
    if node.kind == "div":
        return _is_reduced(*node.items)
    if node.kind == "mul":
        return _is_scientific(node)
    return node.kind in ("number", "mixed") or node == Node("symbol", text="oo")


def _integer(node: Node) -> int | None:
    sign = -1 if node.kind == "neg" else 1
    node = node.items[0] if node.kind == "neg" else node
    return sign * int(node.value) if node.kind == "number" and node.value.denominator == 1 else None


def _is_reduced(top: Node, bottom: Node) -> bool:
    first, second = _integer(top), _integer(bottom)
    if first is None or not second:
        return False
    value = Fraction(first, second)
    return value.denominator == abs(second) and value.denominator != 1


def _is_scientific(node: Node) -> bool:
    if len(node.items) != 2 or node.items[0].kind != "number" or node.items[1].kind != "pow":
        return False
    base, exponent = node.items[1].items
    whole = _integer(exponent)
    small = whole is not None and abs(whole) <= MAX_SCIENTIFIC_EXPONENT
    return small and 1 <= node.items[0].value < 10 and base == number(10)


def arithmetic(node: Node) -> frozenset[str]:
    """Which operations on plain rational numbers a tree leaves undone: "sum", "product", "quotient", "power", "root".
    """
    found = frozenset().union(*(arithmetic(item) for item in node.items)) if node.items else frozenset()
    if node.kind in ("add", "mul"):
        constants = [item for item in node.items if _is_plain(item)]
        if len(constants) > 1 and not (node.kind == "mul" and _is_scientific(node)):
            found |= {"sum" if node.kind == "add" else "product"}
        elif node.kind == "mul" and _is_scientific(node):
            return frozenset()
    elif node.kind == "div" and all(_is_plain(item) for item in node.items) and not _is_reduced(*node.items):
        found |= {"quotient"}
    elif node.kind == "pow" and all(_is_plain(item) for item in node.items) and rational(node) is not None:
        found |= {"power"}
    elif node.kind == "root" and rational(node) is not None:
        found |= {"root"}
    return found


def _is_plain(node: Node) -> bool:
    """Numbers and operations on numbers only."""
    return node.kind not in ("symbol", "root", "call") and all(_is_plain(item) for item in node.items)


