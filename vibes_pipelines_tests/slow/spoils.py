"""What can happen to a source: each function gives one way in which a morning is spoiled.

Which of them are disasters, and what must stop each, is in `disasters`.
"""

from collections.abc import Callable

import pyarrow as pa

from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.share_tables import share_tables
from vibes_pipelines_tests.slow.bench import PEOPLE, Morning, Row

Spoil = Callable[[Morning], None]
Rewrite = Callable[[pa.Table], pa.Table]


def nothing(_: Morning) -> None:
    """The sources are as they should be; the sync config is not."""


# The CRM's table


def statements(*sql: str) -> Spoil:
    """SQL that somebody ran on the CRM."""

    def spoil(morning: Morning) -> None:
        with morning.sandbox.crm.edit() as editor:
            for statement in sql:
                editor.connection.execute(statement)

    return spoil


def cells(change: Callable[[Row], Row]) -> Spoil:
    """Every contact rewritten by a function of its row."""

    def spoil(morning: Morning) -> None:
        rows = morning.sandbox.crm.rows()
        replace_contacts(morning, [row | change(row) for row in rows])

    return spoil


def texts(*columns: str, by: Callable[[str], str | None]) -> Spoil:
    """Some columns rewritten wherever they hold something."""
    return cells(
        lambda row: {name: None if row[name] is None else by(str(row[name])) for name in columns}
    )


def shifted(row: Row) -> Row:
    """Every value one column further right."""
    values = list(row.values())
    return dict(zip(row, [values[-1], *values[:-1]], strict=True))


def keys_out_of_step(morning: Morning) -> None:
    """The keys one row lower than all else, as when one column was sorted alone."""
    rows = morning.sandbox.crm.rows()
    keys = [row["contact_id"] for row in rows]
    moved = [keys[-1], *keys[:-1]]
    replace_contacts(
        morning, [row | {"contact_id": key} for row, key in zip(rows, moved, strict=True)]
    )


def earlier_contacts(morning: Morning) -> None:
    """The CRM restored from a backup of the first day."""
    replace_contacts(morning, morning.earlier_rows)


def earlier_contacts_in_another_order(morning: Morning) -> None:
    """The same backup, whose rows come in another order and so are no copy byte by byte."""
    replace_contacts(morning, morning.earlier_rows[::-1])


def heading_among_rows(morning: Morning) -> None:
    """A file with two headings was loaded into the CRM."""
    with morning.sandbox.crm.edit() as editor:
        editor.insert([{name: name for name in morning.earlier_rows[0]}])


def replace_contacts(morning: Morning, rows: list[Row]) -> None:
    with morning.sandbox.crm.edit() as editor:
        editor.connection.execute("DELETE FROM contacts")
        editor.insert(rows)


# The share


def table(name: str, change: Rewrite) -> Spoil:
    """One table of the share rewritten."""

    def spoil(morning: Morning) -> None:
        morning.publish(morning.tables | {name: change(morning.tables[name])})

    return spoil


def column(name: str, change: Callable[[pa.Table], pa.Array]) -> Rewrite:
    """One column made anew from its table."""

    def rewrite(whole: pa.Table) -> pa.Table:
        return whole.set_column(whole.column_names.index(name), name, change(whole))

    return rewrite


def blank(name: str) -> Rewrite:
    """One column without a value."""
    return column(name, lambda whole: pa.nulls(whole.num_rows, whole[name].type))


def renamed(old: str, new: str) -> Rewrite:
    """One column called otherwise."""
    return lambda whole: whole.rename_columns([new if n == old else n for n in whole.column_names])


def part(divisor: int) -> Rewrite:
    """The first half, tenth ... of a table."""
    return lambda whole: whole.slice(0, whole.num_rows // divisor)


def doubled(whole: pa.Table) -> pa.Table:
    """Every row twice."""
    return pa.concat_tables([whole, whole])


def emptied(whole: pa.Table) -> pa.Table:
    """No row."""
    return whole.slice(0, 0)


def other_company(morning: Morning) -> None:
    """The share of another customer: about as many, but other people with other identifiers."""
    world = build_world(PEOPLE, 977)
    for person in world.persons:
        if person.external_person_id:
            person.external_person_id = f"X{person.external_person_id}"
        if person.mdn:
            person.mdn = f"+1{int(person.mdn[2:]) + 1_000_003}"
    now = morning.sandbox.now()
    platform = Platform("Z9y8X7", world.custom_fields, world.lists, morning.sandbox.clock)
    platform.load(world.persons, world.subscriptions)
    morning.publish(share_tables(platform, now))


def earlier_share(*names: str) -> Spoil:
    """Tables as they were on the first day; without REFRESHES among them they are called fresh."""

    def spoil(morning: Morning) -> None:
        morning.publish(morning.tables | {name: morning.earlier_tables[name] for name in names})

    return spoil


# The extracts


def extract(kind: str, change: Callable[[bytes], bytes]) -> Spoil:
    """One extract rewritten, and its `.done` made to agree."""

    def spoil(morning: Morning) -> None:
        path = morning.extract(kind, morning.loop.today)
        content = change(path.read_bytes())
        path.write_bytes(content)
        rows = max(content.count(b"\n") - 1, 0)
        path.with_name(f"{path.name}.done").write_text(f"rows={rows} bytes={len(content)}\n")

    return spoil


def body(change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    """Every line after the header rewritten."""

    def rewrite(content: bytes) -> bytes:
        header, *lines = content.decode().splitlines()
        return ("\n".join([header, *map(change, lines)]) + "\n").encode()

    return rewrite


def header_alone(content: bytes) -> bytes:
    """An extract without a row, as on a day without an event."""
    return content.splitlines(keepends=True)[0]


def header_twice(content: bytes) -> bytes:
    """The names of the columns once more as the first row."""
    return header_alone(content) + content


def earlier_extract(kind: str) -> Spoil:
    """The extract of the day before once more, under today's name."""

    def spoil(morning: Morning) -> None:
        before = morning.extract(kind, morning.yesterday).read_bytes()
        extract(kind, lambda _: before)(morning)

    return spoil


def cut(kind: str) -> Spoil:
    """An extract that ends in the middle, as while it is being written."""

    def spoil(morning: Morning) -> None:
        path = morning.extract(kind, morning.loop.today)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        path.with_name(f"{path.name}.done").unlink()

    return spoil
