"""Files of word vectors as other programs write them, whole or damaged: the right vectors, or one line that says why not.

Each goes through both readers, `WordVectors` (in memory) and `VectorStore` (in its file): they must agree.
"""

import bz2
import gzip
import io
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from towers.data import VectorStore, WordVectors

L, M = "the 0.5 1 -2\n", "dog 3 4 5\n"
W, T = ["the", "dog"], [[0.5, 1, -2], [3, 4, 5]]
GOOD = {"the": [0.5, 1, -2], "dog": [3, 4, 5]}


def binary(
    words: Sequence[str | bytes], rows: Sequence[Sequence[float]], end: bytes = b"\n", head: bytes = b""
) -> bytes:
    body = head or b"%d %d\n" % (len(words), len(rows[0]))
    for word, row in zip(words, rows, strict=True):
        name = word if isinstance(word, bytes) else word.encode()
        body += name + b" " + struct.pack(f"<{len(row)}f", *row) + end
    return body


def zipped(name: str, text: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo(name), text)
    return archive.getvalue()


# What it is, its name, its content, and the vectors, or the error ("…": a text of Python's).
# fmt: off
CASES = [
    ('glove', 'v.txt', L+M, GOOD),
    ('glove CRLF', 'v.txt', (L+M).replace("\n","\r\n"), GOOD),
    ('glove CR', 'v.txt', (L+M).replace("\n","\r"), 'v.txt, line 1: lines end in carriage returns alone, as on old Macs; save the file with other line ends'),
    ('glove no end', 'v.txt', (L+M)[:-1], GOOD),
    ('BOM', 'v.txt', "\ufeff"+L+M, GOOD),
    ('BOM inside, of joined files', 'v.txt', L+"\ufeff"+M, GOOD),
    ('BOM header', 'v.txt', "\ufeff2 3\n"+L+M, GOOD),
    ('tabs', 'v.txt', (L+M).replace(" ","\t"), GOOD),
    ('commas', 'v.txt', (L+M).replace(" ",","), "v.txt, line 1: expected a word and its numbers, with spaces between, not 'the,0.5,1,-2\\n'"),
    ('semicolons', 'v.txt', (L+M).replace(" ",";"), "v.txt, line 1: expected a word and its numbers, with spaces between, not 'the;0.5;1;-2\\n'"),
    ('CSV with header', 'v.csv', "word,a,b,c\nthe,.5,1,-2\n", "v.csv, line 1: expected a word and its numbers, with spaces between, not 'word,a,b,c\\n'"),
    ('TSV with header', 'v.tsv', "word\ta\tb\tc\n"+(L+M).replace(" ","\t"), "v.tsv, line 1: number 1 of 3 is 'a'; expected a finite number"),
    ('double spaces', 'v.txt', (L+M).replace(" ","  "), GOOD),
    ('leading space', 'v.txt', L+" "+M, GOOD),
    ('all leading spaces', 'v.txt', " "+L+" "+M, GOOD),
    ('trailing spaces', 'v.txt', (L+M).replace("\n","  \n"), GOOD),
    ('blank lines', 'v.txt', "\n"+L+"\n\n"+M+"\n", GOOD),
    ('blank line first after header', 'v.txt', "2 3\n\n"+L+M, GOOD),
    ('form feed line', 'v.txt', L+"\f\n"+M, 'v.txt, line 2: 0 numbers after the word; expected 3'),
    ('w2v', 'v.txt', "2 3\n"+L+M, GOOD),
    ('w2v CRLF', 'v.txt', ("2 3\n"+L+M).replace("\n","\r\n"), GOOD),
    ('w2v too many in header', 'v.txt', "3 3\n"+L+M, 'v.txt ends after 2 words; its header says 3'),
    ('w2v too few in header', 'v.txt', "1 3\n"+L+M, GOOD),
    ('w2v width less', 'v.txt', "2 2\n"+L+M, "v.txt, line 2: 'the 0.5' has numbers beyond the 2 expected after a word"),
    ('w2v width more', 'v.txt', "2 4\n"+L+M, 'v.txt, line 2: 3 numbers after the word; expected 4'),
    ('w2v 0 300', 'v.txt', "0 300\n", 'v.txt has no words; expected a word and its numbers on each line'),
    ('w2v 2 0', 'v.txt', "2 0\nthe\ndog\n", 'v.txt, line 1: expected the header "count width", not b\'2 0\\n\''),
    ('w2v 0 3 and rows', 'v.txt', "0 3\n"+L+M, GOOD),
    ('header of three', 'v.txt', "2 3 1\n"+L+M, 'v.txt, line 1: 2 numbers after the word; expected 3'),
    ('header negative', 'v.txt', "-2 3\n"+L+M, 'v.txt, line 1: 1 numbers after the word; expected 3'),
    ('header only, bigger', 'v.txt', "400000 300\n", 'v.txt has no words; expected a word and its numbers on each line'),
    ('header twice', 'v.txt', "2 3\n2 3\n"+L+M, 'v.txt, line 2: 1 numbers after the word; expected 3'),
    ('header in the middle (two files)', 'v.txt', "2 3\n"+L+M+"1 3\ncat 1 2 3\n", 'v.txt, line 4: 1 numbers after the word; expected 3'),
    ('fasttext vec', 'v.vec', "2 3\nthe 0.5 1 -2 \ndog 3 4 5 \n", GOOD),
    ('word with spaces', 'v.txt', L+M+". . . 1 2 3\n", GOOD | {'. . .': [1.0, 2.0, 3.0]}),
    ('word with spaces, w2v', 'v.txt', "3 3\n"+L+M+". . . 1 2 3\n", GOOD | {'. . .': [1.0, 2.0, 3.0]}),
    ('word number', 'v.txt', L+M+"5 1 2 3\n", GOOD | {'5': [1.0, 2.0, 3.0]}),
    ('word nbsp', 'v.txt', L+M+"a\u00a0b 1 2 3\n", GOOD | {'a\xa0b': [1.0, 2.0, 3.0]}),
    ('word U+2028', 'v.txt', L+M+"a\u2028b 1 2 3\n", GOOD | {'a\u2028b': [1.0, 2.0, 3.0]}),
    ('word U+0085', 'v.txt', L+M+"a\u0085b 1 2 3\n", GOOD | {'a\x85b': [1.0, 2.0, 3.0]}),
    ('word CR inside', 'v.txt', L+M+"a\rb 1 2 3\n", GOOD | {'a\rb': [1.0, 2.0, 3.0]}),
    ('word is nan', 'v.txt', L+M+"nan 1 2 3\n", GOOD | {'nan': [1.0, 2.0, 3.0]}),
    ('all words numbers', 'v.txt', "1 2 3\n4 5 6\n7 8 9\n", {'1': [2.0, 3.0], '4': [5.0, 6.0], '7': [8.0, 9.0]}),
    ('repeated', 'v.txt', L+M+"the 9 9 9\n", GOOD),
    ('case', 'v.txt', L+M+"The 9 9 9\n", GOOD | {'The': [9.0, 9.0, 9.0]}),
    ('empty word', 'v.txt', L+M+" 1 2 3\n", GOOD),
    ('no word', 'v.txt', L+M+"1 2 3\n", 'v.txt, line 3: 2 numbers after the word; expected 3'),
    ('short line', 'v.txt', L+M+"cat 1 2\n", 'v.txt, line 3: 2 numbers after the word; expected 3'),
    ('long line', 'v.txt', L+M+"cat 1 2 3 4\n", GOOD | {'cat 1': [2.0, 3.0, 4.0]}),
    ('long line after a header', 'v.txt', "3 3\n"+L+M+"cat 1 2 3 4\n", "v.txt, line 4: 'cat 1' has numbers beyond the 3 expected after a word"),
    ('long line of decimals', 'v.txt', L+M+"cat 0.125 2.5 3.25 4.5\n", "v.txt, line 3: 'cat 0.125' has numbers beyond the 3 expected after a word"),
    ('two rows in a line', 'v.txt', L+M+"cat 0.125 2.5 3.25 cow 1 2 3\n", "v.txt, line 3: 'cat 0.125 2.5 3.25 cow' has numbers beyond the 3 expected after a word"),
    ('words with numbers in them', 'v.txt', L+M+"version 2.0 1 2 3\n1 . 5 1 2 3\n"+"".join(f"w{i} 1 2 3\n" for i in range(4)), GOOD | {'version 2.0': [1.0, 2.0, 3.0], '1 . 5': [1.0, 2.0, 3.0]} | {f"w{i}": [1.0, 2.0, 3.0] for i in range(4)}),
    ('many long lines', 'v.txt', (L+M)*3+"".join(f"c{i} 1 2 3 4\n" for i in range(4)), 'v.txt: 4 of the first 10 words end in a number; rows have more numbers than the 3 expected'),
    ('cut last line', 'v.txt', L+M+"cat 1 2 3.14"[:-6], 'v.txt, line 3: 1 numbers after the word; expected 3'),
    ('cut last number', 'v.txt', L+"dog 3 4 0.12", {'the': [0.5, 1.0, -2.0], 'dog': [3.0, 4.0, 0.12]}),
    ('not a number', 'v.txt', L+M+"cat 1 x 3\n", "v.txt, line 3: number 2 of 3 is 'x'; expected a finite number"),
    ('decimal comma', 'v.txt', L+M+"cat 0,1 0,2 0,3\n", "v.txt, line 3: number 1 of 3 is '0,1'; expected a finite number"),
    ('all decimal comma', 'v.txt', "the 0,5 1,0 2,0\n", "v.txt, line 1: expected a word and its numbers, with spaces between, not 'the 0,5 1,0 2,0\\n'"),
    ('underscore number', 'v.txt', L+M+"cat 1_0 2 3\n", "v.txt, line 3: number 1 of 3 is '1_0'; expected a finite number"),
    ('nan', 'v.txt', L+M+"cat 1 nan 3\n", "v.txt, line 3: number 2 of 3 is 'nan'; expected a finite number"),
    ('inf', 'v.txt', L+M+"cat 1 inf 3\n", "v.txt, line 3: number 2 of 3 is 'inf'; expected a finite number"),
    ('1e400', 'v.txt', L+M+"cat 1 1e400 3\n", "v.txt, line 3: number 2 of 3 is '1e400'; expected a finite number"),
    ('1e39', 'v.txt', L+M+"cat 1 1e39 3\n", "v.txt, line 3: number 2 of 3 is '1e39'; expected a finite number"),
    ('1e38', 'v.txt', L+M+"cat 1 1e38 3\n", GOOD | {'cat': [1.0, 9.999999680285692e+37, 3.0]}),
    ('1e-60', 'v.txt', L+M+"cat 1 1e-60 3\n", GOOD | {'cat': [1.0, 0.0, 3.0]}),
    ('hex', 'v.txt', L+M+"cat 1 0x1p3 3\n", "v.txt, line 3: number 2 of 3 is '0x1p3'; expected a finite number"),
    ('plus', 'v.txt', L+M+"cat +1 2. .3\n", GOOD | {'cat': [1.0, 2.0, 0.3]}),
    ('arabic digits', 'v.txt', L+M+"cat ١ ٢ ٣\n", "v.txt, line 3: number 1 of 3 is '١'; expected a finite number"),
    ('json list', 'v.txt', '{"the": [0.5, 1, -2]}\n', 'v.txt, line 1: expected a word and its numbers, with spaces between, not \'{"the": [0.5, 1, -2]}\\n\''),
    ('pandas repr', 'v.txt', "the [0.5 1 -2]\ndog [3 4 5]\n", "v.txt, line 1: expected a word and its numbers, with spaces between, not 'the [0.5 1 -2]\\n'"),
    ('latin-1 word', 'v.txt', (L+M+"café 1 2 3\n").encode("latin-1"), 'v.txt, line 3: byte 4 (0xe9) is not UTF-8; save the file as UTF-8'),
    ('utf-16', 'v.txt', (L+M).encode("utf-16"), 'v.txt: is no file of word vectors; it is UTF-16: save the file as UTF-8'),
    ('utf-16-le', 'v.txt', (L+M).encode("utf-16-le"), 'v.txt: is no file of word vectors; it looks like UTF-16: save the file as UTF-8'),
    ('utf-16-be', 'v.txt', (L+M).encode("utf-16-be"), 'v.txt: is no file of word vectors; it looks like UTF-16: save the file as UTF-8'),
    ('utf-32', 'v.txt', (L+M).encode("utf-32"), 'v.txt: is no file of word vectors; it is UTF-32: save the file as UTF-8'),
    ('empty', 'v.txt', "", 'v.txt is empty'),
    ('blank', 'v.txt', "\n\n", "v.txt, line 1: expected a word and its numbers, with spaces between, not '\\n'"),
    ('words only', 'v.txt', "the\ndog\n", "v.txt, line 1: expected a word and its numbers, with spaces between, not 'the\\n'"),
    ('prose', 'v.txt', "This is a readme of some vectors.\nIt has 2 lines.\n", "v.txt, line 1: expected a word and its numbers, with spaces between, not 'This is a readme of some vectors.\\n'"),
    ('html', 'v.txt', "<!DOCTYPE html>\n<html><body>404</body></html>\n", "v.txt, line 1: expected a word and its numbers, with spaces between, not '<!DOCTYPE html>\\n'"),
    ('git lfs pointer', 'v.txt', "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1234\n", 'v.txt: is no file of word vectors; it is a pointer of Git LFS to a file that is not here: fetch it with git lfs pull'),
    ('pairs file', 'v.tsv', "sentence1\tsentence2\tlabel\na dog\ta cat\t1\n", "v.tsv, line 1: number 1 of 1 is 'label'; expected a finite number"),
    ('gz', 'v.txt.gz', gzip.compress((L+M).encode(), mtime=0), GOOD),
    ('gz no ending', 'v.txt', gzip.compress((L+M).encode(), mtime=0), GOOD),
    ('gz named bin', 'v.bin.gz', gzip.compress(binary(W,T), mtime=0), GOOD),
    ('gz cut', 'v.txt.gz', gzip.compress((L+M).encode()*50, mtime=0)[:-9], 'v.txt.gz: is no gzip file, or damaged:…'),
    ('gz rubbish', 'v.txt.gz', gzip.compress((L+M).encode(), mtime=0)+b"rubbish", 'v.txt.gz: is no gzip file, or damaged:…'),
    ('gz in gz', 'v.gz', gzip.compress(gzip.compress((L+M).encode(), mtime=0), mtime=0), 'v.gz: is no file of word vectors; the file is compressed: unpack it first'),
    ('bz2', 'v.bz2', bz2.compress((L+M).encode()), 'v.bz2: is no file of word vectors; the file is compressed: unpack it first'),
    ('xz', 'v.xz', b"\xfd7zXZ\x00", 'v.xz: is no file of word vectors; the file is compressed: unpack it first'),
    ('zst', 'v.zst', b"\x28\xb5\x2f\xfd\x00", 'v.zst: is no file of word vectors; the file is compressed: unpack it first'),
    ('zip', 'v.zip', zipped("a.npy", "x"), 'v.zip: is no file of word vectors; it is a zip archive (such as .zip, .npz of NumPy or .xlsx of Excel), compressed or not: unpack it, or save the data as text'),
    ('npz', 'v.npz', zipped("a.npy", "x"), 'v.npz: is no file of word vectors; it is a zip archive (such as .zip, .npz of NumPy or .xlsx of Excel), compressed or not: unpack it, or save the data as text'),
    ('npy', 'v.npy', b"\x93NUMPY\x01\x00v\x00{}", 'v.npy: is no file of word vectors; it is an array of NumPy, which has no words: save words and vectors as text'),
    ('kv', 'v.kv', b"\x80\x04\x95\x00", "v.kv: is no file of word vectors; it is a pickle, such as gensim's .kv or .model: save it with save_word2vec_format"),
    ('pickle proto 3', 'v.pkl', b"\x80\x03c", "v.pkl: is no file of word vectors; it is a pickle, such as gensim's .kv or .model: save it with save_word2vec_format"),
    ('pickle proto 0', 'v.pkl', b"(dp0\nS'the'\np1\n.", "v.pkl, line 1: expected a word and its numbers, with spaces between, not '(dp0\\n'"),
    ('torch pt', 'v.pt', zipped("a.npy", "x"), 'v.pt: is no file of word vectors; it is a zip archive (such as .zip, .npz of NumPy or .xlsx of Excel), compressed or not: unpack it, or save the data as text'),
    ('safetensors', 'v.safetensors', struct.pack("<Q",64)+b'{"table":{"dtype":"F32"}}', 'v.safetensors: is no file of word vectors; it is a safetensors file: save the data as text'),
    ('parquet', 'v.parquet', b"PAR1\x15\x04", 'v.parquet: is no file of word vectors; the file is Parquet'),
    ('hdf5', 'v.h5', b"\x89HDF\r\n\x1a\n", 'v.h5: is no file of word vectors; it is an HDF5 file: save the data as text'),
    ('fasttext bin', 'v.bin', struct.pack("<i",793712314)+bytes(40), 'v.bin: is no file of word vectors; it is a model of fastText (.bin): save its vectors as text (.vec)'),
    ('magnitude (sqlite)', 'v.magnitude', b"SQLite format 3\x00", 'v.magnitude: is no file of word vectors; it is a database of SQLite: save the data as text'),
    ('ELF', 'v.bin', b"\x7fELF\x02\x01\x01", "v.bin, line 1: expected a word and its numbers, with spaces between, not '\\x7fELF\\x02\\x01\\x01'"),
    ('bin', 'v.bin', binary(W,T), GOOD),
    ('bin no line ends', 'v.bin', binary(W,T,end=b""), GOOD),
    ('bin CRLF header', 'v.bin', binary(W,T,head=b"2 3\r\n"), GOOD),
    ('bin spaced header', 'v.bin', binary(W,T,head=b"2  3 \n"), GOOD),
    ('bin word space', 'v.bin', binary(["the","New York"],T,end=b""), "v.bin: the vector of 'New' has a number beyond 1e+09; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"),
    ('bin word space, LF', 'v.bin', binary(["the","New York"],T), "v.bin: the vector of 'New' has a number beyond 1e+09; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"),
    ('bin three words', 'v.bin', binary(["the","New York","dog"],[*T,[6,7,8]]), "v.bin: the vector of 'New' has a number beyond 1e+09; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"),
    ('bin word space, 4 bytes on', 'v.bin', binary(["in","the cat","dog"],[[1,2,struct.unpack("<f",b"e^e?")[0]]]*3,end=b""), "v.bin: the numbers of word 2 begin with text; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"),
    ('bin word space, 12 bytes on', 'v.bin', binary(["in","man of the year","dog"],[[1]*5]*3,end=b""), "v.bin: the numbers of word 2 begin with text; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"),
    ('bin cut', 'v.bin', binary(W,T)[:-5], 'v.bin ends before the 2 words that its header says'),
    ('bin cut at end', 'v.bin', binary(W,T,end=b"")[:-1], 'v.bin ends before the 2 words that its header says'),
    ('bin more', 'v.bin', binary(W,T)+b"more", 'v.bin: has more bytes after its 2 words; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text'),
    ('bin more zero', 'v.bin', binary(W,T)+b"\n\n", GOOD),
    ('bin header too few', 'v.bin', binary(W,T,head=b"1 3\n"), 'v.bin: has more bytes after its 1 words; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text'),
    ('bin header too many', 'v.bin', binary(W,T,head=b"3 3\n"), 'v.bin ends before the 3 words that its header says'),
    ('bin wrong width', 'v.bin', binary(W,T,head=b"2 2\n"), 'v.bin: word 2 has control characters; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text'),
    ('bin width 4', 'v.bin', binary(W,T,head=b"2 4\n"), "v.bin: the vector of 'the' has a number beyond 1e+09; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"),
    ('bin absurd count', 'v.bin', binary(W,T,head=b"9999999999 300\n"), 'v.bin ends before the 9999999999 words that its header says'),
    ('bin absurd width', 'v.bin', binary(W,T,head=b"2 99999999999\n"), 'v.bin ends before the 2 words that its header says'),
    ('bin huge digits', 'v.bin', binary(W,T,head=b"9"*5000+b" 3\n"), 'v.bin, line 2: byte 11 (0x80) is not UTF-8; save the file as UTF-8'),
    ('bin 1e36', 'v.bin', binary(W,[[1e36,1,1],[1,1,1]]), "v.bin: the vector of 'the' has a number beyond 1e+09; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"),
    ('bin nan', 'v.bin', binary(W,[[float("nan"),1,1],[1,1,1]]), "v.bin: the vector of 'the' has a number that is not finite; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"),
    ('bin inf', 'v.bin', binary(W,[[float("inf"),1,1],[1,1,1]]), "v.bin: the vector of 'the' has a number that is not finite; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text"),
    ('bin big endian', 'v.bin', b"2 3\n"+b"".join(w.encode()+b" "+struct.pack(">3f",*r)+b"\n" for w,r in zip(W,T,strict=True)), 'v.bin: its numbers are next to nothing (root mean square 4e-41); the file is damaged, or has another byte order'),
    ('bin float64', 'v.bin', b"2 3\n"+b"".join(w.encode()+b" "+struct.pack("<3d",*r)+b"\n" for w,r in zip(W,T,strict=True)), 'v.bin: word 2 has control characters; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text'),
    ('bin float16', 'v.bin', b"2 3\n"+b"".join(w.encode()+b" "+struct.pack("<3e",*r)+b"\n" for w,r in zip(W,T,strict=True)), 'v.bin ends before the 2 words that its header says'),
    ('bin utf-8 word', 'v.bin', binary(["the","Größe"],T), {'the': [0.5, 1.0, -2.0], 'Größe': [3.0, 4.0, 5.0]}),
    ('bin latin-1 word', 'v.bin', binary(["the",b"Gr\xf6\xdfe"],T), {'the': [0.5, 1.0, -2.0], 'Gr��e': [3.0, 4.0, 5.0]}),
    ('bin empty word', 'v.bin', binary(["the",""],T), {'the': [0.5, 1.0, -2.0]}),
    ('bin tab word', 'v.bin', binary(["the","a\tb"],T), 'v.bin: word 2 has control characters; the file is damaged, or its words contain spaces, which this format cannot hold: save it as text'),
    ('bin zero words', 'v.bin', b"0 3\n", 'v.bin has no words; expected a word and its numbers on each line'),
    ('bin no header', 'v.bin', binary(W,T,head=b" ")[1:], "v.bin, line 1: expected a word and its numbers, with spaces between, not 'the \\x00\\x00\\x00?\\x00\\x00�?\\x00\\x00\\x00�\\n'"),
]
# fmt: on


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def loaded(name: str) -> dict[str, list[float]]:
    vectors = WordVectors.load(name)
    return dict(zip(vectors.words, vectors.table.tolist(), strict=True))


def stored(name: str) -> dict[str, list[float]]:
    with VectorStore(name) as store:
        words = {entry.word.decode() for entry in store._reader.entries()} - {""}
        selected = store.select(words)
    return dict(zip(selected.words, selected.table.tolist(), strict=True))


@pytest.mark.parametrize(("name", "content", "expected"), [pytest.param(*case, id=id) for id, *case in CASES])
def test_file(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | bytes, expected: object) -> None:
    monkeypatch.chdir(folder)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (loaded, stored):
        try:
            vectors = read(name)
        except ValueError as error:
            message = str(error)
            assert "\n" not in message
            if isinstance(expected, str) and expected.endswith("…"):
                assert message.startswith(expected[:-1])
            else:
                assert message == expected
        else:
            assert isinstance(expected, dict)
            assert {word: pytest.approx(row, rel=1e-6) for word, row in expected.items()} == vectors


def test_the_table_is_as_long_as_it_claims() -> None:
    assert len({id for id, *_ in CASES}) == len(CASES) >= 100
