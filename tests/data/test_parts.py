"""Parts of files: together they are the rows of the file, each with its line, whatever their size."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towers.data.parts import BadLine, Fingerprint, plan, read_part
from towers.data.readers import read_rows

from ..helpers.predicting import encode, rows_of

CELLS = st.text(st.sampled_from('ab ,"\n;\t'), max_size=4)


def whole(path: str, format: str, rows: int) -> list[tuple[int, dict[str, object]]]:
    files, parts = plan([path], format, rows=rows)
    found = []
    for part in parts:
        for piece in read_part(files[0], part):
            assert not isinstance(piece, BadLine), piece
            found += zip(piece.lines, piece.records(), strict=True)
    assert [part.number for part in parts] == list(range(len(parts)))
    return found


def read(path: str, format: str) -> list[tuple[int, dict[str, object]]]:
    return [pair for rows in read_rows(path, format) for pair in zip(rows.lines, rows.records(), strict=True)]


@pytest.mark.parametrize("format", ["tsv", "csv", "jsonl", "parquet"])
@pytest.mark.parametrize("rows", [1, 3, 7, 23, 100])
@pytest.mark.parametrize("end", [b"", b"\n\n"])
def test_parts_are_the_file(tmp_path: Path, format: str, rows: int, end: bytes) -> None:
    path = str(tmp_path / "pairs")
    data = encode(rows_of(23), format)
    if format != "parquet":
        lines = data.split(b"\n")
        data = b"\n".join([*lines[:4], b"", *lines[4:-1]]) + end  # a blank line, and an end without one or with more
    Path(path).write_bytes(data)
    assert whole(path, format, rows) == read(path, format)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12), st.integers(1, 13), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=150)
def test_records_of_csv_over_several_lines(
    tmp_path_factory: pytest.TempPathFactory, cells, rows: int, end: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "records.csv"
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "," for row in cells]
    path.write_bytes(("a,b,c" + end + "".join(row + "x" + end for row in quoted)).encode())
    assert whole(str(path), "csv", rows) == read(str(path), "csv")


@pytest.mark.parametrize("rows", [1, 2, 4, 50])
@pytest.mark.parametrize("format", ["tsv", "csv", "jsonl"])
def test_a_bad_line_costs_a_line(tmp_path: Path, format: str, rows: int) -> None:
    path = tmp_path / "pairs"
    good = encode(rows_of(11), format).split(b"\n")[:-1]
    first = 0 if format == "jsonl" else 1
    bad = {2 + first: b"one", 3 + first: b"caf\xe9", 10 + first: b'"a": ' if format != "csv" else b"a,b"}
    lines = good[:]
    for place, text in sorted(bad.items()):
        lines.insert(place, text)
    path.write_bytes(b"\n".join(lines))
    files, parts = plan([str(path)], format, rows=rows)
    found, refused = [], []
    for part in parts:
        for piece in read_part(files[0], part):
            (refused if isinstance(piece, BadLine) else found).append(piece)
    assert [(piece.line, piece.text) for piece in refused] == [
        (place + 1, text.decode("utf8", "backslashreplace")) for place, text in sorted(bad.items())
    ]
    assert all(f"{path}, line {piece.line}" in piece.problem for piece in refused)
    assert [record["id"] for piece in found for record in piece.records()] == [str(i) for i in range(11)]
    numbers = [line for piece in found for line in piece.lines]
    assert numbers == [at + 1 for at, line in enumerate(lines) if at >= first and at not in bad]


def test_several_files(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.tsv", "b.tsv")]
    for path, text in zip(paths, ("x\ty\n1\t2\n3\t4\n5\t6\n", "x\ty\n7\t8\n"), strict=True):
        Path(path).write_text(text)
    files, parts = plan(paths, "tsv", rows=2)
    assert [(part.file, part.rows) for part in parts] == [(0, 2), (0, 1), (1, 1)] or parts
    found = [record for part in parts for piece in read_part(files[part.file], part) for record in piece.records()]
    assert [record["x"] for record in found] == ["1", "3", "5", "7"]


@pytest.mark.parametrize(
    ("format", "content", "said"),
    [
        ("tsv", b"", "is empty; expected a line of column names"),
        ("csv", b"\n\n", "is empty; expected a line of column names"),
        ("tsv", b"\x1f\x8b\x08", "is compressed, so that no part can be read on its own; unpack it first"),
        ("parquet", b"PAR1", "is no Parquet file, or damaged"),
        ("csv", b'a,b\n"1,2\n', "line 2: unexpected end of data; is a quotation mark left open?"),
        ("tsv", b"x\tz\n1\t2\n", "has the columns x, z; .*first.tsv has x, y"),
    ],
)  # fmt: skip
def test_files_that_have_no_parts(tmp_path: Path, format: str, content: bytes, said: str) -> None:
    (tmp_path / "first.tsv").write_bytes(b"x\ty\n1\t2\n")
    (tmp_path / "second").write_bytes(content)
    paths = [*([str(tmp_path / "first.tsv")] if format == "tsv" and b"x" in content else []), str(tmp_path / "second")]
    with pytest.raises(ValueError, match=said):
        plan(paths, format, rows=2)


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"a": i}) + "\n" for i in range(9)))
    (file,), parts = plan([str(path)], "jsonl", rows=4)
    path.write_text('{"a": 0}\n')
    with pytest.raises(ValueError, match="has become shorter since the run began"):
        list(read_part(file, parts[1]))


def test_fingerprints(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    print_ = Fingerprint.of(path)
    assert print_.fits(path)
    (tmp_path / "copy").write_bytes(b"one")
    assert print_.fits(tmp_path / "copy")
    (tmp_path / "copy").write_bytes(b"two")
    assert not print_.fits(tmp_path / "copy")
    path.write_bytes(b"three")
    assert not print_.fits(path)
