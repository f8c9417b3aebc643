"""Mutations: the small faults that are put into a module, one at a time.

Common tools for this leave texts alone, or only those that are composed; but here many rules are
SQL, regular expressions and tables. So each text is changed by what it is: SQL and regular
expressions by their own operators, other texts by two letters. Sentences for people (three words
and more), docstrings and types are not changed. Running the tests is in `mutants`.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_Put = Callable[[ast.AST], None]
"""Puts another node into the place of one."""


@dataclass(frozen=True)
class Mutation:
    """One fault: where it is, what it does, and the doing of it to the tree it was found in."""

    line: int
    what: str
    apply: Callable[[], None]


_SQL = re.compile(
    r"\b(SELECT|FROM|CASE|WHEN|THEN|ELSE|NULL|AND|OR|NOT|CAST|JOIN|INTERVAL|TIMESTAMP|BETWEEN)\b"
    r"|^\s*(IN|VALUES)\b|\b[a-z_]{3,}\(|\|\|"
)
_REGEX = re.compile(r"\\[dsw]|\[\^?[\w+]|\(\?|\]\+|\)\?|\{\d")
_SENTENCE = re.compile(r"\S \S+ \S")

_SQL_SWAPS: tuple[tuple[str, str], ...] = (
    (r" AND ", " OR "),
    (r" OR ", " AND "),
    (r"\bIS NOT NULL", "IS NULL"),
    (r"\bIS NULL", "IS NOT NULL"),
    (r"\bIS NOT DISTINCT", "IS DISTINCT"),
    (r"\bIS DISTINCT", "IS NOT DISTINCT"),
    (r"\bNOT IN\b", "IN"),
    (r"(?<!NOT )\bIN\b", "NOT IN"),
    (r"\bNOT (?!NULL|DISTINCT|IN\b)", ""),
    (r" = ", " <> "),
    (r" <> ", " = "),
    (r" < ", " <= "),
    (r" <= ", " < "),
    (r" > ", " >= "),
    (r" >= ", " > "),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bgreatest\(", "least("),
    (r"\bltrim\(", "rtrim("),
    (r"\brtrim\(", "ltrim("),
    (r"\blpad\(", "rpad("),
    (r"\brpad\(", "lpad("),
    (r"\bleft\(", "right("),
    (r"\bright\(", "left("),
    (r"\blower\(", "upper("),
    (r"\bstarts_with\(", "contains("),
    (r"\bUNION ALL\b", "UNION"),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bANTI JOIN\b", "SEMI JOIN"),
    (r"\bSEMI JOIN\b", "ANTI JOIN"),
    (r"(?<!LEFT |ANTI |SEMI )\bJOIN\b", "LEFT JOIN"),
    (r"(?<!IS )(?<!IS NOT )\bDISTINCT ", ""),
    (r"\bNULLS LAST\b", "NULLS FIRST"),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"'(?=[A-Za-z_]+')", "'XX"),
)
_REGEX_SWAPS: tuple[tuple[str, str], ...] = (
    (r"(?<=[\])])\?", ""),
    (r"(?<=[\])d])\+", "*"),
    (r"(?<=[\])])\*", "+"),
    (r"^\^", ""),
    (r"\$$", ""),
)
_NUMBER = re.compile(r"(?<![\w.\\-])\d+(?![\w.-])")

_COMPARES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_CALLS = {
    "lower": "upper",
    "upper": "lower",
    "startswith": "endswith",
    "endswith": "startswith",
    "removeprefix": "removesuffix",
    "removesuffix": "removeprefix",
    "partition": "rpartition",
    "fullmatch": "match",
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "sorted": "list",
    "setdefault": "get",
}


def mutations(tree: ast.Module) -> Iterator[Mutation]:
    """Every mutation of a module, in the order of its text; equal trees have equal ones."""
    yield from _inside(tree)


def _inside(parent: ast.AST) -> Iterator[Mutation]:
    for name, index, node in _children(parent):
        if _is_left_alone(parent, name, node):
            continue
        yield from _of(node, _put(parent, name, index))
        if not isinstance(node, ast.JoinedStr):
            yield from _inside(node)
        else:
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    yield from _inside(part)


def _children(parent: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    for name, value in ast.iter_fields(parent):
        if isinstance(value, ast.AST):
            yield name, None, value
        elif isinstance(value, list):
            for index, one in enumerate(value):
                if isinstance(one, ast.AST):
                    yield name, index, one


def _put(parent: ast.AST, name: str, index: int | None) -> _Put:
    def put(node: ast.AST) -> None:
        if index is None:
            setattr(parent, name, node)
        else:
            getattr(parent, name)[index] = node

    return put


def _is_left_alone(parent: ast.AST, name: str, node: ast.AST) -> bool:
    """Docstrings, imports, exports, decorators, and whatever only a type checker reads."""
    if name in {"annotation", "returns", "decorator_list", "format_spec"}:
        return True
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if not isinstance(parent, ast.Module) or not isinstance(node, ast.Assign):
        return False
    return _is_type(node.value) or ast.unparse(node.targets[0]) == "__all__"


def _is_type(value: ast.AST) -> bool:
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
        return _is_type(value.left)
    names = {"Callable", "Literal", "Mapping", "tuple", "dict", "list"}
    return (
        isinstance(value, ast.Subscript)
        and isinstance(value.value, ast.Name)
        and value.value.id in names
    )


def _of(node: ast.AST, put: _Put) -> Iterator[Mutation]:
    for kind, found in _OF.items():
        if isinstance(node, kind):
            yield from found(node, put)


def _statement(node: ast.AST, put: _Put) -> Iterator[Mutation]:
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if is_call or isinstance(node, ast.Raise | ast.AugAssign):
        yield _replaced(node, put, ast.Pass(), "left out")


def _compare(node: ast.Compare, _: _Put) -> Iterator[Mutation]:
    for index, op in enumerate(node.ops):
        if type(op) in _COMPARES:
            yield _swapped(node, op, _COMPARES[type(op)](), _put(node, "ops", index))


def _binary(node: ast.BinOp, _: _Put) -> Iterator[Mutation]:
    if type(node.op) in _ARITHMETIC:
        yield _swapped(node, node.op, _ARITHMETIC[type(node.op)](), _put(node, "op", None))


def _both(node: ast.BoolOp, _: _Put) -> Iterator[Mutation]:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield _swapped(node, node.op, other, _put(node, "op", None))


def _not(node: ast.UnaryOp, put: _Put) -> Iterator[Mutation]:
    if isinstance(node.op, ast.Not):
        yield _replaced(node, put, node.operand, "without its not")


def _branch(node: ast.If | ast.IfExp, _: _Put) -> Iterator[Mutation]:
    negated = ast.UnaryOp(op=ast.Not(), operand=node.test)
    yield _replaced(node.test, _put(node, "test", None), negated, "negated")


def _filter(node: ast.comprehension, _: _Put) -> Iterator[Mutation]:
    for index, test in enumerate(node.ifs):
        yield _replaced(test, _put(node, "ifs", index), ast.Constant(value=True), "no filter")


def _call(node: ast.Call, _: _Put) -> Iterator[Mutation]:
    function = node.func
    if isinstance(function, ast.Name) and function.id in _CALLS:
        field, name = "id", function.id
    elif isinstance(function, ast.Attribute) and function.attr in _CALLS:
        field, name = "attr", function.attr
    else:
        return
    what = f"{name} -> {_CALLS[name]}: {_shown(node)}"
    yield Mutation(node.lineno, what, lambda: setattr(function, field, _CALLS[name]))


def _constant(node: ast.Constant, put: _Put) -> Iterator[Mutation]:
    value = node.value
    if isinstance(value, bool):
        yield _replaced(node, put, ast.Constant(value=not value), str(not value))
    elif isinstance(value, int | float):
        yield _replaced(node, put, ast.Constant(value=value + 1), str(value + 1))
    elif isinstance(value, str):
        yield from _text(node, value)


def _joined(node: ast.JoinedStr, _: _Put) -> Iterator[Mutation]:
    parts = [p for p in node.values if isinstance(p, ast.Constant)]
    whole = "{}".join(str(part.value) for part in parts)
    for part in parts:
        yield from _text(part, whole)


def _text(node: ast.Constant, whole: str) -> Iterator[Mutation]:
    """Of a text; what it is, the whole text says that it is a part of."""
    if _SQL.search(whole):
        swaps = (*_SQL_SWAPS, *_REGEX_SWAPS)
    elif _REGEX.search(whole):
        swaps = _REGEX_SWAPS
    elif whole in {"true", "false"}:
        swaps = _SQL_SWAPS
    else:
        if not _SENTENCE.search(whole):
            yield _retold(node, 0, 0, "XX")
        return
    text = str(node.value)
    for pattern, other in swaps:
        for found in re.finditer(pattern, text):
            yield _retold(node, *found.span(), other)
    for found in _NUMBER.finditer(text):
        yield _retold(node, *found.span(), str(int(found.group()) + 1))


def _retold(node: ast.Constant, start: int, end: int, other: str) -> Mutation:
    text = str(node.value)
    before, after = text[max(0, start - 30) : start], text[end : end + 30]
    what = " ".join(f"{before}[{text[start:end]} -> {other}]{after}".split())
    return Mutation(
        node.lineno, what, lambda: setattr(node, "value", text[:start] + other + text[end:])
    )


def _swapped(node: ast.expr, old: ast.AST, new: ast.AST, put: _Put) -> Mutation:
    what = f"{type(old).__name__} -> {type(new).__name__}: {_shown(node)}"
    return Mutation(node.lineno, what, lambda: put(new))


def _replaced(node: ast.AST, put: _Put, new: ast.AST, what: str) -> Mutation:
    line = getattr(node, "lineno", 0)
    return Mutation(line, f"{what}: {_shown(node)}", lambda: put(new))


def _shown(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:90]


_OF: dict[type[ast.AST], Callable[..., Iterator[Mutation]]] = {
    ast.stmt: _statement,
    ast.Compare: _compare,
    ast.BinOp: _binary,
    ast.BoolOp: _both,
    ast.UnaryOp: _not,
    ast.If: _branch,
    ast.IfExp: _branch,
    ast.comprehension: _filter,
    ast.Call: _call,
    ast.Constant: _constant,
    ast.JoinedStr: _joined,
}
