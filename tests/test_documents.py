"""The documents for people: what they link to and name exists, and no paragraph is long."""

import re
import textwrap
from pathlib import Path

import pytest

DOCUMENTS = ["README.md", ".github/ARCHITECTURE.md", ".github/CHANGELOG.md", ".github/CONTRIBUTING.md"]

LINK = re.compile(r"\]\(([^)#]+)\)")
NAMED = re.compile(r"`((?:src|tests|benchmarks|\.ci|\.github)/[\w./-]*)")


@pytest.fixture(params=DOCUMENTS)
def document(request: pytest.FixtureRequest, repository: Path) -> Path:
    return repository / request.param


def test_links_and_named_files_exist(document: Path, repository: Path):
    text = document.read_text("utf8")
    linked = [document.parent / link for link in LINK.findall(text) if "://" not in link]
    named = [repository / path.rstrip("./") for path in NAMED.findall(text)]
    assert [path for path in linked + named if not path.exists()] == []


def test_no_paragraph_is_over_five_lines(document: Path):
    assert [paragraph for paragraph in paragraphs(document.read_text("utf8")) if lines(paragraph) > 5] == []


def paragraphs(text: str) -> list[str]:
    """Paragraphs and items of lists, without code, tables and headings."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^(\||#).*$", "", prose, flags=re.MULTILINE)
    return [part for part in re.split(r"\n\s*\n|^(?=\s*(?:-|\d+\.) )", prose, flags=re.MULTILINE) if part.strip()]


def lines(paragraph: str) -> int:
    """Of 120 letters, without the addresses of links."""
    return len(textwrap.wrap(LINK.sub("]", " ".join(paragraph.split())), 120))


def test_paragraphs_are_found_and_counted():
    long = "a few words " * 61  # 732 letters
    text = f"# A title\n\n{long}\n\n- one\n  goes on\n- two\n1. {long}\n\n```text\n{long}\n```\n| {long} |\n"
    found = paragraphs(text)
    assert [lines(each) for each in found] == [7, 1, 1, 7]
    assert "goes on" in found[1]


def test_the_workflow_runs_what_a_person_runs(repository: Path):
    assert "run: .ci/run" in (repository / ".github/workflows/ci.yml").read_text("utf8")
