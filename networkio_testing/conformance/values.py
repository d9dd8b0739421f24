"""The values that stand in a script: numbers, texts, bytes, lists, maps, and names of what was seen before.

Theory of operation
-------------------
A value is written as ``12``, ``2**63-1``, ``"text"``, ``nil``, ``true``, ``[1, 2]``, ``{"key": 1}``, ``hex("00 ff")``,
``fill(0x41, 16)``, or as a name: ``attach.outbox`` is a field of the last ATTACH that came, ``$x`` what was bound to
``x``.  That is a part of Python's own syntax, so Python's parser reads it; what is not in this part is refused, and
nothing is ever executed.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from .codec import CODES, FLAGS, PREAMBLE, Absent, pack_value

__all__ = ["Condition", "ScriptError", "condition", "evaluate", "split"]


class ScriptError(Exception):
    """A script cannot be understood."""


def _hex(text: str) -> bytes:
    return bytes.fromhex(text)


def _fill(value: int, count: int) -> bytes:
    return bytes([value]) * count


def _long(text: str, count: int) -> str:
    return text * count


def _holds(outbox: Any, received: int, read: int, /, **changes: Any) -> dict[str, Any]:
    """What an ATTACH says of an inbox; of the outbox that another ATTACH stated, or the sequences of another."""
    facts = {
        "outbox": outbox["outbox"], "run": outbox["run"], "received": received, "read": read,
        "first": outbox.get("first", 1),
    }  # fmt: skip
    return {**facts, **changes}


def _many(item: Any, count: int) -> list[Any]:
    return [item] * count


def _keys(count: int) -> dict[str, Any]:
    return {f"k{number:02d}": number for number in range(count)}


def _nested(depth: int) -> Any:
    """An array in an array ... so many levels deep."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "hex": _hex, "fill": _fill, "repeat": _long, "holds": _holds, "many": _many, "keys": _keys, "nested": _nested,
    "len": len, "packed": pack_value,
}  # fmt: skip

_CONSTANTS: dict[str, Any] = {
    "nil": None, "true": True, "false": False, "absent": Absent, "MAX": 2**63 - 1, "PREAMBLE": PREAMBLE, **CODES,
    **FLAGS,
}  # fmt: skip

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Pow: operator.pow,
    ast.BitOr: operator.or_, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value that ``text`` stands for.  Raises ScriptError."""
    try:
        tree = ast.parse(text.replace("$", "bound_").strip(), mode="eval")
        return _value(tree.body, names)
    except ScriptError:
        raise
    except Exception as error:
        raise ScriptError(f"{text!r} is no value: {error}") from error


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            if name in names:
                return names[name]
            if name in _CONSTANTS:
                return _CONSTANTS[name]
            raise ScriptError(f"nothing is called {name.replace('bound_', '$')} here")
        case ast.Attribute(value=inner, attr=key):
            return _value(inner, names)[key]
        case ast.Subscript(value=inner, slice=index):
            return _value(inner, names)[_value(index, names)]
        case ast.List(elts=items):
            return [_value(item, names) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {
                _value(key, names): _value(item, names)
                for key, item in zip(keys, values, strict=True)
                if key is not None
            }
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, names), _value(right, names))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, names), _value(right, names))
        case ast.BoolOp(op=ast.Or(), values=values):
            return any(_value(item, names) for item in values)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in _FUNCTIONS:
            options = {item.arg: _value(item.value, names) for item in keywords if item.arg is not None}
            return _FUNCTIONS[name](*(_value(item, names) for item in args), **options)
        case _:
            raise ScriptError(f"{ast.unparse(node)} is not in the language")


def split(text: str) -> list[str]:
    """The words of a line: apart by spaces outside of quotes and brackets."""
    words, word, depth, quoted = [], "", 0, False
    for letter in text:
        if letter == '"':
            quoted = not quoted
        elif not quoted:
            depth += (letter in "([{") - (letter in ")]}")
            if letter.isspace() and not depth:
                words += [word] if word else []
                word = ""
                continue
        word += letter
    if quoted or depth:
        raise ScriptError(f"a quote or bracket is left open: {text}")
    return words + ([word] if word else [])


_CONDITION = re.compile(r"([A-Za-z_.0-9]+?)(<=|>=|!=|=|<|>)(.*)\Z", re.S)
_COMPARE = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip


class Condition:
    """What a field of an expected frame must be: ``key=value``, with a dot into maps and lists."""

    def __init__(self, path: str, compare: str, text: str) -> None:
        self.path, self.compare, self.text = path, compare, text

    def __str__(self) -> str:
        return f"{self.path}{self.compare}{self.text}"

    def holds(self, fields: Mapping[str, Any], names: dict[str, Any]) -> bool:
        """Does it?  ``field=$name`` binds a name that is not bound yet."""
        found: Any = fields
        for step in self.path.split("."):
            if isinstance(found, list) and step.isdigit() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, Mapping) and step in found:
                found = found[step]
            else:
                return self.compare == "=" and self.text == "absent"
        if self.text.startswith("$") and self.text[1:].isidentifier() and f"bound_{self.text[1:]}" not in names:
            names[f"bound_{self.text[1:]}"] = found
            return True
        wanted = evaluate(self.text, names)
        if type(found) is bool or type(wanted) is bool:
            return _COMPARE[self.compare](found is True, wanted is True) and type(found) is type(wanted)
        if self.compare in ("=", "!="):
            return bool(_COMPARE[self.compare](found, wanted))
        return found is not None and bool(_COMPARE[self.compare](found, wanted))


def condition(word: str) -> Condition:
    """The condition that a word of a script states.  Raises ScriptError."""
    found = _CONDITION.match(word)
    if not found:
        raise ScriptError(f"{word!r} is not key=value")
    return Condition(*found.groups())
