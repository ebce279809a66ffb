"""Mutants of a module: its source with one small mistake, which its tests should notice.

A mistake is one of: `<` for `<=` and the like; `==`, `in` or `is` negated; `+` for `-`, `*` for `/`, `|` for `&`, also
in `+=`; `and` for `or`, or one side of it removed; a `not` or a minus removed; a bare condition negated; always the
same branch of `x if y else z`; a number increased or decreased by one, True for False, a character added to a text;
`return None`; and a statement removed: a call, a `raise`, `continue`, `break`, `+=`, or an assignment to an element or
(outside `__init__`) an attribute.

Not changed: docstrings, decorators, imports; annotations, except constants in a class's fields, which pydantic
evaluates; the wording of messages, i.e. texts inside a `raise`, with a space in them, or in an f-string with one, and
the format specs of f-strings; and assignments to plain names, since every such mutant raises a NameError.
"""

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
LONGEST = 100  # characters of code that describe a mutant
NONE = ast.Constant(None)


@dataclass(frozen=True)
class Mutant:
    """One mistake: its function and line, and the code around it before and after; equal descriptions are numbered."""

    number: int
    where: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"`{self.where}`: `{self.before}` → `{self.after}`"


@dataclass
class _Edit:
    chain: list[ast.AST]  # from the statement to what holds the old node; empty where a statement itself goes
    holder: ast.AST
    field: str
    index: int | None
    old: ast.AST
    new: ast.AST
    where: str

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.holder, self.field, node)
        else:
            getattr(self.holder, self.field)[self.index] = node


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, numbered from 0 in the order of its code."""
    found: list[Mutant] = []
    seen: Counter[tuple[str, str, str]] = Counter()
    for number, edit in enumerate(_edits(ast.parse(source))):
        # The longest part of the statement that is short enough.
        node = next((node for node in edit.chain if len(_code(node)) <= LONGEST), edit.old)
        before = _code(node)
        edit.put(edit.new)
        after = _code(edit.new if node is edit.old else node)
        edit.put(edit.old)
        mutant = Mutant(number, edit.where, edit.old.lineno, before, after)  # type: ignore[attr-defined]
        key = (mutant.where, before, after)
        seen[key] += 1
        found.append(replace(mutant, after=f"{after} #{seen[key]}") if seen[key] > 1 else mutant)
    return found


def mutated(source: str, number: int | None) -> str:
    """The source of one mutant; None returns the module unchanged, but parsed and unparsed in the same way."""
    tree = ast.parse(source)
    if number is not None:
        edit = next(edit for n, edit in enumerate(_edits(tree)) if n == number)
        edit.put(edit.new)
    return ast.unparse(ast.fix_missing_locations(tree))


def _code(node: ast.AST) -> str:
    """Code as one line; of a compound statement, only its head."""
    if hasattr(node, "body") and isinstance(node, ast.stmt):
        node = copy.copy(node)
        for part in ("body", "orelse", "handlers", "finalbody", "decorator_list"):
            setattr(node, part, [])
    return " ".join(ast.unparse(node).split()).replace("`", "'")


def _edits(
    node: ast.AST, where: str = "", chain: tuple[ast.AST, ...] = (), wording: bool = False, constants: bool = False
) -> Iterator[_Edit]:
    """Every edit below `node`. `wording`: do not change texts; `constants`: change nothing but constants."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        where = f"{where}.{node.name}".lstrip(".")
    wording = wording or isinstance(node, ast.Raise)
    if isinstance(node, ast.JoinedStr):
        wording = wording or any(isinstance(part, ast.Constant) and " " in str(part.value) for part in node.values)
    for field, value in ast.iter_fields(node):
        if field in ("decorator_list", "returns", "format_spec"):
            continue
        if field == "annotation" and not constants:
            in_class = isinstance(node, ast.AnnAssign) and len(chain) > 1 and isinstance(chain[-1], ast.ClassDef)
            if not in_class:
                continue
        only = constants or field == "annotation"
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _is_docstring(child):
                continue
            inner = (*chain, node)
            first = max(n for n, outer in enumerate(inner) if isinstance(outer, ast.stmt | ast.Module))
            for new in _mistakes(child, node, field, where, wording):
                if not only or isinstance(child, ast.Constant):
                    around = [] if isinstance(child, ast.stmt) else list(inner[first:])
                    yield _Edit(around, node, field, index, child, new, where or "module")
            yield from _edits(child, where, inner, wording, only)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _mistakes(node: ast.AST, parent: ast.AST, field: str, where: str, wording: bool) -> Iterator[ast.AST]:
    """The nodes that may replace this one."""
    match node:
        case ast.Compare(left, operators, others):
            for n, operator in enumerate(operators):
                new = [*operators[:n], SWAPS[type(operator)](), *operators[n + 1 :]]
                yield ast.Compare(left, new, others)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(SWAPS[type(operator)](), values)
            for n in range(len(values)):
                left_over = values[:n] + values[n + 1 :]
                yield left_over[0] if len(left_over) == 1 else ast.BoolOp(operator, left_over)
        case ast.BinOp(left, operator, right) if type(operator) in SWAPS and not (_is_text(left) or _is_text(right)):
            yield ast.BinOp(left, SWAPS[type(operator)](), right)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.IfExp(_, body, orelse):
            yield body
            yield orelse
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Constant(str(value)) if not wording and " " not in value:
            yield ast.Constant(f"{value}X")
        case ast.Constant(bytes(value)):
            yield ast.Constant(value + b"X")
        case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(NONE)
        case ast.AugAssign(target, operator, value):
            yield ast.Pass()
            if type(operator) in SWAPS:
                yield ast.AugAssign(target, SWAPS[type(operator)](), value)
        case ast.Assign([ast.Subscript(), *_]):
            yield ast.Pass()
        case ast.Assign([ast.Attribute(), *_]) if not where.endswith("__init__"):
            yield ast.Pass()
        case ast.Expr() | ast.Raise() | ast.Continue() | ast.Break() | ast.Return(None) | ast.Delete():
            yield ast.Pass()
        case ast.Name() | ast.Attribute() | ast.Call() | ast.Subscript() if field in ("test", "ifs"):
            yield ast.UnaryOp(ast.Not(), node)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
