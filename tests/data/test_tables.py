"""Tables: TSV, CSV, JSON lines and Parquet give the same pairs, and every bad line is named."""

import csv
import gzip
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towers.data import SentencePairs, read_table
from towers.data.readers import TableFormat

PLAIN = st.text(st.characters(exclude_characters="\r\n\t\0", exclude_categories=["Cs"]), min_size=1)
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property: each overwrites the file of the one before."""
    return tmp_path_factory.mktemp("tables")


def write(folder: Path, content: str | bytes, name: str) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_round_trip_of_tsv(folder: Path, rows: list[tuple[str, str]], end: str) -> None:
    lines = ["a\tb", *(f"{a}\t{b}" for a, b in rows)]
    frame, numbers = read_table(write(folder, end.join(lines), "t.tsv"))
    assert frame.rows() == rows
    assert numbers == list(range(2, len(rows) + 2))


@given(st.lists(st.tuples(ANY, ANY), min_size=1))
def test_round_trip_of_csv(folder: Path, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["a", "b"])
    starts = []
    for row in rows:
        starts.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    frame, numbers = read_table(write(folder, text.getvalue(), "t.csv"))
    full = max(
        (place for place, row in enumerate(rows, 1) if any(row)), default=0
    )  # empty rows at the end do not count
    assert frame.rows() == rows[:full]
    assert numbers == starts[:full]


@given(st.lists(st.tuples(ANY, st.lists(ANY), st.none() | st.integers(-9, 9)), min_size=1))
def test_round_trip_of_json_lines(folder: Path, rows: list[tuple[str, list[str], int | None]]) -> None:
    lines = [json.dumps(dict(zip("abc", row, strict=True))) for row in rows]
    frame, numbers = read_table(write(folder, "\n\n".join(lines), "t.jsonl"))
    assert frame.rows() == rows
    assert numbers == list(range(1, 2 * len(rows), 2))


@given(st.lists(st.tuples(ANY, st.lists(ANY)), min_size=1))
def test_round_trip_of_parquet(folder: Path, rows: list[tuple[str, list[str]]]) -> None:
    schema = {"a": polars.String, "b": polars.List(polars.String)}
    polars.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / "t.parquet")
    frame, numbers = read_table(str(folder / "t.parquet"))
    assert frame.rows() == rows
    assert numbers == list(range(1, len(rows) + 1))


def test_quotes_are_characters_in_tsv_and_quoting_in_csv(tmp_path: Path) -> None:
    rows = 'a{0}b\n"x{0}y"\n'
    assert read_table(write(tmp_path, rows.format("\t"), "t.tsv")).frame.rows() == [('"x', 'y"')]
    rows = 'a,b\n"x,y",z\n'
    assert read_table(write(tmp_path, rows, "t.csv")).frame.rows() == [("x,y", "z")]


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl"])
def test_byte_order_mark_is_dropped_and_blank_lines_passed_over(tmp_path: Path, name: str) -> None:
    content = {
        "t.tsv": "\ufeffa\tb\r\n1\t2\r\n\r\n3\t4\r\n\r\n",
        "t.csv": "\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n\r\n",
        "t.jsonl": '\ufeff{"a": "1", "b": "2"}\r\n\r\n\r\n{"a": "3", "b": "4"}\r\n',
    }[name]
    frame, numbers = read_table(write(tmp_path, content, name))
    assert frame.columns == ["a", "b"]
    assert frame.rows() == [("1", "2"), ("3", "4")]
    assert numbers == ([1, 4] if name == "t.jsonl" else [2, 4])


def test_null_like_words_stay_words(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "a\tb\nnull\tNA\n", "t.tsv")).frame.rows() == [("null", "NA")]


def test_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    frame, numbers = read_table(write(tmp_path, "a,b\n", "t.csv"))
    assert (frame.columns, frame.rows(), numbers) == (["a", "b"], [], [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("t.tsv", "a\tb\n1\t2\n3\n", r"line 3 has 1 field; the header has 2", id="tsv, too few"),
        pytest.param("t.tsv", "a\tb\n1\t2\t3\n", r"line 2 has 3 fields; the header has 2", id="tsv, too many"),
        pytest.param("t.csv", 'a,b\n"1\n2",3\n4\n', r"line 4 has 1 field; the header has 2", id="csv, too few"),
        pytest.param(
            "t.csv",
            'a,b\n1,2\n"3,4\n5,6\n',
            r"line 3: unexpected end of data; is a quotation mark left open\?",
            id="csv, open quote",
        ),
        pytest.param("t.csv", 'a,b\n"1"x,2\n', r"line 2: ',' expected after '\"'", id="csv, text after a quote"),
        pytest.param("t.tsv", b"a\tb\n1\t2\n3\t\xff\n", r"line 3: byte 3 \(0xff\) is not UTF-8", id="tsv, not UTF-8"),
        pytest.param("t.csv", b"a,b\n1,2\n\xff,3\n", r"line 3: byte 1 \(0xff\) is not UTF-8", id="csv, not UTF-8"),
        pytest.param("t.jsonl", b'{"a": "\xff"}\n', r"line 1: byte 8 \(0xff\) is not UTF-8", id="jsonl, not UTF-8"),
        pytest.param("t.tsv", "", r"t\.tsv is empty", id="tsv, empty"),
        pytest.param("t.csv", "\n\n", r"t\.csv is empty", id="csv, blank"),
        pytest.param("t.jsonl", "\n", r"t\.jsonl is empty", id="jsonl, blank"),
        pytest.param("t.csv", "a,b\n,\n1\n", r"line 3 has 1 field; the header has 2", id="too few after an empty row"),
        pytest.param("t.csv", "a,b,\n1\n", r"line 2 has 1 field; the header has 3", id="too few, with an empty name"),
        pytest.param(
            "t.csv", "a,b\n1,2,,3\n", r"line 2 has 4 fields; the header has 2", id="a cell beyond the columns"
        ),
        pytest.param(
            "t.tsv",
            'a\tb\n1\t2\n1\t"so ""so"""\n',
            r'line 3: "so ""so""" is quoted as in CSV; TSV has no quotes; say --format csv --separator tab',
            id="tsv as pandas writes it",
        ),
        pytest.param(
            "t.tsv",
            "a\tb\n".encode("utf-16-le"),
            r"line 1: is no text; it looks like UTF-16: save",
            id="UTF-16 without a mark",
        ),
        pytest.param(
            "t.tsv",
            "a\tb\n".encode("utf-16-be"),
            r"line 1: is no text; it looks like UTF-16: save",
            id="UTF-16 BE without a mark",
        ),
        pytest.param("t.tsv.gz", b"a\tb\n", r"is no gzip file, or damaged", id="no gzip"),
        pytest.param(
            "t.tsv.gz", gzip.compress(b"a\tb\n" * 999, mtime=0)[:-9], r"is no gzip file, or damaged", id="gzip, cut"
        ),
        pytest.param("t.csv.gz", gzip.compress(b"a,b\n1\n", mtime=0), r"line 2 has 1 field", id="gzip, a bad line"),
        pytest.param("t.xlsx", b"PK\x03\x04", r"is a workbook; save its sheet as CSV", id="Excel"),
        pytest.param(
            "t.jsonl", '{"a": 1}\n{"a": \n', r"line 2: no JSON \(Expecting value at char", id="jsonl, no JSON"
        ),
        pytest.param(
            "t.jsonl", '{"a": 1}\n\n[1]\n', r"line 3: expected a JSON object, not \[1\]", id="jsonl, no object"
        ),
        pytest.param(
            "t.jsonl",
            '{"a": "x"}\n{"a": null}\n{"a": ["x"]}\n',
            r"line 3: 'a' is a list; it was a string before",
            id="jsonl, string and list",
        ),
        pytest.param("t.jsonl", '{"a": ["x", 1]}\n', r"t\.jsonl: .*String", id="jsonl, list of mixed types"),
        pytest.param(
            "t.jsonl", '{"a": "\\ud800"}\n', r"t\.jsonl: .*surrogates not allowed", id="jsonl, half a character"
        ),
        pytest.param("t.parquet", "a,b", r"t\.parquet: ", id="no parquet"),
        pytest.param(
            "t.txt",
            "a\tb\n",
            r"the ending '\.txt' is not known, only \.tsv, .*\.parquet; say what it is with --format",
            id="ending",
        ),
    ],
)
def test_bad_table_is_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path, content, name)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ("name", "content", "columns", "rows"),
    [
        ("t.csv", "a;b\n1;2,5\n", ["a", "b"], [("1", "2,5")]),
        ("t.csv", "a|b\n1|2\n", ["a", "b"], [("1", "2")]),
        ("t.csv", "a\tb\n1\t2\n", ["a", "b"], [("1", "2")]),
        ("t.csv", "a,b;c\n1,2\n", ["a", "b;c"], [("1", "2")]),
        ("t.csv", "a\n1;2\n", ["a"], [("1;2",)]),
        ("t.csv", "\ufeffsep=;\r\na;b\r\n1;2,5\r\n", ["a", "b"], [("1", "2,5")]),
        ("t.csv", "sep=,\na,b\n1,2\n", ["a", "b"], [("1", "2")]),
        ("t.csv", "a,b\n1,2\n,\n,\n", ["a", "b"], [("1", "2")]),
        ("t.csv", "a,b\n,\n1,2\n", ["a", "b"], [("", ""), ("1", "2")]),
        ("t.csv", "a,b,,\n1,2,,\n3,4\n", ["a", "b", "", ".1"], [("1", "2", "", ""), ("3", "4", "", "")]),
        ("t.csv", "a,b\n1,2,,\n", ["a", "b"], [("1", "2")]),
        ("t.tsv", "a\tb\n1\t2\n\t\n", ["a", "b"], [("1", "2")]),
        ("t.tsv", "a\ta\ta.1\n1\t2\t3\n", ["a", "a.1", "a.1.1"], [("1", "2", "3")]),
        ("t.tsv", 'a\tb\n"x"\t"\n', ["a", "b"], [('"x"', '"')]),
        ("t.tsv.gz", gzip.compress(b"a\tb\n1\t2\n", mtime=0), ["a", "b"], [("1", "2")]),
        ("t.CSV.GZ", gzip.compress(b"a;b\n1;2\n", mtime=0), ["a", "b"], [("1", "2")]),
        ("t.csv", "a,b\n" + "x" * 1_000_000 + ",2\n", ["a", "b"], [("x" * 1_000_000, "2")]),
    ],
)
def test_what_other_programs_write(
    tmp_path: Path, name: str, content: str | bytes, columns: list[str], rows: list[tuple[str, ...]]
) -> None:
    frame, _ = read_table(write(tmp_path, content, name))
    assert frame.columns == columns
    assert frame.rows() == rows


def test_line_numbers_after_the_line_of_excel(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, 'sep=;\na;b\n"1\n1";2\n3;4\n', "t.csv")).lines == [3, 5]
    with pytest.raises(ValueError, match="line 3 has 1 field; the header has 2"):
        read_table(write(tmp_path, "sep=;\na;b\n1\n", "t.csv"))


def test_what_pandas_writes_as_tsv_is_read_with_its_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, 'a\tb\n1\t"so ""so"""\n2\t"x\ty"\n', "t.tsv")
    assert read_table(path, "csv", separator="\t").frame.rows() == [("1", 'so "so"'), ("2", "x\ty")]
    kept = write(tmp_path, 'a\tb\n1\t"so ""so"""\n', "kept.tsv")
    assert read_table(kept, "tsv").frame.rows() == [("1", '"so ""so"""')]


@pytest.mark.parametrize(("format", "separator"), [("tsv", ";"), ("csv", ";;"), ("csv", '"'), ("csv", "")])
def test_a_separator_is_one_character_of_a_csv_file(tmp_path: Path, format: TableFormat, separator: str) -> None:
    with pytest.raises(ValueError, match=r"separator \(.*\) must be one character, of a CSV file"):
        read_table(write(tmp_path, "a;b\n", "t"), format, separator=separator)


def test_columns_of_the_same_name_are_refused_where_they_are_used(tmp_path: Path) -> None:
    path = write(tmp_path, "sentence1\tsentence2\tlabel\tlabel\nab c\td\t1\t0\n", "t.tsv")
    with pytest.raises(ValueError, match="two columns are named 'label'; rename one of them"):
        SentencePairs.load(path)
    assert SentencePairs.load(path, label_column=None).left == [("ab", "c")]


def test_the_limit_of_csv_cells_stays_what_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    read_table(write(tmp_path, "a,b\n1,2\n", "t.csv"))
    assert csv.field_size_limit() == before


def test_format_goes_before_the_ending(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "a\tb\n1\t2\n", "t.csv"), "tsv").frame.rows() == [("1", "2")]


def test_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"format \('xlsx'\) must be one of tsv, csv, jsonl, parquet"):
        read_table(write(tmp_path, "", "t.csv"), "xlsx")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl", "t.parquet"])
def test_without_polars_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(tmp_path, '{"a": 1}\n', name)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match=r'pip install "towers\[train\]"'):
        read_table(path)


# The same pairs in every format.

SENTENCES = ("Don't stop.", 'A "dog"')
WORDS = (("Do", "n't", "stop", "."), ("A", '"', "dog", '"'))
RATINGS = (1.0, 4.5)


def as_file(folder: Path, format: TableFormat, sentences: Sequence[Any], labels: Sequence[Any]) -> str:
    frame = polars.DataFrame({"sentence1": sentences, "sentence2": sentences[::-1], "label": labels})
    path = folder / f"pairs.{format}"
    if format == "tsv":
        frame.write_csv(path, separator="\t", quote_style="never")
    else:
        getattr(frame, {"csv": "write_csv", "jsonl": "write_ndjson", "parquet": "write_parquet"}[format])(path)
    return str(path)


@pytest.mark.parametrize("format", ["tsv", "csv", "jsonl", "parquet"])
@pytest.mark.parametrize("as_text", [False, True], ids=["labels are numbers", "labels are strings"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, format: TableFormat, as_text: bool) -> None:
    path = as_file(tmp_path, format, SENTENCES, [str(label) for label in RATINGS] if as_text else RATINGS)
    pairs = SentencePairs.load(path, label_range=(1, 5))
    assert (tuple(pairs.left), tuple(pairs.right)) == (WORDS, WORDS[::-1])
    assert pairs.labels is not None
    assert pairs.labels.tolist() == [0, 0.875]
    assert pairs.source == path
    assert pairs.lines == ([2, 3] if format in ("tsv", "csv") else [1, 2])


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_sentences_that_are_lists_are_taken_as_they_are(tmp_path: Path, format: TableFormat) -> None:
    sentences = [["Don't stop", "."], ["a"]]
    pairs = SentencePairs.load(as_file(tmp_path, format, sentences, [0, 1]))
    assert pairs.left == [("Don't stop", "."), ("a",)]


def test_booleans_are_labels(tmp_path: Path) -> None:
    pairs = SentencePairs.load(as_file(tmp_path, "parquet", SENTENCES, [True, False]))
    assert pairs.labels is not None
    assert pairs.labels.tolist() == [1, 0]


def test_columns_by_name_and_split_at_spaces(tmp_path: Path) -> None:
    path = write(tmp_path, "id\ttokens2\ttokens1\n7\ta  dog .\tDo n't\n", "t.tsv")
    pairs = SentencePairs.load(path, left_column="tokens1", right_column="tokens2", label_column=None, split="spaces")
    assert (pairs.left, pairs.right, pairs.labels) == ([("Do", "n't")], [("a", "dog", ".")], None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"left_column": "sentense1"}, r"no column 'sentense1', only .*mean 'sentence1'\?", id="near"),
        pytest.param(
            {"label_column": "xyz"},
            r"no column 'xyz', only sentence1, sentence2, label; say which with --label-column .in Python label_column.$",
            id="not near",
        ),
        pytest.param({"split": "words"}, r"split \('words'\) must be one of rule, spaces", id="split"),
        pytest.param({"label_range": (1, 0)}, r"label_range \(1, 0\) must be two numbers, the lower first", id="range"),
        pytest.param({"label_range": (0, float("inf"))}, r"label_range \(0, inf\) must be", id="infinite range"),
    ],
)
def test_bad_option_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = write(tmp_path, "sentence1\tsentence2\tlabel\na\tb\t1\n", "t.tsv")
    with pytest.raises(ValueError, match=message):
        SentencePairs.load(path, **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param({"sentence1": ""}, r"line 2: sentence1 is empty", id="empty"),
        pytest.param({"sentence2": "  "}, r"line 2: sentence2 is empty", id="blank"),
        pytest.param({"sentence2": None}, r"line 2: sentence2 is empty", id="null"),
        pytest.param(
            {"label": "yes"}, r"line 2: label is 'yes', which is no number; labels go from 0 to 1$", id="no number"
        ),
        pytest.param({"label": None}, r"line 2: label is None, a missing label", id="no label"),
        pytest.param({"label": "1.5"}, r"line 2: label is 1\.5; the label range is 0 to 1", id="above"),
        pytest.param({"label": "-1"}, r"line 2: label is -1; the label range is 0 to 1", id="below"),
        pytest.param({"label": "nan"}, r"line 2: label is nan; the label range is 0 to 1", id="NaN"),
    ],
)
def test_bad_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    good = {"sentence1": "a b", "sentence2": "c d", "label": "1"}
    path = write(tmp_path, f"{json.dumps(good)}\n{json.dumps(good | row)}\n", "t.jsonl")
    with pytest.raises(ValueError, match=message) as caught:
        SentencePairs.load(path)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        pytest.param(["a", None], r"line 1: sentence1 is \['a', None\]; expected a string or a list", id="null word"),
        pytest.param([], r"line 1: sentence1 is empty", id="no words"),
        pytest.param(7, r"line 1: sentence1 is 7; expected a string or a list of strings", id="number"),
        pytest.param({"a": 1}, r"line 1: sentence1 is \{'a': 1\}; expected a string or a list", id="object"),
    ],
)
def test_what_is_no_sentence_is_named(tmp_path: Path, cell: Any, message: str) -> None:
    path = write(tmp_path, json.dumps({"sentence1": cell, "sentence2": "b", "label": 0}), "t.jsonl")
    with pytest.raises(ValueError, match=message):
        SentencePairs.load(path)
