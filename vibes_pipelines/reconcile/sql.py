"""Writing SQL safely: the only place that quotes identifiers and text, plus the text cleaner.

Every other module of the reconcile composes SQL from these helpers; no meaning of a field or of an
identifier belongs here.
"""

from collections.abc import Iterable

from vibes_pipelines.blanks import BLANKS


def ident(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted text literal."""
    return "'" + text.replace("'", "''") + "'"


def nullable_literal(text: str | None) -> str:
    """A quoted text literal, or NULL."""
    return "NULL" if text is None else literal(text)


def text_list(texts: Iterable[str]) -> str:
    """A parenthesised list of text literals; of NULL when there is none, as SQL wants one."""
    return "(" + (", ".join(literal(text) for text in texts) or "NULL") + ")"


def clean(text: str) -> str:
    """SQL for: NFC, trimmed of `BLANKS`, blank = NULL.

    The first branch only saves time: ASCII is NFC, and text that begins and ends with something to
    be seen has nothing to trim. It costs a seventh of the trimming. Text with a NUL stays as it is,
    because the engine's `nfc_normalize` would cut it off there.
    """
    nfc = f"CASE WHEN contains({text}, chr(0)) THEN {text} ELSE nfc_normalize({text}) END"
    return (
        f"CASE WHEN strlen({text}) = length({text}) AND {text} >= '!' AND ({text})[-1] >= '!'"
        f" THEN {text} ELSE nullif(trim({nfc}, {literal(BLANKS)}), '') END"
    )


def let(name: str, value: str, body: str) -> str:
    """SQL for `body` with `name` bound to `value`, which is then written and computed once.

    Without it, SQL that needs a value many times grows with every level of nesting, and planning it
    takes longer than running it. Costs a list per row: for slow paths only.
    """
    return f"list_transform([{value}], lambda {name}: {body})[1]"


def any_of(conditions: Iterable[str]) -> str:
    """SQL for: at least one holds; unknown counts as not."""
    parts = [f"({condition})" for condition in conditions]
    return f"coalesce({' OR '.join(parts)}, false)" if parts else "false"


def all_of(conditions: Iterable[str]) -> str:
    """SQL for: every one holds; unknown counts as not."""
    parts = [f"({condition})" for condition in conditions]
    return f"coalesce({' AND '.join(parts)}, false)" if parts else "true"
