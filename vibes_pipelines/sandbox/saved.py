"""Records as JSON and back, for the journal: dates, decimals, tuples and the sandbox's own records.

Only the types named here are read back; a journal cannot make the sandbox build anything else.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

_TAG = "!"

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "instant": datetime.fromisoformat,
    "day": date.fromisoformat,
    "decimal": Decimal,
}


class SavedRecords:
    """Writes and reads values that consist of plain JSON, the types above and these `records`."""

    def __init__(self, records: Iterable[type]) -> None:
        self._records = {record.__name__: record for record in records}

    def dump(self, value: object) -> str:
        """The value as text; raises TypeError for a type that could not be read back."""
        return json.dumps(self._plain(value), separators=(",", ":"))

    def load(self, text: str) -> Any:
        """The value that `dump` wrote; raises ValueError or KeyError for any other text."""
        return self._rich(json.loads(text))

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list):
            return [self._plain(entry) for entry in value]
        tag, held = self._tagged(value)
        return {_TAG: tag, "v": held}

    def _tagged(self, value: Any) -> tuple[str, Any]:
        match value:
            case datetime():
                return "instant", value.isoformat()
            case date():
                return "day", value.isoformat()
            case Decimal():
                return "decimal", str(value)
            case tuple():
                return "tuple", [self._plain(entry) for entry in value]
            case Mapping():
                return "map", [[key, self._plain(one)] for key, one in value.items()]
        name = type(value).__name__
        if not is_dataclass(value) or name not in self._records:
            raise TypeError(f"the journal does not know records of {type(value)!r}; name it there")
        return name, {f.name: self._plain(getattr(value, f.name)) for f in fields(value)}

    def _rich(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._rich(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        tag, held = value[_TAG], value["v"]
        if tag == "tuple":
            return tuple(self._rich(entry) for entry in held)
        if tag == "map":
            return {key: self._rich(one) for key, one in held}
        if tag in _READERS:
            return _READERS[tag](held)
        return self._records[tag](**{name: self._rich(one) for name, one in held.items()})
