"""A plugin for pytest: contracts in the mode that a project's settings name, and `assert_contract` as tests.

Nothing happens, and nothing is imported, unless one of these settings stands in the project's pytest configuration:

    [tool.pytest.ini_options]
    towers_contracts = ["strict my_package my_other_package"]
    towers_contract_modules = ["my_package.layers:Attention", "tests/modules.py:small_model"]
    towers_install = ["my_package"]

`towers_contracts`: a mode ("off", "on", "strict") and the packages it is for; without one it is for everything.
`towers_contract_modules`: what `towers.contracts.testing.assert_contract` is called with, a test for each: the name of
a class that needs no arguments, of a function that makes a module, of a module, or of a contracted function. They run
with the whole suite, and with chosen files only if `--towers-contracts` is given.
`towers_install`, and `--towers-install=PACKAGE`: packages whose annotated functions all get contracts while tests run.
The summary names those of which the tests imported nothing.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings and the options."""
    parser.addini("towers_contracts", "MODE PACKAGE...: how much contracts check while tests run", "linelist", [])
    parser.addini("towers_contract_modules", "pkg.mod:NAME or file.py:NAME, whose contract is tested", "linelist", [])
    parser.addini("towers_install", "PACKAGE...: packages whose functions get contracts", "args", [])
    parser.addoption(
        "--towers-install", action="append", metavar="PACKAGE", help="give the functions of a package contracts"
    )
    parser.addoption(
        "--towers-contracts", action="store_true", help="run towers_contract_modules with chosen files as well"
    )


@pytest.hookimpl(tryfirst=True)  # before a conftest.py imports the packages
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Install the contracts of whole packages."""
    given: list[str] = early_config.known_args_namespace.towers_install or []
    packages: list[str] = [*early_config.getini("towers_install"), *given]
    if packages:
        from towers.contracts import install

        with warnings.catch_warnings():  # a conftest.py may put it on the path; the summary says what was not found
            warnings.filterwarnings("ignore", "install: no package", RuntimeWarning)
            try:
                early_config.stash[_INSTALLED] = installed = install(*packages)
            except ValueError as error:
                raise pytest.UsageError(f"towers_{error}") from None
        early_config.add_cleanup(installed.remove)


_INSTALLED: pytest.StashKey[Any] = pytest.StashKey()
_UNUSED: pytest.StashKey[list[set[str]]] = pytest.StashKey()
"""The packages of which each process of the tests imported nothing."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Note the packages of which nothing was imported."""
    installed = session.config.stash.get(_INSTALLED, None)
    if installed is not None:
        unused: list[str] = installed.never_imported()
        worker: dict[str, Any] | None = getattr(session.config, "workeroutput", None)  # a process of pytest-xdist
        if worker is not None:
            worker["towers_unused"] = unused
        elif _UNUSED not in session.config.stash:
            session.config.stash[_UNUSED] = [set(unused)]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist has noted."""
    if "towers_unused" in getattr(node, "workeroutput", {}):
        node.config.stash.setdefault(_UNUSED, []).append(set(node.workeroutput["towers_unused"]))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the packages that were to get contracts and of which nothing was imported: a name may be misspelt."""
    if _UNUSED not in config.stash:
        return
    for name in sorted(set[str].intersection(*config.stash[_UNUSED])):
        from towers.contracts.import_hook import not_found

        why = not_found(name) or f"nothing of {name} was imported"
        terminalreporter.write_line(f"towers_install: {why}, so no function got a contract", yellow=True)


def pytest_configure(config: pytest.Config) -> None:
    """Set the modes for as long as the tests run."""
    for line in config.getini("towers_contracts"):
        mode, *packages = line.split()
        from towers.contracts import checks

        for package in packages or [None]:
            try:
                config.add_cleanup(_ending(checks(mode, package)))
            except ValueError as error:
                raise pytest.UsageError(f"towers_contracts, {line!r}: {error}") from None


def _ending(checks: Any) -> Any:
    return lambda: checks.__exit__(None, None, None)


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add a test for each module of the settings."""
    chosen = config.args_source is pytest.Config.ArgsSource.ARGS
    entries = config.getini("towers_contract_modules")
    if not entries or (chosen and not config.getoption("--towers-contracts")):
        return
    for entry in entries:
        if not all(entry.partition(":")):
            raise pytest.UsageError(
                f"towers_contract_modules: {entry!r} is not of the form pkg.mod:NAME or file.py:NAME"
            )
    collector = cast(Any, ContractTests).from_parent(session, name="contracts", entries=entries)
    report = collector.ihook.pytest_make_collect_report(collector=collector)
    collector.ihook.pytest_collectreport(report=report)
    items += report.result


class ContractTests(pytest.Collector):
    """All entries of the settings."""

    def __init__(self, *, entries: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entries = entries

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each."""
        return (cast(Any, ContractTest).from_parent(self, name=entry) for entry in self.entries)


class ContractTest(pytest.Item):
    """`assert_contract` of one entry of the settings."""

    def runtest(self) -> None:
        """Find what it names, make it if it is a class or a factory, and call it with inputs out of its contract."""
        from torch import nn

        from towers.contracts.testing import assert_contract

        home, _, name = self.name.partition(":")
        found = _imported(home, self.config.rootpath)
        for part in name.split("."):
            found = getattr(found, part)
        made = found if isinstance(found, nn.Module) or hasattr(found, "__contract__") else found()
        assert_contract(made)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it comes from: the settings."""
        return self.config.inipath or self.config.rootpath, None, f"contract of {self.name}"


def _imported(home: str, root: Path) -> Any:
    if not home.endswith(".py"):
        return importlib.import_module(home)
    name = ".".join(Path(home).with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, root / home)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
