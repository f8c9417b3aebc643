"""The share's tables: the platform's state as Arrow, and which past state a lagging share shows.

Object and column names of the real share are not public; these are the sandbox's assumption.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from vibes_pipelines.sandbox.platform import CustomField, Person, Platform

Tables = dict[str, pa.Table]
"""Arrow tables by the name of the share's object."""

_TIMESTAMP = pa.timestamp("us")
_FIELD_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "postal_code": pa.string(),
    "number": pa.decimal128(18, 4),
    "date": _TIMESTAMP,
    "single_select": pa.string(),
    "multi_select": pa.string(),
}
"""The share's column type for each type of custom field."""


def share_tables(platform: Platform, as_of: datetime) -> Tables:
    """The platform's present state as PERSONS, SUBSCRIPTIONS and REFRESHES (one row: `as_of`)."""
    with platform.lock:
        return {
            "PERSONS": _persons(platform),
            "SUBSCRIPTIONS": _subscriptions(platform),
            "REFRESHES": pa.table({"AS_OF": pa.array([_utc(as_of)], _TIMESTAMP)}),
        }


def _persons(platform: Platform) -> pa.Table:
    persons = [platform.persons[key] for key in sorted(platform.persons)]
    columns = {
        "PERSON_KEY": pa.array([person.person_key for person in persons], pa.string()),
        "EXTERNAL_PERSON_ID": pa.array([p.external_person_id for p in persons], pa.string()),
        "MDN": pa.array([person.mdn for person in persons], pa.string()),
        "CARRIER_CODE": pa.array([person.carrier_code for person in persons], pa.string()),
    }
    for custom_field in platform.custom_fields:
        columns[custom_field.name.upper()] = _custom_column(custom_field, persons)
    columns["CREATED_AT"] = pa.array([_utc(person.created_at) for person in persons], _TIMESTAMP)
    columns["UPDATED_AT"] = pa.array([_utc(person.updated_at) for person in persons], _TIMESTAMP)
    return pa.table(columns)


def _custom_column(custom_field: CustomField, persons: list[Person]) -> pa.Array:
    values = [person.custom.get(custom_field.name) for person in persons]
    if custom_field.type == "multi_select":
        values = [_joined(value) for value in values]
    elif custom_field.type == "date":
        values = [_utc(value) if isinstance(value, datetime) else None for value in values]
    return pa.array(values, _FIELD_TYPES[custom_field.type])


def _joined(value: object) -> str | None:
    """A multi-select's option keys in one cell; nothing chosen is NULL."""
    return "|".join(value) if isinstance(value, tuple) and value else None


def _subscriptions(platform: Platform) -> pa.Table:
    rows = sorted(
        platform.subscriptions, key=lambda row: (row.person_key, row.list_id, row.opt_in_date)
    )
    return pa.table(
        {
            "PERSON_KEY": pa.array([row.person_key for row in rows], pa.string()),
            "SUBSCRIPTION_LIST_ID": pa.array([row.list_id for row in rows], pa.string()),
            "OPT_IN_DATE": pa.array([_utc(row.opt_in_date) for row in rows], _TIMESTAMP),
            "OPT_OUT_DATE": pa.array(
                [None if row.opt_out_date is None else _utc(row.opt_out_date) for row in rows],
                _TIMESTAMP,
            ),
            "OPT_OUT_REASON": pa.array([row.opt_out_reason for row in rows], pa.string()),
        }
    )


def _utc(instant: datetime) -> datetime:
    """The instant in UTC without a zone, as TIMESTAMP_NTZ holds it."""
    return instant.astimezone(UTC).replace(tzinfo=None)


@dataclass
class ShareHistory:
    """States of the platform that a lagging share shows, or will show."""

    lag: timedelta
    _states: list[tuple[datetime, Tables]] = field(default_factory=list)

    def record(self, instant: datetime, state: Tables) -> None:
        """Keep a state under its instant; instants come in order."""
        self._states.append((instant, state))

    def shown(self, now: datetime) -> Tables:
        """The newest state that is at least as old as the lag; whatever is older is forgotten.

        When no state is old enough yet, the oldest one is shown.
        """
        old_enough = [index for index, (at, _) in enumerate(self._states) if at <= now - self.lag]
        chosen = old_enough[-1] if old_enough else 0
        del self._states[:chosen]
        return self._states[0][1]
