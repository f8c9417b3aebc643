"""Query options of Tribe's OData: `$select $expand $filter $orderby $top $skip $count`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from vibes_pipelines.sandbox.tribe_filter import FilterError, Test, read_filter, value_of
from vibes_pipelines.sandbox.tribe_schema import ENTITIES

MOST_ROWS = 100
"""Records of one GET (Tribe documentation, Rate limits)."""

_LIST_OPTIONS = {"$select", "$expand", "$filter", "$orderby", "$top", "$skip", "$count"}
_ONE_OPTIONS = {"$select", "$expand"}


class OptionsError(ValueError):
    """A query that Tribe does not take."""


@dataclass(frozen=True)
class Shape:
    """What of a record is shown: fields, None for all; and what it refers to."""

    entity: str
    fields: tuple[str, ...] | None
    expands: Mapping[str, "Shape"]

    def show(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record as it is sent; its ID comes even when it was not asked for."""
        names = self.fields if self.fields is not None else tuple(ENTITIES[self.entity].fields)
        shown = {name: record.get(name) for name in ("ID", *names)}
        for link, shape in self.expands.items():
            target = record.get(link)
            if isinstance(target, list):
                shown[link] = [shape.show(one) for one in target]
            else:
                shown[link] = None if target is None else shape.show(target)
        return shown


@dataclass(frozen=True)
class Options:
    """The options of one read."""

    shape: Shape
    test: Test | None = None
    order: tuple[tuple[str, bool], ...] = ()
    top: int = MOST_ROWS
    skip: int = 0
    has_count: bool = False


def read_options(
    query: bytes,
    entity: str,
    top_over_100: Literal["cap", "refuse"] = "cap",
    *,
    is_list: bool = True,
) -> Options:
    """The options of a query; raises OptionsError for what Tribe does not know."""
    given = _pairs(query, _LIST_OPTIONS if is_list else _ONE_OPTIONS)
    top = _whole(given, "$top", MOST_ROWS)
    if top > MOST_ROWS and top_over_100 == "refuse":
        raise OptionsError(f"$top is at most {MOST_ROWS}")
    if given.get("$count", "false") not in {"true", "false"}:
        raise OptionsError("$count is true or false")
    try:
        return Options(
            shape=_shape(given, entity),
            test=read_filter(given["$filter"], entity) if "$filter" in given else None,
            order=_order(given.get("$orderby", ""), entity),
            top=min(top, MOST_ROWS),
            skip=_whole(given, "$skip", 0),
            has_count=given.get("$count") == "true",
        )
    except FilterError as error:
        raise OptionsError(str(error)) from error
    except RecursionError as error:
        raise OptionsError("$filter or $expand is nested too deeply") from error


def _pairs(query: bytes, known: set[str]) -> dict[str, str]:
    """Options by name. A + is not taken for a blank: it has to be %2B, and a blank %20."""
    given: dict[str, str] = {}
    for part in query.decode("latin-1").split("&"):
        if not part:
            continue
        if "+" in part:
            raise OptionsError("a + in a query has to be encoded as %2B, a blank as %20")
        name, _, value = part.partition("=")
        name = unquote(name)
        if name not in known or name in given:
            raise OptionsError(f"the option {name!r} is unknown here, or given twice")
        given[name] = unquote(value)
    return given


def _shape(given: Mapping[str, str], entity: str) -> Shape:
    fields: tuple[str, ...] | None = None
    if "$select" in given:
        fields = tuple(name.strip() for name in given["$select"].split(","))
        for name in fields:
            if name not in ENTITIES[entity].fields:
                raise OptionsError(f"{entity} has no property {name!r} to $select")
    expands: dict[str, Shape] = {}
    for part in _split(given.get("$expand", ""), ","):
        link, _, rest = part.partition("(")
        if link not in ENTITIES[entity].links or ("(" in part) != rest.endswith(")"):
            raise OptionsError(f"{entity} has nothing to $expand by {part!r}")
        inner = dict(_option(one) for one in _split(rest.removesuffix(")"), ";"))
        expands[link] = _shape(inner, ENTITIES[entity].links[link])
    return Shape(entity, fields, expands)


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if name not in _ONE_OPTIONS:
        raise OptionsError(f"the option {name!r} is unknown within $expand")
    return name, value


def _split(text: str, mark: str) -> Iterable[str]:
    """Parts between marks that are not within parentheses."""
    depth, begin = 0, 0
    for place, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == mark and depth == 0:
            yield text[begin:place]
            begin = place + 1
    if text:
        yield text[begin:]


def _order(text: str, entity: str) -> tuple[tuple[str, bool], ...]:
    """Properties, and whether the order by them is a falling one."""
    order: list[tuple[str, bool]] = []
    for part in text.split(",") if text else ():
        name, _, direction = part.strip().partition(" ")
        value_of(name, entity)
        if direction not in {"", "asc", "desc"}:
            raise OptionsError(f"$orderby cannot be read at {part!r}")
        order.append((name, direction == "desc"))
    return tuple(order)


def _whole(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise OptionsError(f"{name} is a whole number of at most nine digits, not {text!r}")
    return int(text)


def sorted_rows(
    rows: Iterable[Mapping[str, Any]],
    order: Sequence[tuple[str, bool]],
    entity: str,
    guid_order: Literal["text", "last_bytes_first"],
) -> list[Mapping[str, Any]]:
    """Records in an order; the last property is sorted by first, as sorting is stable."""
    found = list(rows)
    for name, is_falling in reversed(order):
        read, edm = value_of(name, entity)

        def key(row: Mapping[str, Any], edm: str = edm, read: Any = read) -> tuple[bool, Any]:
            value = read(row)
            if edm == "Edm.Guid" and value is not None and guid_order == "last_bytes_first":
                value = tuple(reversed(value.lower().split("-")))
            return value is not None, "" if value is None else value

        found.sort(key=key, reverse=is_falling)
    return found
