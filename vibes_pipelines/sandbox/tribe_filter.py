"""`$filter` of Tribe's OData: read, checked against the fields, and asked of a record.

Operators `eq ne gt ge lt le and or not` and the functions `contains startswith endswith`, which do
not mind case (Tribe documentation, OData). Whatever else a filter holds is refused.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from vibes_pipelines.sandbox.tribe_schema import ENTITIES

Record = Mapping[str, Any]
Test = Callable[[Record], bool]
Value = Callable[[Record], Any]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')"
    r"|(?P<moment>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?)(?![\w-])"
    r"|(?P<guid>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"
    r"|(?P<number>-?\d+(?:\.\d+)?)(?![\w-])"
    r"|(?P<word>[A-Za-z_][\w/]*)"
    r"|(?P<mark>[(),]))"
)
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: bool(left == right),
    "ne": lambda left, right: bool(left != right),
    "gt": lambda left, right: left is not None and left > right,
    "ge": lambda left, right: left is not None and left >= right,
    "lt": lambda left, right: left is not None and left < right,
    "le": lambda left, right: left is not None and left <= right,
}
_FUNCTIONS: Mapping[str, Callable[[str, str], bool]] = {
    "contains": lambda whole, part: part in whole,
    "startswith": str.startswith,
    "endswith": str.endswith,
}
_CONSTANTS: Mapping[str, Any] = {"null": None, "true": True, "false": False}
_LITERALS: Mapping[str, frozenset[str]] = {
    "Edm.String": frozenset({"text"}),
    "Edm.Guid": frozenset({"guid"}),
    "Edm.Double": frozenset({"number"}),
    "Edm.Boolean": frozenset({"boolean"}),
    "Edm.Date": frozenset({"date"}),
    "Edm.DateTimeOffset": frozenset({"moment"}),
}


class FilterError(ValueError):
    """A filter that Tribe does not take."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class _Literal:
    kind: str
    value: Any


def read_filter(text: str, entity: str) -> Test:
    """The test that a filter means; raises FilterError."""
    parser = _Parser(_tokens(text), entity)
    test = parser.either()
    if parser.peek() is not None:
        raise FilterError(f"nothing was expected at {parser.peek()!r}")
    return test


def value_of(path: str, entity: str) -> tuple[Value, str]:
    """How a field is read, `Address/City` through what is referred to, and its type."""
    *heads, last = path.split("/")
    for head in heads:
        links = ENTITIES[entity].links
        if head not in links or head in ENTITIES[entity].many:
            raise FilterError(f"there is no way from {entity} by {head!r}")
        entity = links[head]
    if last not in ENTITIES[entity].fields:
        raise FilterError(f"{entity} has no property {last!r}")

    def read(record: Record) -> Any:
        found: Any = record
        for name in (*heads, last):
            found = None if found is None else found.get(name)
        return found

    return read, ENTITIES[entity].fields[last]


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        found = _TOKEN.match(text, position)
        if found is None or found.lastgroup is None:
            raise FilterError(f"cannot be read from position {position}")
        tokens.append(_Token(found.lastgroup, found[found.lastgroup]))
        position = found.end()
    return tokens


class _Parser:
    """Reads the tokens of one filter from left to right."""

    def __init__(self, tokens: list[_Token], entity: str) -> None:
        self._tokens = tokens
        self._entity = entity
        self._at = 0

    def peek(self) -> str | None:
        return self._tokens[self._at].text if self._at < len(self._tokens) else None

    def either(self) -> Test:
        tests = [self._both()]
        while self.peek() == "or":
            self._at += 1
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda record: any(t(record) for t in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self.peek() == "and":
            self._at += 1
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda record: all(t(record) for t in tests)

    def _one(self) -> Test:
        match self.peek():
            case "not":
                self._at += 1
                test = self._one()
                return lambda record: not test(record)
            case "(":
                self._at += 1
                inner = self.either()
                self._take(")")
                return inner
            case str(function) if function in _FUNCTIONS:
                return self._function(function)
            case _:
                return self._comparison()

    def _function(self, name: str) -> Test:
        self._at += 1
        self._take("(")
        read, edm = value_of(self._word(), self._entity)
        self._take(",")
        literal = self._literal()
        self._take(")")
        if edm != "Edm.String" or literal.kind != "text":
            raise FilterError(f"{name} takes a text property and a text")
        function, part = _FUNCTIONS[name], literal.value.lower()
        return lambda record: function((read(record) or "").lower(), part)

    def _comparison(self) -> Test:
        read, edm = value_of(self._word(), self._entity)
        operator = self._word()
        if operator not in _COMPARISONS:
            raise FilterError(f"the operator {operator!r} is not supported")
        literal = self._literal()
        compare, value = _COMPARISONS[operator], literal.value
        if literal.kind == "null":
            if operator not in {"eq", "ne"}:
                raise FilterError(f"{operator} does not take null")
            return lambda record: compare(read(record), None)
        if literal.kind not in _LITERALS.get(edm, frozenset()):
            raise FilterError(f"a property of type {edm} is not compared with a {literal.kind}")
        if edm == "Edm.Guid":
            return lambda record: compare((read(record) or "").lower(), value.lower())
        return lambda record: compare(_comparable(read(record), edm), value)

    def _literal(self) -> _Literal:
        token = self._next()
        match token.kind:
            case "text":
                return _Literal("text", token.text[1:-1].replace("''", "'"))
            case "number":
                return _Literal("number", float(token.text))
            case "guid":
                return _Literal("guid", token.text)
            case "moment":
                return _moment(token.text)
            case "word" if token.text in _CONSTANTS:
                kind = "null" if token.text == "null" else "boolean"
                return _Literal(kind, _CONSTANTS[token.text])
        raise FilterError(f"{token.text!r} is no value; texts stand in single quotes")

    def _word(self) -> str:
        token = self._next()
        if token.kind != "word":
            raise FilterError(f"a property or an operator was expected at {token.text!r}")
        return token.text

    def _take(self, mark: str) -> None:
        if self._next().text != mark:
            raise FilterError(f"{mark!r} was expected")

    def _next(self) -> _Token:
        if self._at >= len(self._tokens):
            raise FilterError("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]


def _moment(text: str) -> _Literal:
    try:
        if "T" in text:
            return _Literal("moment", datetime.fromisoformat(text))
        return _Literal("date", date.fromisoformat(text))
    except ValueError as error:
        raise FilterError(f"{text!r} does not exist") from error


def _comparable(value: Any, edm: str) -> Any:
    """A field as it is compared; moments and dates are kept as text."""
    if not isinstance(value, str):
        return value
    if edm == "Edm.DateTimeOffset":
        return datetime.fromisoformat(value)
    return date.fromisoformat(value) if edm == "Edm.Date" else value
