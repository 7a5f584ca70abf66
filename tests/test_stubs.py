"""The stubs of `.stubs/torch` name nothing that the installed torch lacks."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / ".stubs"
STUBS = sorted((ROOT / "torch").rglob("*.pyi"))


def _named(body: list[ast.stmt]) -> list[str]:
    names: list[str] = []
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names += [alias.asname for alias in node.names if alias.asname]
    return names


def test_the_stubs_are_there():
    assert STUBS


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.relative_to(ROOT).as_posix())
def test_torch_has_what_a_stub_names(stub: Path) -> None:
    place = stub.relative_to(ROOT).with_suffix("").parts
    module = import_module(".".join(place[:-1] if place[-1] == "__init__" else place))
    body = ast.parse(stub.read_text()).body
    missing = [name for name in _named(body) if not hasattr(module, name)]
    for node in body:
        if isinstance(node, ast.ClassDef) and hasattr(module, node.name):
            kind = getattr(module, node.name)
            functions = [one.name for one in node.body if isinstance(one, ast.FunctionDef)]
            missing += [f"{node.name}.{name}" for name in functions if not hasattr(kind, name)]
    assert not missing
