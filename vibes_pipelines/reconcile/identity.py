"""Identity: which contact is which person, and which groups are in doubt.

Precedence: person_key > external_person_id > mdn (the Vibes documentation, Person Import). A
contact and a person that agree on every identifier both have are paired at once; all others claim
persons by each identifier and are judged by their claims. Doubt falls on the whole group.

Creates `pair` (contact_row, person_row, differs), `loose` (contact_row), `claim` (contact_row,
person_row, identifier), `verdict` (contact_row, person_row, matched_by), `recognised` (contact_row,
person_row, matched_by, passes, differs, is_odd), and of these `match`, without those whose number
belongs to somebody else or has changed. Rows in doubt go to the table `finding`; what a person
decided about them is applied last.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names and texts go through reconcile.sql)

from collections.abc import Iterator

import duckdb

from vibes_pipelines.reconcile.characters import find_wrong_keys
from vibes_pipelines.reconcile.decisions import LINKED, apply_decisions, find_erased
from vibes_pipelines.reconcile.findings import NOT_OF_IDENTITY, OF_NUMBERS, add_findings
from vibes_pipelines.reconcile.identifiers import refuse_collision, texts_sql
from vibes_pipelines.reconcile.sql import literal, text_list

_COLUMN_OF = {"person_key": "person_key", "external_person_id": "key", "mdn": "mdn"}


def build_match(
    connection: duckdb.DuckDBPyConnection,
    *,
    is_landed: bool,
    replaces_numbers: bool,
    salt: int = 0,
) -> None:
    """Creates the tables above from `contact`, `person` and `decision`, and the findings.

    With `replaces_numbers` a changed number of a contact is a change to make, not a doubt.

    Raises:
        HashCollision: two different identifiers have one hash.
    """
    _find_unusable(connection)
    find_erased(connection, salt)
    connection.execute("CREATE TEMP VIEW pair AS SELECT * FROM linked WHERE agrees")
    _collect_claims(connection)
    find_wrong_keys(connection)
    _find_repeats(connection, is_landed=is_landed)
    _judge_claims(connection, replaces_numbers=replaces_numbers)
    _spread_to_groups(connection)
    apply_decisions(connection, _SURE, salt)
    connection.execute(_RECOGNISED)
    connection.execute(_MATCH)


def _find_unusable(connection: duckdb.DuckDBPyConnection) -> None:
    for kind, condition in (
        ("missing_contact_key", "key IS NULL"),
        ("invalid_mdn", "bad_mdn"),
    ):
        rows = f"SELECT row_number FROM contact WHERE {condition}"
        add_findings(connection, kind, "contact", rows)


def _find_repeats(connection: duckdb.DuckDBPyConnection, *, is_landed: bool) -> None:
    """Finds identifiers that several rows of one side have."""
    searched = _search_landed() if is_landed else _search_scanned(connection)
    for (kind, table, column), rows_sql in zip(_REPEATS, searched, strict=True):
        add_findings(connection, kind, table, rows_sql)
        repeats = f"SELECT row_number FROM finding WHERE kind = '{kind}' AND source = '{table}'"
        if column != "mdn" and connection.execute(f"{repeats} LIMIT 1").fetchall():
            _check_repeats(connection, table, column, repeats)


_REPEATS = (
    ("duplicate_contact_key", "contact", "key"),
    ("duplicate_external_id", "person", "key"),
    ("duplicate_person_key", "person", "person_key"),
    ("shared_mdn", "person", "mdn"),
    ("shared_mdn", "contact", "mdn"),
)


def _search_landed() -> Iterator[str]:
    """What repeats was found when the snapshot was landed."""
    for _, table, column in _REPEATS:
        yield f"SELECT row_number FROM {table} WHERE repeats_{column}"


def _search_scanned(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Unlikely places are not searched.

    Keys are compared across the sides already: if every link is one to one, only rows without a
    link can repeat a key, and paired contacts that share an mdn are paired with persons that share
    it, whose doubt spreads to them.
    """
    [(rows, links, contacts, persons, alone)] = connection.execute(_LINK_COUNTS).fetchall()
    one_to_one = rows == contacts and links == persons - alone
    where_linked = {
        ("contact", "key"): "(SELECT c.* FROM contact c SEMI JOIN loose ON c.row_number ="
        " contact_row)",
        ("person", "key"): "unlinked_person",
        ("contact", "mdn"): "(SELECT c.row_number, c.mdn FROM contact c"
        " SEMI JOIN loose ON c.mdn = loose.mdn)",
    }
    for _, table, column in _REPEATS:
        searched = where_linked.get((table, column), table) if one_to_one else table
        yield _repeats_sql(searched, column)


def _repeats_sql(table: str, column: str) -> str:
    """Rows whose identifier another row of the table has too."""
    return f"""
        WITH repeated AS (
            SELECT {column} FROM {table} WHERE {column} IS NOT NULL
            GROUP BY {column} HAVING count(*) > 1)
        SELECT row_number FROM {table} SEMI JOIN repeated USING ({column})"""


def _check_repeats(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, rows_sql: str
) -> None:
    refuse_collision(
        connection,
        f"""
        SELECT 1 FROM ({texts_sql(table, rows_sql)}) text JOIN {table} USING (row_number)
        GROUP BY {table}.{column} HAVING count(DISTINCT text.{column}) > 1""",
    )


def _collect_claims(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("""
        CREATE TEMP TABLE loose AS
        WITH odd AS (SELECT contact_row FROM linked WHERE NOT agrees),
             settled AS (SELECT contact_row FROM pair SEMI JOIN odd USING (contact_row))
        SELECT row_number AS contact_row, key, person_key, mdn, passes, has_issue,
               has_issue OR bad_mdn AS is_odd
        FROM contact SEMI JOIN odd ON contact.row_number = odd.contact_row
        ANTI JOIN settled ON contact.row_number = settled.contact_row""")
    claims = " UNION ALL ".join(
        f"SELECT l.contact_row, p.row_number AS person_row, '{identifier}' AS identifier"
        f" FROM loose l JOIN person p ON l.{column} = p.{column}"
        for identifier, column in _COLUMN_OF.items()
    )
    connection.execute(f"CREATE TEMP TABLE claim AS {claims}")
    _check_claims(connection)


def _check_claims(connection: duckdb.DuckDBPyConnection) -> None:
    hashes = "identifier <> 'mdn'"
    if not connection.execute(f"SELECT 1 FROM claim WHERE {hashes} LIMIT 1").fetchall():
        return
    contact_rows, person_rows = (
        f"SELECT {side}_row FROM claim WHERE {hashes}" for side in ("contact", "person")
    )
    refuse_collision(
        connection,
        f"""
        SELECT 1 FROM claim
        JOIN ({texts_sql("contact", contact_rows)}) c ON c.row_number = contact_row
        JOIN ({texts_sql("person", person_rows)}) p ON p.row_number = person_row
        WHERE CASE identifier WHEN 'person_key' THEN c.person_key <> p.person_key
                              WHEN 'external_person_id' THEN c.key <> p.key END""",
    )


def _judge_claims(connection: duckdb.DuckDBPyConnection, *, replaces_numbers: bool) -> None:
    connection.execute(_VERDICT)
    add_findings(
        connection,
        "identity_split",
        "contact",
        "SELECT contact_row FROM verdict WHERE is_split",
    )
    add_findings(
        connection,
        "identity_split",
        "person",
        "SELECT person_row FROM claim SEMI JOIN verdict"
        " ON claim.contact_row = verdict.contact_row AND verdict.is_split",
    )
    connection.execute(_CLAIMED_BY_TWO)
    add_findings(
        connection,
        "shared_person",
        "contact",
        "SELECT contact_row FROM verdict SEMI JOIN claimed_by_two USING (person_row)",
    )
    add_findings(connection, "shared_person", "person", "SELECT person_row FROM claimed_by_two")
    if not replaces_numbers:
        add_findings(
            connection,
            "mdn_change",
            "contact",
            "SELECT contact_row FROM verdict WHERE is_mdn_change AND NOT is_split",
        )


def _spread_to_groups(connection: duckdb.DuckDBPyConnection) -> None:
    """A contact that points to a person in doubt is in the same doubt."""
    connection.execute("""
        CREATE TEMP TABLE spread AS
        SELECT DISTINCT link.contact_row, finding.kind
        FROM finding
        JOIN (SELECT contact_row, person_row FROM pair
              UNION ALL SELECT contact_row, person_row FROM claim) link
          ON finding.row_number = link.person_row
        WHERE finding.source = 'person'""")
    [kinds] = connection.execute("SELECT coalesce(list(DISTINCT kind), []) FROM spread").fetchall()
    for kind in sorted(kinds[0]):
        add_findings(
            connection,
            kind,
            "contact",
            "SELECT contact_row FROM spread WHERE kind = ?"
            " AND contact_row NOT IN (SELECT row_number FROM finding"
            " WHERE source = 'contact' AND kind = ?)",
            [kind, kind],
        )


_LINK_COUNTS = """
    SELECT count(*), count(person_row), (SELECT count(*) FROM contact),
           (SELECT count(*) FROM person), (SELECT count(*) FROM unlinked_person)
    FROM linked"""

# One row per loose contact with a claim. The claims agree when some person has a claim by every
# identifier that claims anyone at all. A single person with another external id contradicts the
# contact; a person_key that no person has claims nobody and is passed over.
_VERDICT = """
    CREATE TEMP TABLE verdict AS
    WITH per_person AS (
        SELECT contact_row, person_row, count(DISTINCT identifier) AS identifiers
        FROM claim GROUP BY ALL),
    agreement AS (
        SELECT contact_row, count(*) AS persons, max(identifiers) AS best, min(person_row) AS only
        FROM per_person GROUP BY ALL),
    used AS (
        SELECT contact_row, count(DISTINCT identifier) AS identifiers,
               min(CASE identifier WHEN 'person_key' THEN 1 WHEN 'mdn' THEN 3 ELSE 2 END) AS rank
        FROM claim GROUP BY ALL)
    SELECT a.contact_row, CASE WHEN a.persons = 1 THEN a.only END AS person_row,
           CASE used.rank WHEN 1 THEN 'person_key' WHEN 2 THEN 'external_person_id'
                          ELSE 'mdn' END AS matched_by,
           a.best < used.identifiers OR (a.persons = 1
               AND coalesce(p.key <> l.key, false)) AS is_split,
           a.persons = 1 AND coalesce(p.mdn <> l.mdn, false) AS is_mdn_change, l.passes, l.is_odd
    FROM agreement a JOIN used USING (contact_row) JOIN loose l USING (contact_row)
    JOIN person p ON p.row_number = a.only"""

_CLAIMED_BY_TWO = """
    CREATE TEMP TABLE claimed_by_two AS
    SELECT v.person_row FROM verdict v JOIN loose l USING (contact_row)
    WHERE v.person_row IS NOT NULL AND NOT v.is_split
    GROUP BY v.person_row
    HAVING count(DISTINCT coalesce('=' || l.key, v.contact_row::VARCHAR)) > 1"""

# Who the person is stays sure when only a value or the number of the contact is in doubt.
_IN_DOUBT = f"""
    SELECT row_number FROM finding
    WHERE source = 'contact' AND kind NOT IN {text_list(NOT_OF_IDENTITY)}"""

_SURE = f"""
    WITH doubt AS ({_IN_DOUBT})
    SELECT contact_row, person_row,
           CASE WHEN by_person_key THEN 'person_key' ELSE 'external_person_id' END AS matched_by,
           passes, differs, is_odd
    FROM pair ANTI JOIN doubt ON pair.contact_row = doubt.row_number
    UNION ALL
    SELECT contact_row, person_row, matched_by, passes, true, is_odd
    FROM verdict ANTI JOIN doubt ON verdict.contact_row = doubt.row_number
    WHERE person_row IS NOT NULL"""

# A decided contact that is paired by its key and agrees in every identifier is sure by itself; of
# one that is odd the decision says not to look at its number.
_RECOGNISED = f"""
    CREATE TEMP VIEW recognised AS
    WITH holding AS (
        SELECT contact_row, person_row FROM decided
        ANTI JOIN (SELECT contact_row FROM pair WHERE NOT is_odd) paired USING (contact_row)
        WHERE why IS NULL)
    SELECT sure.* FROM ({_SURE}) sure ANTI JOIN holding USING (contact_row)
    UNION ALL
    SELECT contact_row, holding.person_row, {literal(LINKED)}, c.passes, true, c.has_issue
    FROM holding JOIN contact c ON c.row_number = contact_row
    ANTI JOIN ({_IN_DOUBT}) doubt ON holding.contact_row = doubt.row_number
    WHERE holding.person_row IS NOT NULL"""

_MATCH = f"""
    CREATE TEMP VIEW match AS
    SELECT * FROM recognised ANTI JOIN (
        SELECT row_number FROM finding
        WHERE source = 'contact' AND kind IN {text_list(OF_NUMBERS)}) doubt
      ON contact_row = doubt.row_number"""
