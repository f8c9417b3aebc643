"""Where each value of a YAML document stands, so that an error can name its line.

Scalars keep their spelling where YAML 1.1 would change it: `0777`, `NO`, `2026-01-01` are text.
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import yaml
from pydantic_core import ErrorDetails

from vibes_pipelines.sync_config.conditions import PlacedError

Path = tuple[str | int, ...]


class _StrictLoader(yaml.SafeLoader):
    """Takes a document at its word.

    A key that stands twice in one mapping is refused; plain YAML would keep the last one. A scalar
    is other than text only in the few forms below, all of which give their own spelling back.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's form

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Joins a character that is escaped in two halves, as JSON does."""
        text = super().construct_scalar(node)
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            problem = f"{text!r} holds half a character"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key_node, yaml.ScalarNode):
                key = key_node.value  # `1` and `"1"` are one where text is meant
            problem = None
            if not isinstance(key, Hashable):
                problem = "a list or a mapping cannot be a key; `{{ ... }}` is a template left open"
            elif key in seen:
                problem = f"the key {key!r} stands twice"
            if problem is not None:
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# `1.10` and `0.00001` stay text: as numbers they would come back as 1.1 and 1e-05. Where a number
# is meant, the validation reads them as one.
for _tag, _form, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"0|-?[1-9][0-9]*", "-0123456789"),
    ("float", r"-?(?:0|[1-9][0-9]{0,9})\.(?:[0-9]{0,3}[1-9]|0)", "-0123456789"),
    ("null", r"~|null|", ["~", "n", ""]),
):
    _StrictLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_form})\Z"), list(_first)
    )


@dataclass(frozen=True)
class YamlPlaces:
    """A YAML document and the line (from 1) of every key and item in it."""

    document: object
    lines: Mapping[Path, int]

    @classmethod
    def read(cls, text: str) -> Self:
        """Parses `text`; raises `yaml.YAMLError`, which carries its own place."""
        loader = _StrictLoader(text)
        try:
            node = loader.get_single_node()
            document = loader.construct_document(node) if node else {}
        finally:
            loader.dispose()
        lines: dict[Path, int] = {(): 1}
        if node:
            _collect(node, (), lines)
        return cls(document, lines)

    def describe(self, error: ErrorDetails) -> str:
        """One validation fault as `line: field: what is wrong; what is allowed`."""
        path = _document_path(error["loc"])
        fault = error.get("ctx", {}).get("error")
        if isinstance(fault, PlacedError):
            path += fault.place
        return f"{self._line(path)}: {_dotted(path) or 'sync.yaml'}: {_message(error)}"

    def _line(self, path: Path) -> int:
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def _collect(node: yaml.Node, path: Path, lines: dict[Path, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*path, key.value)
            lines[place] = key.start_mark.line + 1
            _collect(value, place, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _collect(item, (*path, index), lines)


def _document_path(location: tuple[str | int, ...]) -> Path:
    return tuple(part for part in location if part != "[key]")


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_TOLD = {
    "missing": "is missing, and required",
    "extra_forbidden": (
        "is not a known setting here; check its spelling against sync.example.yaml"
    ),
    "too_short": "is empty; write at least one entry",
}
_SETTINGS = "must hold settings, each as `name: value`"
_TOLD_WITH_WHAT_WAS_FOUND = {
    "tuple_type": "must be a list, such as [A, B]",
    "dict_type": _SETTINGS,
    "model_type": _SETTINGS,
    "string_type": "must be one text, in quotes",
}
"""What pydantic calls by Python's names."""


def _message(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return f"{error['input']!r} is not allowed; allowed: {context['expected']}"
    if kind == "value_error":
        return str(context["error"])
    if kind in _TOLD:
        return _TOLD[kind]
    if error["input"] is None:
        return "is empty; give it what it is to hold, or leave it out"
    usual = f"{error['msg'][0].lower()}{error['msg'][1:]}"
    return f"{_TOLD_WITH_WHAT_WAS_FOUND.get(kind, usual)} (found {error['input']!r})"
