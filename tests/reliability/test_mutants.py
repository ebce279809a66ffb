"""Mutants have the mistakes that tests/reliability/mutants.py describes, one each, and every verdict is about a mutant that exists."""

import ast

import pytest

from tests.reliability.mutants import mutants, mutated
from tests.reliability.mutations import MODULES, ROOT, judged, mirror


@pytest.mark.parametrize(
    ("code", "mistakes"),
    [
        ("x = a < b", ["a <= b"]),
        ("x = a != b not in c", ["a == b not in c", "a != b in c"]),
        ("x = a - b", ["a + b"]),
        ("x = a and b and c", ["a or b or c", "b and c", "a and c", "a and b"]),
        ("x = not a", ["a"]),
        ("x = -a", ["a"]),
        ("x = a if b else c", ["a", "c", "a if not b else c"]),
        ("x = 0.5", ["1.5", "-0.5"]),
        ("x = True", ["False"]),
        ("x = 'key'", ["'keyX'"]),
        ("x = f'{a}.key'", ["f'{a}.keyX'"]),
    ],
)
def test_a_value_s_mistakes(code: str, mistakes: list[str]) -> None:
    assert [mutant.after for mutant in mutants(code)] == [f"x = {mistake}" for mistake in mistakes]
    assert {mutant.before for mutant in mutants(code)} == {ast.unparse(ast.parse(code))}


@pytest.mark.parametrize(
    ("code", "mistakes"),
    [
        ("call()", ["pass"]),
        ("raise error", ["pass"]),
        ("x += a", ["pass", "x -= a"]),
        ("x[a] = b", ["pass"]),
        ("x.a = b", ["pass"]),
        ("while a: break", ["while not a:", "pass"]),
        ("def f(): return a", ["return None"]),
        ("if a: continue", ["if not a:", "pass"]),
        ("class A:\n    a: Literal['b'] = c", ["a: Literal['bX'] = c"]),
    ],
)
def test_a_statement_s_mistakes(code: str, mistakes: list[str]) -> None:
    assert [mutant.after for mutant in mutants(code)] == mistakes


@pytest.mark.parametrize(
    "code",
    [
        '"""A module."""',
        "x = a",
        "def f(a: 'b') -> 'c': return",
        "def f() -> None:\n    '''A function.'''\n    return None",
        "@decorator(1)\ndef f(): ...",
        "x: 'a' = b",
        "x = 'two words'",
        "x = f'{a:4d} words'",
        "x = a @ b",
    ],
)
def test_what_is_not_changed(code: str) -> None:
    assert [mutant.after for mutant in mutants(code) if mutant.after != "pass"] == []


def test_the_wording_of_an_error_is_not_changed_but_its_numbers_are() -> None:
    errors = [f"raise Error(f'line{{{number}}}', 'word')" for number in (1, 2, 0)]
    assert [mutant.after for mutant in mutants(errors[0])] == ["pass", *errors[1:]]


@pytest.mark.parametrize("module", MODULES)
def test_mutants_differ_from_the_module_and_have_unique_descriptions(module: str) -> None:
    source = (ROOT / module).read_text(encoding="utf-8")
    assert (ROOT / mirror(module)).is_file()
    assert ast.dump(ast.parse(mutated(source, None))) == ast.dump(ast.parse(source))
    found = mutants(source)
    assert [mutant.number for mutant in found] == list(range(len(found)))
    assert len({str(mutant) for mutant in found}) == len(found)
    for mutant in found[:: max(1, len(found) // 20)]:
        assert mutated(source, mutant.number) != mutated(source, None)


def test_every_verdict_is_about_a_mutant_that_exists() -> None:
    for module, verdicts in judged().items():
        existing = {str(mutant) for mutant in mutants((ROOT / module).read_text(encoding="utf-8"))}
        assert verdicts.keys() <= existing, sorted(verdicts.keys() - existing)
        assert module in MODULES
