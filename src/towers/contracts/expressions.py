"""The small language of axis sizes and conditions: `words-1`, `min(a,b)`, `{self.hidden}`, `2 <= lengths <= words`.

A name alone is an axis (or an argument). A path in braces is read from the arguments: `{self.hidden}`, `{chunk}`.
The text is parsed; only a fixed list of syntax is allowed, and nothing is run as code.
"""

import ast
import copy
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / right,
    ast.FloorDiv: lambda left, right: left // right,
    ast.Mod: operator.mod,
}
_CALLS: dict[str, Callable[..., Any]] = {"min": min, "max": max}
_PATH = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[-?\d+\])*"
_BRACES = re.compile(rf"\{{({_PATH}|len\({_PATH}\))\}}")
_RELATIONS: dict[type[ast.cmpop], str] = {ast.LtE: "<=", ast.Lt: "<", ast.GtE: ">=", ast.Gt: ">", ast.Eq: "=="}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}
_MIRROR = {"<=": ">=", ">=": "<=", "<": ">", ">": "<", "==": "=="}

Lookup = Callable[[str], Any]
Evaluate = Callable[[Lookup, Lookup], Any]


@dataclass(frozen=True)
class Expression:
    """An arithmetic expression over axis names and, in braces, arguments."""

    text: str
    names: tuple[str, ...]
    """The names outside of braces."""
    braces: tuple[str, ...]
    """The paths in braces."""
    divisors: tuple["Expression", ...]
    """The divisors that are not plain numbers."""
    evaluate: Evaluate
    """Gives the value, from a function that reads axes and one that reads paths in braces."""
    tree: ast.expr
    paths: Mapping[str, str]
    """The names in the tree that replace paths in braces."""

    def spell(self, names: Mapping[str, str]) -> str:
        """The expression as source, with other text for each name and each path in braces."""
        return ast.unparse(_Renamed(names, self.paths).visit(copy.deepcopy(self.tree)))

    def linear_in(self, name: str) -> bool:
        """Whether it is a constant times the name plus terms without the name."""
        return _degree(self.tree, name) == 1


@dataclass(frozen=True)
class Condition:
    """One comparison, with the axis or argument that is bounded on the left: `subject relation bound`."""

    text: str
    subject: Expression
    relation: str
    bound: Expression
    unit: str
    """The word after the number in a message: another name of the comparison, or the last name in braces."""

    @property
    def parts(self) -> "tuple[Expression, Expression] | None":
        """The two sides of `%` in a condition such as `steps % chunk == 0`; None for other conditions."""
        if self.relation != "==" or self.bound.text != "0":
            return None
        match self.subject.tree:
            case ast.BinOp(left, ast.Mod(), right):
                return _checked(self.text, left, self.subject.paths), _checked(self.text, right, self.subject.paths)
            case _:
                return None

    @property
    def compare(self) -> Callable[[Any, Any], Any]:
        """The relation as a function of the subject's value and the bound."""
        return _COMPARE[self.relation]


def expression(text: str) -> Expression:
    """Parse the size of an axis.

    Raises:
        ValueError: the text is no expression of ints, names, names in braces, `+ - * / // %`, min and max; or it
            always divides by 0.
    """
    if text.isidentifier():  # a Python keyword is a good name for an axis too: "out in"
        return _checked(text, ast.Name(text), {})
    tree, braces = (ast.Constant(int(text)), {}) if text.isdecimal() else _parse(text)  # 007 is no int of Python
    if tree is None:
        raise ValueError(
            f"{text!r} cannot be read as an expression over axis names (which holds no space in an annotation)"
        )
    return _checked(text, tree, braces)


@cache
def conditions(text: str) -> Sequence[Condition]:
    """Parse a condition such as `words >= {self.kernel_words}` or `2 <= lengths <= words`, a chain link by link.

    Raises:
        ValueError: the text is no comparison by `<= < >= > ==` of such expressions.
    """
    tree, braces = _parse(text)
    if not isinstance(tree, ast.Compare) or any(type(operation) not in _RELATIONS for operation in tree.ops):
        both = "; where both must hold, they are two conditions" if isinstance(tree, ast.BoolOp) else ""
        raise ValueError(f"{text!r} is no condition: it must compare sizes by <=, <, >=, > or =={both}")
    sides = [_checked(text, side, braces) for side in (tree.left, *tree.comparators)]
    return [
        _turned(text, left, _RELATIONS[type(operation)], right, sides)
        for left, operation, right in zip(sides, tree.ops, sides[1:], strict=False)
    ]


def path_root(path: str) -> str:
    """The name that a path starts from: `self` in `self.left.hidden`, `x` in `x.shape[0]` and `len(x)`."""
    return _steps(path)[0]


def rooted(path: str, root: str) -> str:
    """The same path from another root."""
    inside = _inside_len(path)
    moved = root + inside[len(path_root(path)) :]
    return moved if inside == path else f"len({moved})"


def indexed(path: str) -> list[tuple[str, int]]:
    """The indexed parts of a path with their indices: `x.shape` and 0 for `x.shape[0]`."""
    steps = _steps(path)
    items = [at for at, step in enumerate(steps) if step.startswith("[")]
    return [(".".join(steps[:at]).replace(".[", "["), int(steps[at][1:-1])) for at in items]


def read_path(root: Any, path: str) -> Any:
    """The value of a path such as `self.left.hidden`, `x.shape[0]` or `len(x)`, given the value of its first name."""
    for step in _steps(path)[1:]:
        root = root[int(step[1:-1])] if step.startswith("[") else getattr(root, step)
    return len(root) if path.startswith("len(") else root


def _steps(path: str) -> list[str]:
    """`self`, `sizes` and `[0]` of `self.sizes[0]`. It uses no regular expression, because Dynamo traces it too."""
    return _inside_len(path).replace("[", ".[").split(".")


def _inside_len(path: str) -> str:
    return path.removeprefix("len(").removesuffix(")") if path.startswith("len(") else path


def _turned(text: str, left: Expression, relation: str, right: Expression, sides: Sequence[Expression]) -> Condition:
    subject, relation, bound = (left, relation, right) if left.names else (right, _MIRROR[relation], left)
    others = [name for side in sides for name in side.names if name not in subject.names]
    inside = [path.rpartition(".")[2] for path in bound.braces]
    if subject.names:
        return Condition(text, subject, relation, bound, unit=[*others, *inside, ""][0])
    raise ValueError(f"{text!r} bounds nothing: one side must name an axis or an argument, outside of braces")


def _parse(text: str) -> tuple[ast.expr | None, dict[str, str]]:
    braces: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        name = f"braces_{len(braces)}_"
        braces[name] = match[1]
        return name

    if re.search(r"\w\{|\}[\w{]", text):
        raise ValueError(f"{text!r}: braces stand for a whole number; between them and other text stands an operator")
    try:
        return ast.parse(_BRACES.sub(stand_in, text), mode="eval").body, braces
    except SyntaxError:
        return None, braces


def _checked(text: str, tree: ast.expr, braces: Mapping[str, str]) -> Expression:
    evaluate = _evaluation(text, tree, braces)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    own = ast.unparse(tree)
    for name, path in braces.items():
        own = own.replace(name, "{" + path + "}")
    divisors = [
        _checked(text, node.right, braces)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, (ast.Div, ast.FloorDiv, ast.Mod))
        and not (isinstance(node.right, ast.Constant) and node.right.value)
    ]
    if any(not (one.names or one.braces or one.evaluate(int, int)) for one in divisors):
        raise ValueError(f"{text!r} divides by 0")
    return Expression(
        text=own,
        names=tuple(dict.fromkeys(name for name in names if name not in braces)),
        braces=tuple(dict.fromkeys(braces[name] for name in names if name in braces)),
        divisors=tuple(divisors),
        evaluate=evaluate,
        tree=tree,
        paths=braces,
    )


def _evaluation(text: str, node: ast.expr, braces: Mapping[str, str]) -> Evaluate:
    match node:
        case ast.Constant(int() as value):
            return lambda axis, argument: value
        case ast.Name(name) if name in braces:
            path = braces[name]
            return lambda axis, argument: argument(path)
        case ast.Name(name):
            return lambda axis, argument: axis(name)
        case ast.BinOp(left, operation, right) if type(operation) in _BINARY:
            first, second = _evaluation(text, left, braces), _evaluation(text, right, braces)
            combine = _BINARY[type(operation)]
            return lambda axis, argument: combine(first(axis, argument), second(axis, argument))
        case ast.UnaryOp(ast.USub(), operand):
            positive = _evaluation(text, operand, braces)
            return lambda axis, argument: -positive(axis, argument)
        case ast.Call(ast.Name(name), [_, _, *_] as values, []) if name in _CALLS:
            parts, choose = [_evaluation(text, value, braces) for value in values], _CALLS[name]
            return lambda axis, argument: choose(*[part(axis, argument) for part in parts])
        case _:
            raise ValueError(f"{text!r} may only hold ints, names, names in braces and + - * / // %, min and max")


def _degree(node: ast.expr, name: str) -> float:
    """The degree of an expression in one name; infinite if it is not a polynomial."""
    match node:
        case ast.Name(own):
            return int(own == name)
        case ast.BinOp(left, ast.Add() | ast.Sub(), right):
            return max(_degree(left, name), _degree(right, name))
        case ast.BinOp(left, ast.Mult(), right):
            return _degree(left, name) + _degree(right, name)
        case ast.UnaryOp(_, operand):
            return _degree(operand, name)
        case _:
            inside = any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
            return float("inf") if inside else 0


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str], paths: Mapping[str, str]) -> None:
        self.names, self.paths = names, paths

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name = self.paths.get(node.id, node.id)
        return ast.parse(self.names[name], mode="eval").body if name in self.names else node
