"""Word vectors that are a package, asked for by name: a small package of the same files, and the real one if it is there."""

import sys
from pathlib import Path

import numpy
import polars
import pytest
import torch

from towers.data import VectorStore, WordVectors
from towers.data.packaged_vectors import PACKAGED

NAME = "glove-6b-50d"
WORDS = ["the", "dog", "größe", ". . ."]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of four words beside nothing else; the current folder has no file of its name."""
    folder = tmp_path / "site" / PACKAGED[NAME][0]
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    polars.DataFrame({"index": WORDS}).write_parquet(folder / "data" / PACKAGED[NAME][1])
    numpy.save(folder / "data" / PACKAGED[NAME][2], numpy.arange(20, dtype=numpy.float32).reshape(4, 5))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, PACKAGED[NAME][0], raising=False)
    monkeypatch.chdir(tmp_path)
    return folder / "data"


@pytest.mark.parametrize("path", [NAME, Path(NAME), Path("/an/earlier/folder") / NAME])
def test_both_readers_give_its_vectors(package: Path, path: str | Path) -> None:
    table = torch.arange(20.0).view(4, 5)
    vectors = WordVectors.load(path)
    assert (list(vectors.words), vectors.source, vectors.width) == (WORDS, str(path), 5)
    assert torch.equal(vectors.table, table)
    with VectorStore(path) as store:
        assert torch.equal(store.select(["Dog", "GRÖSSE", "Größe"]).look_up(["dog", "Größe"]), table[[1, 2]])
    assert WordVectors.load(path, ["dog"], first=1).words == ("the", "dog")


def test_a_file_of_this_name_goes_first(package: Path) -> None:
    Path(NAME).write_text("cat 1 2\n")
    assert WordVectors.load(NAME).words == ("cat",)


def test_other_files_in_the_package_are_refused(package: Path) -> None:
    numpy.save(package / PACKAGED[NAME][2], numpy.zeros((3, 5), dtype=numpy.float32))
    with pytest.raises(ValueError, match=r"glove-6b-50d: the package is not as expected: 4 words, numbers \(3, 5\)"):
        WordVectors.load(NAME)


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PACKAGED, NAME, ("no_such_package", "a", "b"))
    with pytest.raises(ImportError, match=r'package of their own: pip install "towers\[vectors\]"'):
        WordVectors.load(NAME)


def test_the_real_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(PACKAGED[NAME][0])
    monkeypatch.chdir(tmp_path)
    with VectorStore(NAME) as store:
        assert store.width == 50
        some = store.select(["dog", "cat", "tax"])
    dog, cat, tax = torch.nn.functional.normalize(some.look_up(["dog", "cat", "tax"])).unbind()
    assert float(dog @ cat) > 0.9 > 0.5 > float(dog @ tax)
