"""The modules of the zoos, written anew as other static checkers read them: each class with all of its methods."""

import ast
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "zoo"))

from harness import FILES, FOLDER, Checker, loaded
from truth import axes, claimed, grid

TRUTHS = ("truth_sequences", "truth_images", "truth_tensors", "truth_reports")
SHAPES = ("Float", "Int", "Bool")


@dataclass(frozen=True)
class Style:
    """How a checker wants shapes to be written."""

    annotation: Callable[[str, list[str]], str]
    """An annotation from the dtype's name and the axes as texts."""
    header: str = ""
    declare: Callable[[list[str]], str] | None = None
    """A decorator for a method, from the names of its axes."""
    reveal: str = ""
    """A function that is put around what `forward` returns."""


class Sample(NamedTuple):
    """A module of a zoo."""

    file: str
    module: type[nn.Module]
    known: Any
    """What the zoo knows of it: a Specimen or a Known."""

    @property
    def key(self) -> tuple[str, str]:
        return self.file, self.module.__name__

    @property
    def bounded(self) -> bool:
        """Whether it has bounds (WHERE), which are in no annotation."""
        return hasattr(self.module, "WHERE")

    def faulty(self) -> bool:
        """Whether it breaks its contract at any size that the contract claims."""
        if self.file in FILES:
            return self.known.fault is not None
        sizes = grid(axes(self.module()))
        return self.known.keeps_state or not all(claimed(self.known.holds, at) for at in sizes)


@cache
def samples(checker: Checker) -> list[Sample]:
    """Every module of the zoos, its methods checked by the checker."""
    files = {file: loaded(file, checker, f"all_{checker.__name__}") for file in (*FILES, *TRUTHS)}
    return [
        Sample(file, known.module, known)
        for file, module in files.items()
        for known in (module.SPECIMENS if file in FILES else module.KNOWN)
    ]


class Source(NamedTuple):
    """A file as one checker reads it."""

    text: str
    places: dict[tuple[str, str], range]
    """The lines of each sample."""
    returned: list[tuple[int, str]]
    """The line of each value that a `forward` returns, and its name, empty if it is more than a name."""


def source(file: str, some: Sequence[Sample], style: Style) -> Source:
    """The samples of a file in another style, each as if its class had been written alone."""
    tree = ast.parse((FOLDER / f"{file}.py").read_text("utf8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    alone = [_Translator(each.module(), style).visit(_alone(each.module, classes)) for each in some]
    kept = [node for node in tree.body if not isinstance(node, ast.ClassDef) and not _of_the_zoo(node)]
    tree.body = [*ast.parse(style.header).body, *kept, *alone]
    text = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    written = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    lines = {node.name: range(node.lineno, (node.end_lineno or node.lineno) + 1) for node in written}
    forwards = [node for one in written for node in one.body if getattr(node, "name", "") == "forward"]
    values = [node.value for one in forwards for node in ast.walk(one) if isinstance(node, ast.Return) and node.value]
    returned = [(node.lineno, node.id if isinstance(node, ast.Name) else "") for node in values]
    return Source(text, {each.key: lines[each.module.__name__] for each in some}, returned)


def _of_the_zoo(node: ast.stmt) -> bool:
    """Whether it is about the zoo itself: its lists, and the imports for them and for contracts."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) in ("SPECIMENS", "KNOWN", "HUB", "_GITHUB")
    return isinstance(node, ast.ImportFrom) and node.module in ("specimen", "truth", "towers.contracts")


def _alone(module: type[nn.Module], classes: dict[str, ast.ClassDef]) -> ast.ClassDef:
    """A class with what it inherits from other classes of its file written out, and without them."""
    methods: dict[str, ast.FunctionDef] = {}
    for base in reversed(module.__mro__):
        if base.__module__ == module.__module__:
            copied = ast.parse(ast.unparse(classes[base.__name__])).body[0]
            own = {node.name: node for node in copied.body if isinstance(node, ast.FunctionDef)}
            if "__init__" in own and "__init__" in methods:
                own["__init__"].body = _last([*methods["__init__"].body, *own["__init__"].body[1:]])
            methods |= own
    alone = ast.parse(f"class {module.__name__}(nn.Module): pass").body[0]
    alone.body = list(methods.values())
    return alone


def _last(statements: list[ast.stmt]) -> list[ast.stmt]:
    """The statements without those that a later one replaces."""
    targets = [ast.unparse(each.targets[0]) if isinstance(each, ast.Assign) else "" for each in statements]
    later = [{*targets[place + 1 :]} - {""} for place in range(len(targets))]
    return [each for each, target, replaced in zip(statements, targets, later, strict=True) if target not in replaced]


class _Translator(ast.NodeTransformer):
    """Writes the annotations of one class in another style, with the number in place of what stands in braces."""

    def __init__(self, instance: nn.Module, style: Style) -> None:
        self.instance, self.style = instance, style
        self.names: dict[str, None] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.names = {}
        node.decorator_list = []
        self.generic_visit(node)
        _free_parameters(node)
        if self.style.declare is not None and self.names:
            node.decorator_list = [_expression(self.style.declare(list(self.names)))]
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        dtype = ast.unparse(node.value)
        if dtype not in SHAPES or not isinstance(node.slice, ast.Tuple):
            return self.generic_visit(node)
        dims = [numbered(dim, self.instance) for dim in ast.literal_eval(node.slice.elts[1]).split()]
        self.names |= dict.fromkeys(re.findall(r"\b(?!min\b|max\b)[a-z]\w*", " ".join(dims)))
        return _expression(self.style.annotation(dtype, dims))

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        if self.style.reveal and node.value is not None:
            node.value = ast.Call(_expression(self.style.reveal), [node.value], [])
        return node


def _free_parameters(node: ast.FunctionDef) -> None:
    """A parameter that the body assigns anew gets another name, for its annotation speaks of what is given only."""
    stored = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    for parameter in node.args.args:
        if parameter.arg in stored and parameter.annotation is not None:
            node.body.insert(0, ast.parse(f"{parameter.arg} = given_{parameter.arg}").body[0])
            parameter.arg = f"given_{parameter.arg}"


def numbered(dim: str, instance: nn.Module) -> str:
    """An axis with the number in place of what stands in braces."""
    return re.sub(r"\{(.*?)\}", lambda braces: str(eval(braces[1], {"self": instance})), dim)


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body
