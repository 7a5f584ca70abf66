"""`install`: a package that knows nothing of contracts gets them where its annotations speak of tensors."""

import importlib
import os
import re
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path

import pytest
import torch

from towers import contracts
from towers.contracts import ShapeContractError, install

from ..helpers.forked import Forks

LAYERS = '''
"""Some layers."""
from __future__ import annotations
from dataclasses import dataclass
from functools import cached_property
from typing import overload, no_type_check, TYPE_CHECKING
import torch
from torch import Tensor, nn
from jaxtyping import Float
from towers.contracts import contract
if TYPE_CHECKING:
    from nowhere import Thing

def double(x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    return torch.cat([x, x[:0]])

def plain(x: int, y: Tensor | None = None) -> str:
    return str(x)

def bare(x):
    return x

def unknown(x: Float[Tensor, "n"], y: Thing) -> None: ...

@no_type_check
def unchecked(x: Float[Tensor, "n"]) -> None: ...

@no_type_check
class Unchecked:
    def method(self, x: Float[Tensor, "n"]) -> None: ...
    class Inner:
        def method(self, x: Float[Tensor, "n"]) -> None: ...

@no_type_check
def unchecked_with_another():
    def inner(x: Float[Tensor, "n"]) -> None: ...
    return inner

@contract(where="n >= 2")
def own(x: Float[Tensor, "n"]) -> None: ...

@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x + 1

def outer():
    Local = Float[Tensor, "n 3"]
    def inner(x: Local) -> None: ...
    return inner

async def later(x: Float[Tensor, "n"]) -> None: ...

class Layer(nn.Module):
    width = 3
    def forward(self, x: Float[Tensor, "batch {self.width}"]) -> Float[Tensor, "batch"]:
        return x.sum(1)
    @property
    def size(self) -> Float[Tensor, "3"]:
        return torch.zeros(self.width)
    @staticmethod
    def of(x: Float[Tensor, "n"]) -> None: ...
    @classmethod
    def made(cls, x: Float[Tensor, "n"]) -> Layer:
        return cls()

@dataclass
class Batch:
    x: Float[Tensor, "n"]
    y: Float[Tensor, "n"]

@dataclass
class Numbers:
    n: int
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package, and what it imports as."""
    (tmp_path / "strangers").mkdir()
    (tmp_path / "strangers" / "__init__.py").write_text("from strangers.layers import double\n")
    (tmp_path / "strangers" / "layers.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    yield tmp_path / "strangers"
    assert sys.meta_path == before
    for name in [name for name in sys.modules if name.partition(".")[0] == "strangers"]:
        del sys.modules[name]


def f(*shape):
    return torch.zeros(shape)


def test_what_speaks_of_tensors_is_checked(package):
    with install("strangers"):
        layers = importlib.import_module("strangers.layers")
    layer = layers.Layer()
    fitting = [
        (layers.double, (f(2),)),
        (layers.unknown, (f(2), "anything")),
        (layers.outer(), (f(2, 3),)),
        (layer, (f(2, 3),)),
        (layers.Layer.of, (f(2),)),
        (layers.Layer.made, (f(2),)),
        (layers.own, (f(2),)),
    ]
    for function, arguments in fitting:
        function(*arguments)
        with pytest.raises(ShapeContractError):
            function(f(2, 3, 4), *arguments[1:])
    with pytest.raises(ShapeContractError):
        layers.later(f(2, 2)).send(None)
    assert layer.size.shape == (3,)
    layer.width = 4
    with pytest.raises(ShapeContractError):
        _ = layer.size
    layers.Batch(f(2), f(2))
    with pytest.raises(ShapeContractError, match=r"self.y: n is 3"):
        layers.Batch(f(2), f(3))
    with pytest.raises(ShapeContractError, match="at least 2"):
        layers.own(f(1))


def test_the_rest_is_left_alone(package):
    with install("strangers"):
        layers = importlib.import_module("strangers.layers")
    for function in (layers.plain, layers.bare, layers.unchecked, layers.Numbers.__init__):
        assert not hasattr(function, "__contract__")
    assert layers.plain("no int") == "no int"
    for unchecked in (
        layers.unchecked,
        layers.Unchecked().method,
        layers.Unchecked.Inner().method,
        layers.unchecked_with_another(),
    ):
        unchecked(f(2, 2))
    layers.Numbers("3")
    assert layers.scripted(f(2)).sum() == 2
    assert layers.own.__contract__.where
    assert "__pycache__" not in os.listdir(package) or not list((package / "__pycache__").glob("layers*"))
    assert layers.__doc__ == "Some layers."
    assert layers.double.__code__.co_name == "checked"
    assert Path(layers.double.__wrapped__.__code__.co_filename) == package / "layers.py"
    assert LAYERS.splitlines()[layers.double.__wrapped__.__code__.co_firstlineno - 1].startswith("def double")


MADE = '''
"""Classes that become dataclasses without the decorator."""
import dataclasses
from jaxtyping import Float
from torch import Tensor

class Record:
    def __init_subclass__(cls):
        dataclasses.dataclass(cls)

class Made(type):
    def __new__(kind, name, bases, names):
        return dataclasses.dataclass(super().__new__(kind, name, bases, names))

class Pair(Record):
    left: Float[Tensor, "n"]
    right: Float[Tensor, "n"]

class Square(metaclass=Made):
    sides: Float[Tensor, "n n"]

@dataclasses.dataclass
class Base:
    x: Float[Tensor, "n"]

class Inherits(Base):
    count = 0
    def __init__(self):
        Inherits.count += 1
        super().__init__("no tensor")
'''


def test_classes_that_a_base_or_a_metaclass_makes_dataclasses(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made.py").write_text(MADE)
    with install("made"):
        made = importlib.import_module("made")
    try:
        assert made.Pair(torch.zeros(2), torch.zeros(2)).left.shape == (2,)
        with pytest.raises(ShapeContractError, match="right"):
            made.Pair(torch.zeros(2), torch.zeros(3))
        with pytest.raises(ShapeContractError, match="sides"):
            made.Square(torch.zeros(2, 3))
        with pytest.raises(ShapeContractError, match="x"):
            made.Inherits()
        assert made.Inherits.count == 1
        assert not hasattr(vars(made.Inherits)["__init__"], "__contract__")  # no dataclass of its own
    finally:
        del sys.modules["made"]


def test_another_package_and_what_comes_after_remove_have_no_contracts(package):
    with pytest.warns(RuntimeWarning, match="no package"), install("strange", "strangers.other"):
        layers = importlib.import_module("strangers.layers")
    assert not hasattr(layers.double, "__contract__")


def test_what_is_imported_already_is_a_warning(package):
    importlib.import_module("strangers")
    with pytest.warns(RuntimeWarning, match="strangers is imported already and has no contracts"):
        install("strangers").remove()


def test_what_cannot_be_read_is_a_warning_and_not_checked(package):
    (package / "odd.py").write_text(
        "from jaxtyping import Float\nfrom torch import Tensor\n"
        "def odd(x: Float[Tensor, 'n**2']) -> None: ...\n"
        "def even(x: Float[Tensor, 'n']) -> None: ...\n"
    )
    with install("strangers"), pytest.warns(RuntimeWarning, match=r"strangers.odd.odd has no contract: 'n\*\*2'"):
        odd = importlib.import_module("strangers.odd")
    odd.odd(3)
    with pytest.raises(ShapeContractError):
        odd.even(3)


def test_a_module_that_is_not_whole_yet_is_asked_again(package):
    """Two modules import each other, and the annotations of one are text about the other, as in linear_operator."""
    head = "from __future__ import annotations\nfrom jaxtyping import Float\nfrom torch import Tensor\n"
    (package / "here.py").write_text(head + "from strangers import there\nX = Float[Tensor, 'n 2']\nclass Thing: ...\n")
    (package / "there.py").write_text(
        head + "import strangers.here as here\n"
        "def late(x: here.X, y: dict[str, here.Thing]) -> here.Thing: ...\n"
        "def never(x: tuple[Float[Tensor, 'n'], here.Nothing], y: Float[Tensor, 'n']) -> None: ...\n"
    )
    with install("strangers"):
        importlib.import_module("strangers.here")
    there = sys.modules["strangers.there"]
    there.never((f(2), "anything"), f(2))
    with pytest.raises(ShapeContractError):
        there.late(f(2, 3), {})
    for arguments in (((f(2), "anything"), f(3)), ((f(2, 2), "anything"), f(2))):
        with pytest.raises(ShapeContractError):
            there.never(*arguments)


def test_an_annotation_that_raises_is_a_warning(package):
    (package / "wrong.py").write_text(
        "from __future__ import annotations\ndef wrong(x: any | None) -> str:\n    return str(x)\n"
    )
    with install("strangers"), pytest.warns(RuntimeWarning, match=r"wrong.wrong has no contract: TypeError: unsupp"):
        wrong = importlib.import_module("strangers.wrong")
    assert wrong.wrong(3) == "3"


@pytest.mark.parametrize("packages", [(), (3,), ("a", torch)])
def test_what_is_no_name_is_refused(packages):
    with pytest.raises(TypeError, match="install: packages are"):
        install(*packages)


@pytest.mark.parametrize(
    ("name", "perhaps"),
    [
        ("my-package", "; perhaps 'my_package' is meant"),
        ("src/my_package/layers.py", "; perhaps 'my_package.layers' is meant"),
        ("./my_package/", "; perhaps 'my_package' is meant"),
        ("my_package.", ""),
        ("my package", ""),
        ("", ""),
        ("a.3", ""),
    ],
)
def test_what_is_no_name_of_a_package_is_refused(name, perhaps):
    before = list(sys.meta_path)
    with pytest.raises(ValueError, match=re.escape(f"install: {name!r} is no name of a package{perhaps}") + "$"):
        install("strangers", name)
    assert sys.meta_path == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("strngers", "no package strngers is found; perhaps strangers is meant"),
        ("strangers.layer", "no package strangers.layer is found; perhaps strangers.layers is meant"),
        ("strangers.layers.below", None),  # a module may have what it likes below it
        ("strangers.layers", None),
        ("towers.contracts.nothing", "no package towers.contracts.nothing is found"),
        ("zqxj_zqxj", "no package zqxj_zqxj is found"),
        ("__main__", None),
    ],
)
def test_a_package_that_is_not_found_is_a_warning(package, name, text, recwarn):
    install(name).remove()
    told = [str(one.message) for one in recwarn if "is imported already" not in str(one.message)]
    assert told == ([] if text is None else [f"install: {text}"])
    assert "strangers" not in sys.modules


def test_what_was_never_imported(package):
    (package / "other.py").write_text("")
    installed = install("strangers.layers", "strangers.other")
    try:
        importlib.import_module("strangers")
        assert installed.never_imported() == ["strangers.other"]
        importlib.import_module("strangers.other")
        assert installed.never_imported() == []
    finally:
        installed.remove()


class Shell:
    """What the extension uses of IPython's shell."""

    def __init__(self):
        self.ast_transformers, self.magics = [], {}

    def register_magic_function(self, function, kind):
        assert kind == "line"
        self.magics[function.__name__] = function


def test_ipython(package, monkeypatch):
    shell = Shell()
    contracts.load_ipython_extension(shell)
    magic = shell.magics["towers_contracts"]
    with pytest.raises(ValueError, match="'stran-gers' is no name of a package"):
        magic("stran-gers")
    before = list(sys.meta_path)
    try:
        with pytest.warns(RuntimeWarning, match="no package strangrs is found; perhaps strangers is meant"):
            magic("strangrs")
        magic("strangers")
        layers = importlib.import_module("strangers.layers")
    finally:
        sys.meta_path[:] = before
    with pytest.raises(ShapeContractError):
        layers.double(f(2, 2))

    import ast

    magic("")
    magic("")
    (transformer,) = shell.ast_transformers
    cell = "from jaxtyping import Float\nfrom torch import Tensor\ndef g(x: Float[Tensor, 'n']): return x\n"
    space = {"__name__": "__main__"}
    exec(compile(ast.fix_missing_locations(transformer.visit(ast.parse(cell))), "cell", "exec"), space)
    with pytest.raises(ShapeContractError):
        space["g"](f(2, 2))


EXPLAINED = """
from jaxtyping import Float
from torch import Tensor

def wrong(x: Float[Tensor, "n"]):
    assert len(x) == 3
"""


def test_files_whose_asserts_pytest_explains_have_contracts_too(package):
    pytest.register_assert_rewrite("strangers.explained")
    (package / "explained.py").write_text(EXPLAINED)
    with install("strangers"):
        explained = importlib.import_module("strangers.explained")
    with pytest.raises(ShapeContractError):
        explained.wrong(f(2, 2))
    with pytest.raises(AssertionError, match=r"assert 2 == 3\n \+  where 2 = len"):
        explained.wrong(f(2))


def test_a_module_that_another_hook_loads_is_a_warning(package):
    class Loader(SourceFileLoader):
        """As beartype's: it adds checks of its own."""

    class Finder:
        @staticmethod
        def find_spec(name, path, target=None):
            spec = PathFinder.find_spec(name, path)
            spec.loader = Loader(name, spec.origin)
            return spec

    sys.meta_path.insert(0, Finder)
    try:
        with (
            install("strangers"),
            pytest.warns(RuntimeWarning, match=r"has no contracts, as .*Loader loads it") as told,
        ):
            layers = importlib.import_module("strangers.layers")
    finally:
        sys.meta_path.remove(Finder)
    assert [str(one.message).split()[1] for one in told if one.category is RuntimeWarning] == [
        "strangers",
        "strangers.layers",
    ]
    layers.double(f(2, 2))


@pytest.mark.parametrize("how", ["option", "ini"])
def test_pytest(package, how, forks: Forks):
    root = package.parent
    (root / "conftest.py").write_text("import strangers\n")
    (root / "test_it.py").write_text(
        "import torch, strangers\ndef test_it():\n    assert hasattr(strangers.double, '__contract__')\n"
    )
    ini = "[pytest]\n" + ("towers_install = strangers\n" if how == "ini" else "")
    (root / "pytest.ini").write_text(ini)
    option = ["--towers-install=strangers"] if how == "option" else []
    command = [forks.python, "-m", "pytest", "-q", "-p", "towers.pytest_contracts", *option]
    ran = forks.run(command, cwd=root)
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "towers_install" not in ran.stdout


@pytest.mark.parametrize("processes", ["0", "1"])
def test_pytest_names_what_was_never_imported(package, processes, forks: Forks):
    root = package.parent
    (root / "test_it.py").write_text("def test_one():\n    import strangers\ndef test_two(): pass\n")
    (root / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    options = ["--towers-install=strangers", "--towers-install=strangrs", "--towers-install=strangers.layers.below"]
    command = [forks.python, "-m", "pytest", "-q", "-n", processes, "-p", "towers.pytest_contracts", *options]
    ran = forks.run(command, cwd=root)
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
    assert [line for line in ran.stdout.splitlines() if "towers_install" in line] == [
        "towers_install: nothing of strangers.layers.below was imported, so no function got a contract",
        "towers_install: no package strangrs is found; perhaps strangers is meant, so no function got a contract",
    ]


def test_pytest_refuses_what_is_no_name(package, forks: Forks):
    command = [forks.python, "-m", "pytest", "-q", "-p", "towers.pytest_contracts", "--towers-install=stran-gers"]
    ran = forks.run(command, cwd=package.parent)
    assert "towers_install: 'stran-gers' is no name of a package; perhaps 'stran_gers' is meant" in ran.stderr
