"""`install("my_package")`: gives every function of a package with tensors in its annotations a contract, on import."""

import ast
import difflib
import functools
import importlib.util
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any

from towers.contracts.decorate import contract_where_tensors
from towers.contracts.resolve import scopes_around

LEFT_ALONE = frozenset({"contract", "no_type_check", "overload", "script", "script_method"})
"""A function with a decorator of one of these names keeps what it has. `no_type_check` holds for what is in it too."""


class install:
    """Give every function and dataclass of some packages a contract, if its annotations name tensors.

    Call it before the first import of the packages. Their files are not changed. Functions under `@contract`,
    `@overload` or `@torch.jit.script` stay as they are, and so does all that is in a function or class under
    `@no_type_check`. If an annotation cannot be read, its function is not checked, and a RuntimeWarning says so;
    others say that no such package can be found, and that another import hook loads a module, which then has no
    contracts. `remove()`, or the end of `with install(…):`, ends it for later imports; what was imported before keeps
    its contracts.

    Args:
        packages: the names of packages or Python modules. A package includes all modules below it.

    Raises:
        TypeError: there is no name, or a name is not a text.
        ValueError: a name is no name of a package, such as "my-package" or "src/my_package".

    >>> import towers.contracts
    >>> with towers.contracts.install("this"):
    ...     pass  # import this
    """

    def __init__(self, *packages: str) -> None:
        if not packages or not all(isinstance(name, str) for name in packages):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"install: packages are {packages!r}; expected names such as 'my_package'")
        for name in packages:
            if not all(map(str.isidentifier, name.split("."))):
                meant = _as_name(name)
                perhaps = f"; perhaps {meant!r} is meant" if meant else ""
                raise ValueError(f"install: {name!r} is no name of a package{perhaps}")
        self._finder = _Finder(packages)
        for absent in filter(None, map(not_found, packages)):
            warnings.warn(f"install: {absent}", RuntimeWarning, stacklevel=2)
        early = [name for name in sorted(sys.modules) if self._finder.covers(name)]
        if early:
            warnings.warn(
                f"install: {early[0]} is imported already and has no contracts; install before its first import",
                RuntimeWarning,
                stacklevel=2,
            )
        sys.meta_path.insert(0, self._finder)

    def never_imported(self) -> list[str]:
        """The names of which no module was imported while this was installed."""
        return [name for name in self._finder.packages if name not in self._finder.found]

    def remove(self) -> None:
        """End it: later imports get no contracts."""
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)

    def __enter__(self) -> None:
        """Do nothing: the constructor has installed the hook."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.remove()


class _Finder(MetaPathFinder):
    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = tuple(packages)
        self.found: set[str] = set()
        """Those of which a module was imported."""

    def covers(self, name: str) -> bool:
        """Whether a module is one of the packages, or below one."""
        return any(_is_below(name, package) for package in self.packages)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """The module that the other finders find, with a loader that decorates."""
        if not self.covers(fullname):
            return None
        for finder in [other for other in sys.meta_path if not isinstance(other, _Finder)]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                self.found.update(package for package in self.packages if _is_below(fullname, package))
                return _decorating(spec, path)
        return None


def _decorating(spec: ModuleSpec, path: Sequence[str] | None) -> ModuleSpec:
    """The specification of a module, with a loader that decorates if the module is a file of Python.

    Assert statements that pytest's loader would explain are still explained. Any other loader keeps its module.
    """
    rewrite = getattr(sys.modules.get(type(spec.loader).__module__), "rewrite_asserts", None)
    plain = PathFinder.find_spec(spec.name, path) if rewrite else spec
    if plain is not None and type(plain.loader) is SourceFileLoader:
        explained = rewrite and functools.partial(rewrite, config=getattr(spec.loader, "config", None))
        plain.loader = _Loader(plain.loader.name, plain.loader.path, explained)
        return plain
    if (spec.origin or "").endswith(".py"):
        kind = type(spec.loader)
        told = f"install: {spec.name} has no contracts, as {kind.__module__}.{kind.__qualname__} loads it"
        warnings.warn(told, RuntimeWarning, stacklevel=2)
    return spec


def _is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def not_found(name: str) -> str | None:
    """What to say of a name that no package or module has, and of which none is imported; None: there is one.

    Nothing is imported: modules below a package are looked for where it says that they are.
    """
    places: Sequence[str] | None = None
    above = ""
    for part in name.split("."):
        whole = f"{above}{part}"
        spec: ModuleSpec | None = getattr(sys.modules.get(whole), "__spec__", None)
        if spec is None and whole not in sys.modules:
            spec = importlib.util.find_spec(part) if not above else PathFinder.find_spec(whole, places)
            if spec is None:
                known = [module.name for module in pkgutil.iter_modules(places)]
                near = difflib.get_close_matches(part, known, n=1, cutoff=0.7)
                perhaps = f"; perhaps {above}{near[0]} is meant" if near else ""
                return f"no package {whole} is found{perhaps}"
        if spec is None or spec.submodule_search_locations is None:
            return None
        places, above = list(spec.submodule_search_locations), f"{whole}."
    return None


def _as_name(text: str) -> str | None:
    """The name of a package that a path or the name of a distribution stands for; None if it is neither."""
    steps = re.sub(r"^(\.*/)?(src/)?|(/__init__)?\.py$|/$", "", text.strip()).replace("-", "_").split("/")
    name = ".".join(steps)
    return name if all(map(str.isidentifier, name.split("."))) else None


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, rewrite: Callable[[ast.AST, bytes, str], object] | None) -> None:
        super().__init__(fullname, path)
        self.rewrite = rewrite
        """What changes the assert statements of a module; None if nothing does."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of a module, always compiled from its source: a .pyc file has no decorators."""
        path = self.get_filename(fullname)
        source = self.get_data(path)
        tree = ast.fix_missing_locations(Decorating().visit(ast.parse(source, path)))
        if self.rewrite is not None:
            self.rewrite(tree, source, path)
        return compile(tree, path, "exec", dont_inherit=True)


class Decorating(ast.NodeTransformer):
    """Adds the decorator `decorated`: the innermost one of a function, the outermost one of a class."""

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        """Decorate a function and the functions in it."""
        if "no_type_check" in map(_last_name, node.decorator_list):
            return node
        self.generic_visit(node)
        given = node.args
        parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        annotated = node.returns or any(parameter and parameter.annotation for parameter in parameters)
        if annotated and LEFT_ALONE.isdisjoint(map(_last_name, node.decorator_list)):
            node.decorator_list.append(_decorator(node))
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Decorate the methods of a class, and the class itself: its base may make it a dataclass."""
        if "no_type_check" in map(_last_name, node.decorator_list):
            return node
        self.generic_visit(node)
        if LEFT_ALONE.isdisjoint(map(_last_name, node.decorator_list)):
            node.decorator_list.insert(0, _decorator(node))
        return node


def _last_name(decorator: ast.expr) -> str:
    """`jit` of `@torch.jit(…)`."""
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    return decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")


def _decorator(node: ast.AST) -> ast.expr:
    """An expression for `decorated` that adds no name to the module, at the line of the function."""
    found = ast.parse(f"__import__({__name__!r}, fromlist=['decorated']).decorated", mode="eval").body
    for part in ast.walk(found):
        ast.copy_location(part, node)
    return found


def decorated(function: Any) -> Any:
    """The decorator of every annotated function of an installed package."""
    return contract_where_tensors(function, scopes_around(sys._getframe(1)))  # pyright: ignore[reportPrivateUsage]


def register_magic(shell: Any) -> None:
    """`%towers_contracts my_package` in IPython; without a name, the functions of the cells below get contracts."""

    def towers_contracts(line: str) -> None:
        """Contracts for a package that is imported later, or, without a name, for the functions of the cells below."""
        if line.split():
            install(*line.split())
        elif not any(isinstance(one, Decorating) for one in shell.ast_transformers):
            shell.ast_transformers.append(Decorating())

    shell.register_magic_function(towers_contracts, "line")
