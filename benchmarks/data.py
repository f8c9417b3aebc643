"""Synthetic contacts and persons for benchmarks: deterministic, any size, written as Parquet.

24 columns a side, as a CRM and a share would hold them: phones in mixed spellings against E.164,
sets joined by `;` against `|`, days against timestamps. 2 % of the contacts, or as many as asked,
differ in one to three fields, 0.5 % are new, 0.5 % are gone; the files are in different row orders.
"""

from pathlib import Path

import duckdb

from vibes_pipelines.sync_config import SyncConfig

_AREA_CODES = (212, 213, 305, 312, 415, 503, 512, 602, 617, 702, 713, 718, 303, 404, 214, 206)

_STRINGS = ("first_name", "last_name", "email", "city", "street", "note", "segment", "language")
_CODES = ("country", "channel_hint", "store", "campaign_code")
_NUMBERS = ("score", "lifetime_value", "visits")
_DATES = ("birthdate", "member_since")


def build_config() -> SyncConfig:
    """The sync config of this data: 20 mapped fields, one consent, default guards."""
    fields: list[dict[str, object]] = [
        {"from": n, "to": n, "type": "string"} for n in (*_STRINGS, *_CODES)
    ]
    fields += [{"from": n, "to": n, "type": "number"} for n in _NUMBERS]
    fields += [{"from": n, "to": n, "type": "date"} for n in _DATES]
    options = {"Gold": "gold", "Silver": "silver", "Bronze": "bronze"}
    fields += [
        {"from": "tier", "to": "tier", "type": "single_select", "options": options},
        {"from": "interests", "to": "interests", "type": "multi_select", "separator": ";"},
        {"from": "zip", "to": "zip_code", "type": "postal_code"},
    ]
    return SyncConfig.model_validate(
        {
            "version": 1,
            "company_key": "A1b2C3",
            "contacts": {
                "key": "contact_id",
                "mdn": {"column": "mobile", "default_region": "US"},
            },
            "fields": fields,
            "consents": [{"from": "sms_opt_in", "list": "1234", "changed_at": "sms_opt_in_at"}],
        }
    )


def write_sides(folder: Path, rows: int, changed_percent: int = 2) -> tuple[Path, Path]:
    """Writes contacts.parquet and persons.parquet of about `rows` rows each; returns their paths.

    Files that are already there are kept: equal arguments give equal files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contacts, persons = folder / "contacts.parquet", folder / "persons.parquet"
    if contacts.exists() and persons.exists():
        return contacts, persons
    connection = duckdb.connect()
    try:
        connection.execute(
            f"COPY ({_contacts_sql(rows, changed_percent)}) TO '{contacts}' (COMPRESSION zstd)"
        )
        connection.execute(f"COPY ({_persons_sql(rows)}) TO '{persons}' (COMPRESSION zstd)")
    finally:
        connection.close()
    return contacts, persons


def _draw(salt: int, changed: str = "false") -> str:
    """A number drawn from the row's number; another one where the row has changed."""
    return f"(hash(i * 131 + {salt} + CASE WHEN {changed} THEN 7 ELSE 0 END) % 1000000007)::BIGINT"


def _changed(column: int, percent: int) -> str:
    """So many of the rows change, in the one, two or three columns their number picks."""
    offset = f"({column} + 40 - hash(i, 'which') % 20) % 20"
    return f"(hash(i, 'changed') % 100 < {percent} AND {offset} <= hash(i, 'how many') % 3)"


def _value(index: int, name: str, changed_percent: int, *, is_contact: bool) -> str:
    drawn = _draw(index * 1009, _changed(index, changed_percent) if is_contact else "false")
    if name in _DATES:
        day = f"(DATE '1940-01-01' + ({drawn} % 28000)::INTEGER)"
        return day if is_contact else f"{day}::TIMESTAMP"
    if name in _NUMBERS:
        return f"(({drawn} % 1000000)::DECIMAL(18, 4) / 100)::DECIMAL(18, 4)"
    if name == "tier":
        keys = "['Gold', 'Silver', 'Bronze']" if is_contact else "['gold', 'silver', 'bronze']"
        return f"{keys}[1 + {drawn} % 3]"
    if name == "interests":
        drawn_set = (
            f"['golf', 'golf;hockey', 'golf;hockey;soccer', 'soccer', NULL][1 + {drawn} % 5]"
        )
        return drawn_set if is_contact else f"replace({drawn_set}, ';', '|')"
    return _text(name, drawn)


def _text(name: str, drawn: str) -> str:
    if name == "note":
        return f"CASE WHEN {drawn} % 3 = 0 THEN 'called about order ' || {drawn} END"
    if name == "email":
        return f"'user' || {drawn} || '@example.org'"
    if name == "zip":
        return f"lpad(({drawn} % 99950)::VARCHAR, 5, '0')"
    if name in _CODES:
        return f"'{name}-' || {drawn} % 40"
    return f"CASE WHEN {drawn} % 50 > 0 THEN '{name} ' || {drawn} % 20000 END"


def _fields(changed_percent: int = 0, *, is_contact: bool) -> str:
    names = (*_STRINGS, *_CODES, *_NUMBERS, *_DATES, "tier", "interests", "zip")
    named = []
    for index, name in enumerate(names):
        column = "zip_code" if name == "zip" and not is_contact else name
        value = _value(index, name, changed_percent, is_contact=is_contact)
        named.append(f"({value}) AS {column}")
    return ", ".join(named)


_KEY = "printf('CRM-%015d', i)"
_NATIONAL = (
    f"((list_value{_AREA_CODES}[1 + i % {len(_AREA_CODES)}] * 10000000::BIGINT"
    f" + (200 + (i // {len(_AREA_CODES)}) % 700) * 10000"
    f" + (i // {len(_AREA_CODES) * 700}) % 10000)::VARCHAR)"
)
_SPELT = f"""CASE i % 10
    WHEN 0 THEN '+1' || {_NATIONAL}
    WHEN 1 THEN '+1' || {_NATIONAL}
    WHEN 2 THEN {_NATIONAL}[1:3] || '.' || {_NATIONAL}[4:6] || '.' || {_NATIONAL}[7:10]
    ELSE '(' || {_NATIONAL}[1:3] || ') ' || {_NATIONAL}[4:6] || '-' || {_NATIONAL}[7:10] END"""


def _contacts_sql(rows: int, changed_percent: int) -> str:
    return f"""
        SELECT {_KEY} AS contact_id, {_SPELT} AS mobile,
               CASE WHEN i % 9 > 0 THEN 'yes' END AS sms_opt_in,
               TIMESTAMP '2025-01-01' + to_minutes((i % 500000)::BIGINT) AS sms_opt_in_at,
               {_fields(changed_percent, is_contact=True)}
        FROM range({rows}) r(i) WHERE hash(i, 'gone') % 200 > 0 ORDER BY hash(i, 'contacts')"""


def _persons_sql(rows: int) -> str:
    key = "md5(i::VARCHAR)"
    return f"""
        SELECT {key}[1:8] || '-' || {key}[9:12] || '-' || {key}[13:32] AS person_key,
               {_KEY} AS external_person_id, '+1' || {_NATIONAL} AS mdn,
               (100 + i % 20)::VARCHAR AS carrier_code, {_fields(is_contact=False)}
        FROM range({rows}) r(i) WHERE hash(i, 'new') % 200 > 0 ORDER BY hash(i, 'persons')"""
