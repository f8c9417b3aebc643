"""Mutations: each text and each piece of code is changed by what it is, sentences not at all."""

import ast
import tomllib
from pathlib import Path

import pytest

from tools.mutations import mutations

ROOT = Path(__file__).parents[2]


def mutated(source: str) -> set[str]:
    """The module after each of its mutations."""
    every = set()
    for number, _ in enumerate(mutations(ast.parse(source))):
        tree = ast.parse(source)
        list(mutations(tree))[number].apply()
        every.add(ast.unparse(ast.fix_missing_locations(tree)))
    return every


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", {"a <= b"}),
        ("a and b", {"a or b"}),
        ("not a", {"a"}),
        ("a + b", {"a - b"}),
        ("x = 1", {"x = 2"}),
        ("x = True", {"x = False"}),
        ("x = 'word'", {"x = 'XXword'"}),
        ("x = 'a sentence for people'", set()),
        ("check(a)", {"pass"}),
        ("x = a if b else c", {"x = a if not b else c"}),
        ("x = [a for a in b if a]", {"x = [a for a in b if True]"}),
        ("x = min(a)", {"x = max(a)"}),
        ("def f(a: int | None = None) -> 'str':\n    '''Says it all.'''", set()),
        ("Lane = Literal['persons']", set()),
    ],
)
def test_code_is_changed_by_its_kind(source: str, expected: set[str]) -> None:
    assert mutated(source) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a IS NULL AND b", {"a IS NOT NULL AND b", "a IS NULL OR b"}),
        ("SELECT a FROM x ANTI JOIN y", {"SELECT a FROM x SEMI JOIN y"}),
        (
            "CASE WHEN a <= 9 THEN 'no' END",
            {
                "CASE WHEN a < 9 THEN 'no' END",
                "CASE WHEN a <= 10 THEN 'no' END",
                "CASE WHEN a <= 9 THEN 'XXno' END",
            },
        ),
    ],
)
def test_sql_is_changed_by_its_own_operators(sql: str, expected: set[str]) -> None:
    assert mutated(f"x = {sql!r}") == {f"x = {one!r}" for one in expected}


def test_the_parts_of_a_composed_text_are_known_by_the_whole() -> None:
    assert mutated("x = f'{a} <= {b} AND {c}'") == {
        "x = f'{a} < {b} AND {c}'",
        "x = f'{a} <= {b} OR {c}'",
    }


def test_regular_expressions_lose_a_quantifier_or_an_anchor() -> None:
    assert mutated("x = '^[a-z]+$'") == {"x = '[a-z]+$'", "x = '^[a-z]*$'", "x = '^[a-z]+'"}


def test_every_module_and_every_test_of_the_table_exists() -> None:
    table = tomllib.loads((ROOT / "tools" / "mutants.toml").read_text(encoding="utf-8"))["modules"]
    for module, tests in table.items():
        assert ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file(), module
        for test in tests:
            assert (ROOT / "vibes_pipelines_tests" / test.partition("::")[0]).is_file(), test
