"""Wheels, source distributions and editable installations, with and without a compiler, in environments of their own.

Nothing is downloaded: the packages are those of the environment that runs the tests (a .pth file lends them), and so is
hatchling. `--slow` adds the rest of the matrix: each kind with each compiler.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from towers.kernels.cpu import built, library

pytest.importorskip("hatchling", reason="hatchling is in the extra dev")
pytest.importorskip("pip", reason="installs with pip")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="compilers here are scripts of a shell")

NO_COMPILER = "no C compiler was found (CC is 'no-such-compiler')"
COMPILERS = {
    "a compiler": ({}, None),
    "none": ({"CC": "no-such-compiler"}, f"left out: {NO_COMPILER}"),
    "a failing one": ({"CC": "false"}, "left out: false failed with exit code 1"),
    "one that does not compile": ({"CC": "{broken}"}, "left out: {broken} failed with exit code 3: error: no room"),
    "an unreadable one": ({"CC": 'cc "'}, "left out: CC is 'cc \"': No closing quotation"),
    "skip": ({"TOWERS_BUILD": "skip"}, "left out: TOWERS_BUILD is skip"),
}
"""By name: the environment of the build, and the report that it leaves; None: a library is built."""

KINDS = ("wheel", "wheel of the sdist", "editable")
FAST = {("wheel of the sdist", "a failing one"), ("editable", "none")}
MATRIX = [
    pytest.param(kind, name, id=f"{kind}, {name}", marks=[] if (kind, name) in FAST else pytest.mark.slow)
    for kind in KINDS
    for name in COMPILERS
]

# Prints where towers is, the backend and its reason, and its warnings. Nothing may be written, made or started meanwhile;
# at the end something is, to show that it would have been noticed.
PROGRAM = """
import os, sys, warnings
import torch
from torch import nn
import towers.kernels.cpu.library  # what torch writes or starts when it is imported is not looked at
from towers import RaggedLSTM, TwoTowers

noticed, sys.dont_write_bytecode = [], True
def watch(event, given):
    writes = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event in ("subprocess.Popen", "os.system", "os.exec", "os.mkdir", "os.rename", "tempfile.mkstemp"):
        noticed.append((event, given))

sys.addaudithook(watch)
with warnings.catch_warnings(record=True) as noted:
    warnings.simplefilter("always")
    theirs, x = nn.LSTM(4, 7, batch_first=True), torch.randn(3, 5, 4)
    lstm, towers_ = RaggedLSTM.from_torch(theirs), TwoTowers()
    loss = lstm(x, lengths=torch.tensor([5, 0, 2]))[0].sum() + towers_(torch.randn(2, 7, 300), torch.randn(2, 5, 300)).sum()
    loss.backward()
    assert torch.allclose(lstm(x)[0], theirs(x)[0], atol=1e-6)
assert not noticed, noticed
try:
    open("/nowhere/at all", "w")
except OSError:
    assert len(noticed) == 1
print(towers.__file__)
print(lstm.backend(x))
print([str(warning.message) for warning in noted if "torch's own" in str(warning.message)])
"""


def run(command: list[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(**more: str) -> dict[str, str]:
    changed = ("PYTHONPATH", "TOWERS_NATIVE", "TOWERS_BUILD", "CC", "CFLAGS", "LDFLAGS")
    own = {name: value for name, value in os.environ.items() if name not in changed}
    return {**own, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", **more}


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has of this repository, unbuilt."""
    copy = tmp_path_factory.mktemp("source") / "towers"
    ignored = shutil.ignore_patterns("__pycache__", built.LIBRARY.name, built.REPORT.name)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(repository / name, copy.parent)
    for name in ("src", ".build"):
        shutil.copytree(repository / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        (copy.parent / name).rename(copy / name)
    return copy


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment without towers that is lent the packages of this one; its pip is that of this one too."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "parent.pth").write_text("\n".join([sysconfig.get_path("purelib"), *lent()]), encoding="utf8")
    return folder / "bin" / "python"


def lent() -> list[str]:
    """Folders of packages that this environment was lent itself, towers' own excepted."""
    own = str(Path(library.__file__).parents[3])
    return [path for path in sys.path if path.endswith("site-packages") and path != own]


def pip(python: Path, *arguments: str, **build: str) -> str:
    how = ("--no-deps", "--no-build-isolation")
    return run([str(python), "-m", "pip", arguments[0], *how, *arguments[1:]], env=environment(**build))


def install(python: Path, checkout: Path, kind: str, folder: Path, build: dict[str, str]) -> Path:
    """Install, and return the file that was installed, or the checkout."""
    if kind == "editable":
        pip(python, "install", "--force-reinstall", "-e", str(checkout), **build)
        return checkout
    source = checkout
    if kind == "wheel of the sdist":
        run(
            [str(python), "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], cwd=checkout, env=environment()
        )
        source = next(folder.glob("*.tar.gz"))
    pip(python, "wheel", "-w", str(folder), str(source), **build)
    made = next(folder.glob("*.whl"))
    pip(python, "install", "--force-reinstall", str(made))
    return made


@pytest.mark.parametrize(("kind", "compiler"), MATRIX)
def test_installed_anyhow_it_runs_and_says_what_runs(
    kind: str, compiler: str, checkout: Path, python: Path, tmp_path: Path
):
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken 1 && exit\necho "error: no room" >&2\nexit 3\n')
    broken.chmod(0o755)
    build, report = COMPILERS[compiler]
    build = {name: value.format(broken=broken) for name, value in build.items()}
    library_of_checkout = checkout / "src/towers/kernels/cpu" / built.LIBRARY.name
    if kind != "editable":
        library_of_checkout.write_bytes(b"of an editable installation")
    made = install(python, checkout, kind, tmp_path, build)
    nothing = {"HOME": "/nowhere", "TMPDIR": "/nowhere", "XDG_CACHE_HOME": "/nowhere", "OMP_NUM_THREADS": "1"}
    where, backend, warned = run([str(python), "-I", "-c", PROGRAM], cwd="/", env=environment(**nothing)).splitlines()
    assert (str(checkout) in where) == (kind == "editable")
    if report is None:
        assert backend.startswith("native: C code, compiled for ")
        assert warned == "[]"
    else:
        reason = f"the C code was {report.format(broken=broken)}"
        assert backend.startswith(f"torch: {reason}")
        assert reason in warned.replace("\\'", "'")
        assert warned.count("Remedy: install a C compiler") == 1
    if kind != "editable":
        assert library_of_checkout.read_bytes() == b"of an editable installation", (
            "a wheel leaves the checkout as it is"
        )
        names = zipfile.ZipFile(made).namelist()
        assert not [name for name in names if name.endswith((".c", ".h"))]
        assert any(name.endswith(f"/{built.LIBRARY.name}") for name in names) == (report is None)
        assert made.name.endswith("-py3-none-any.whl") == (report is not None)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ({"TOWERS_BUILD": "require", "CC": "false"}, "false failed with exit code 1"),
        ({"TOWERS_BUILD": "no"}, "TOWERS_BUILD is 'no'; expected require or skip, or leave it unset"),
    ],
)
def test_a_build_that_must_not_go_on_ends(
    build: dict[str, str], said: str, checkout: Path, python: Path, tmp_path: Path
):
    with pytest.raises(AssertionError) as ended:
        pip(python, "wheel", "-w", str(tmp_path), str(checkout), **build)
    assert said in str(ended.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_checkout_is_built_without_pip_and_again_after_a_change(checkout: Path, python: Path):
    """The sources change: an error names the command; it runs: all is well."""
    folder, script = checkout / "src/towers/kernels/cpu", [sys.executable, str(checkout / ".build/native.py")]
    assert "compiled by" in run(script, env=environment())
    with (folder / "topk.c").open("a", encoding="utf8") as source:
        source.write("/* changed */\n")
    ask = [sys.executable, "-c", "from towers.kernels.cpu import library; print(library.level())"]
    own = environment(PYTHONPATH=str(checkout / "src"))
    done = subprocess.run(ask, env=own, capture_output=True, text=True, timeout=120)
    assert "run `pip install -e .` (or only `python .build/native.py`)" in done.stderr
    failed = subprocess.run(script, env=environment(CC="false"), capture_output=True, text=True, timeout=120)
    assert failed.stderr.startswith("The C code was not built: false failed with exit code 1")
    assert failed.returncode == 1
    run(script, env=environment())
    assert run(ask, env=own).strip() == library.level()
