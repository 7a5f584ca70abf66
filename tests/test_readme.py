"""Everything that the README tells a person to do is done somewhere, as written; what it shows is what comes out."""

import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from towers.data import sample_pairs

from .cli.test_help import shell
from .helpers import readme_blocks, shown
from .helpers.forked import Forks

# What runs each command of the README: .ci/run, where it stands word for word, or a test. Those that begin with
# `towers` are run below, as they stand.
RUN_BY = {
    'pip install -e ".[train]" && towers fit': ".ci/run",
    'pip install -e ".[dev]" && pytest': ".ci/run",
    "python benchmarks/run.py": "tests/benchmarks/test_benchmarks.py::test_quick_run_of_all_suites",
    "python benchmarks/run.py lstm tower --show": "tests/benchmarks/test_benchmarks.py::test_what_was_measured_is_shown_again",
}


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text("utf8")


@pytest.fixture(scope="module")
def towers_commands(readme: str) -> list[str]:
    return [command for command in readme_blocks.commands(readme) if command.startswith("towers ")]


def test_every_command_is_run_by_something(readme: str, towers_commands: list[str]):
    assert sorted({*readme_blocks.commands(readme)} - {*towers_commands}) == sorted(RUN_BY)


@pytest.mark.parametrize("command", RUN_BY)
def test_what_runs_a_command_exists(command: str, repository: Path):
    file, _, test = RUN_BY[command].partition("::")
    text = (repository / file).read_text("utf8")
    assert f"def {test}(" in text if test else command in text


def test_towers_commands_run_as_they_stand(towers_commands: list[str], tmp_path: Path, forks: Forks):
    # One after the other in one folder, in which the files that they read lie.
    for command in towers_commands:
        words = shlex.split(command)[1:]
        for option, value in pairwise(words):
            if option in WRITERS and not (tmp_path / value).exists():
                WRITERS[option](tmp_path / value)
        run = forks.towers(words, tmp_path)
        assert run.returncode == 0, f"{command}\n{run.stderr}"
    assert {command.split()[1] for command in towers_commands} >= {"fit", "predict"}


def test_what_commands_show_is_what_they_print(readme: str, tmp_path: Path, forks: Forks):
    blocks = readme_blocks.shown(readme)
    assert any(command.startswith("towers explain") for command, _ in blocks)
    for command, output in blocks:
        run = shell(command, tmp_path, forks)
        assert run.returncode == 0, run.stderr
        assert shown.same(output, run.stdout.rstrip("\n").splitlines()), f"{command}\n{run.stdout}"


def write_pairs(path: Path) -> None:
    """Forty pairs of the built-in sample, with SICK's columns."""
    pairs = sample_pairs(40)
    lines = ["sentence1\tsentence2\ttokens1\ttokens2\tlabel\trelatedness\tentailment"]
    for left, right, label in zip(pairs.left, pairs.right, pairs.labels.tolist(), strict=True):
        sentences = [" ".join(left), " ".join(right)]
        lines.append("\t".join([*sentences, *sentences, f"{label:g}", f"{1 + 4 * label:g}", f"class {label:g}"]))
    path.write_text("\n".join(lines) + "\n", encoding="utf8")


def write_vectors(path: Path) -> None:
    """The sample's word vectors, as GloVe's text files are."""
    vectors = sample_pairs(1).vectors
    lines = [" ".join([word, *map(str, row)]) for word, row in zip(vectors.words, vectors.table.tolist(), strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf8")


def write_sentences(path: Path) -> None:
    """Forty sentences of the built-in sample, one on each line."""
    path.write_text("".join(" ".join(words) + "\n" for words in sample_pairs(40).left), encoding="utf8")


WRITERS = dict.fromkeys(("--train", "--dev", "--test", "--pairs"), write_pairs) | {"--vectors": write_vectors}
WRITERS |= dict.fromkeys(("--corpus", "--queries"), write_sentences)


def test_python_prints_what_is_shown(readme: str, tmp_path: Path, forks: Forks):
    blocks = readme_blocks.python(readme)
    assert blocks
    for number, block in enumerate(blocks):
        script = tmp_path / f"block_{number}.py"
        script.write_text(block.code, encoding="utf8")
        run = forks.script(script, tmp_path)
        assert run.returncode == 0, run.stderr
        assert run.stdout == block.output, block.code


SAMPLE = """
```bash
# a comment
pip install x && run \\
    --it
```
```console
$ show me | this
shown

too
```
```python
print(1 + 1)  # 2
print("a")    # a
```
```python
print(3)
```
```text
3
```
```python
x = 1
```
"""


def test_reading_of_commands():
    assert readme_blocks.commands(SAMPLE) == ["pip install x && run --it"]
    assert readme_blocks.shown(SAMPLE) == [("show me | this", ["shown", "", "too"])]


def test_reading_of_python():
    assert [block.output for block in readme_blocks.python(SAMPLE)] == ["2\na\n", "3\n", ""]
