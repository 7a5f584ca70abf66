"""Files of pairs as other programs and people write them: each gives the right pairs, or one line that says what is wrong.

The list is the documentation of what is read (README, "Files that go through"); a new kind of file is a new row here.
"""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pytest

from towers.data import SentencePairs

H = "sentence1\tsentence2\tlabel\n"
R = "a dog\ta cat\t1\n"
C, D = H.replace("\t", ","), R.replace("\t", ",")
J = '{"sentence1": "a dog", "sentence2": "a cat", "label": 1}\n'
GOOD = [("a dog", "a cat", 1.0)]


def zipped(name: str, text: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo(name), text)
    return archive.getvalue()


# What it is, its name, its content, and the pairs with words joined by spaces, or the error ("…": a text of Python's).
# fmt: off
CASES = [
    # lines and encodings of TSV
    ('LF', 'p.tsv', H+R, GOOD),
    ('CRLF', 'p.tsv', (H+R).replace("\n","\r\n"), GOOD),
    ('CR', 'p.tsv', (H+R).replace("\n","\r"), 'p.tsv, line 1: lines end in carriage returns alone, as on old Macs; save the file with other line ends'),
    ('CR in CRLF file', 'p.tsv', H+"a dog\ta\rcat\t1\n", GOOD),
    ('no last line end', 'p.tsv', (H+R)[:-1], GOOD),
    ('BOM', 'p.tsv', "\ufeff"+H+R, GOOD),
    ('BOM twice', 'p.tsv', "\ufeff\ufeff"+H+R, "p.tsv has no column 'sentence1', only '\\ufeffsentence1', sentence2, label; did you mean '\\ufeffsentence1'?"),
    ('BOM inside, of joined files', 'p.tsv', H+R+"\ufeff"+R, GOOD+GOOD),
    ('BOM inside with the header again', 'p.tsv', H+R+"\ufeff"+H+R, "p.tsv, line 3: label is 'label', which is no number; labels go from 0 to 1"),
    ('BOM inside JSON lines', 'p.jsonl', J+"\ufeff"+J, 'p.jsonl, line 2: no JSON…'),
    ('UTF-16 after UTF-8', 'p.tsv', (H+R).encode()+"é x\tx\t1\n".encode("utf-16-le"), 'p.tsv, line 3: byte 1 (0xe9) is not UTF-8; save the file as UTF-8'),
    ('UTF-16 Chinese without mark', 'p.csv', "句子,sentence2\n".encode("utf-16-le"), 'p.csv, line 1: byte 1 (0xe5) is not UTF-8; save the file as UTF-8'),
    ('Shift JIS', 'p.csv', (C+"犬,猫,1\n").encode("shift-jis"), 'p.csv, line 2: byte 1 (0x8c) is not UTF-8; save the file as UTF-8'),
    ('blank lines', 'p.tsv', "\n"+H+"\n\n"+R+"\n \n", GOOD),
    ('blank of spaces', 'p.tsv', H+"  \n"+R, GOOD),
    ('latin-1', 'p.tsv', (H+"café x\ta cat\t1\n").encode("latin-1"), 'p.tsv, line 2: byte 4 (0xe9) is not UTF-8; save the file as UTF-8'),
    ('cp1252 quotes', 'p.tsv', (H+"it’s x\ta cat\t1\n").encode("cp1252"), 'p.tsv, line 2: byte 3 (0x92) is not UTF-8; save the file as UTF-8'),
    ('UTF-16', 'p.tsv', (H+R).encode("utf-16"), 'p.tsv, line 1: byte 1 (0xff) is not UTF-8; it is UTF-16: save the file as UTF-8'),
    ('UTF-16 LE', 'p.tsv', (H+R).encode("utf-16-le"), 'p.tsv, line 1: is no text; it looks like UTF-16: save the file as UTF-8'),
    ('UTF-16 BE', 'p.tsv', (H+R).encode("utf-16-be"), 'p.tsv, line 1: is no text; it looks like UTF-16: save the file as UTF-8'),
    ('UTF-32', 'p.tsv', (H+R).encode("utf-32"), 'p.tsv, line 1: byte 1 (0xff) is not UTF-8; it is UTF-32: save the file as UTF-8'),
    ('UTF-16 BE with mark', 'p.tsv', "\ufeff".encode("utf-16-be")+(H+R).encode("utf-16-be"), 'p.tsv, line 1: byte 1 (0xfe) is not UTF-8; it is UTF-16: save the file as UTF-8'),
    ('UTF-16 Russian without mark', 'p.tsv', ("предложение\tsentence2\n"+R).encode("utf-16-le"), 'p.tsv, line 1: is no text; save the file as UTF-8'),
    ('Windows 1251', 'p.tsv', (H+"собака бежит\tкот\t1\n").encode("cp1251"), 'p.tsv, line 2: byte 1 (0xf1) is not UTF-8; save the file as UTF-8'),
    ('cut in a character', 'p.tsv', (H+"a dog\ta café").encode()[:-1], 'p.tsv, line 2: byte 12 (0xc3) is not UTF-8; save the file as UTF-8'),
    ('NUL in a cell', 'p.tsv', H+"a d\0og\ta cat\t1\n", 'p.tsv, line 2: byte 4 is NUL, which no text has; the file is damaged, or not UTF-8: save the file as UTF-8'),
    ('NUL in a CSV cell', 'p.csv', C+'"a dog","a\0cat",1\n', 'p.csv, line 2: byte 11 is NUL, which no text has; the file is damaged, or not UTF-8: save the file as UTF-8'),
    ('NUL in JSON', 'p.jsonl', J.replace("dog", "d\\u0000g"), 'p.jsonl, line 1: sentence1 has a NUL, which no text has'),
    ('NULs at the end', 'p.tsv', H+R+"\0\0\0\0", 'p.tsv, line 3: byte 1 is NUL, which no text has; the file is damaged, or not UTF-8: save the file as UTF-8'),
    ('quote after a space', 'p.csv', C+'a dog, "a cat",1\n', """p.csv, line 2: ' "a cat"' has spaces before its quotation mark, which then is no quote; leave these spaces out"""),
    ('a quoted quotation after a space', 'p.csv', C+'a dog," ""a cat"" x",1\n', [('a dog', '" a cat " x', 1.0)]),
    ('quotes after spaces around separators', 'p.csv', C+'a dog, "a, cat", 1\n', """p.csv, line 2: ' "a' has spaces before its quotation mark, which then is no quote; leave these spaces out"""),
    ('quote after a space in the header', 'p.csv', C.replace(",s", ', "s').replace("2,", '2",')+D, """p.csv, line 1: ' "sentence2"' has spaces before its quotation mark, which then is no quote; leave these spaces out"""),
    ('a quotation inside a cell', 'p.csv', C+'a dog, a "cat",1\n', [('a dog', 'a " cat "', 1.0)]),
    ('a form feed', 'p.tsv', H+"a\fdog\ta cat\t1\n", GOOD),
    ('line separator U+2028', 'p.tsv', H+"a\u2028dog\ta cat\t1\n", GOOD),
    ('next line U+0085', 'p.tsv', H+"a\u0085dog\ta cat\t1\n", GOOD),
    ('no-break space', 'p.tsv', H+"a\u00a0dog\ta cat\t1\n", GOOD),
    ('vertical tab in name', 'p.tsv', "sentence1\x0b\tsentence2\tlabel\n"+R, "p.tsv has no column 'sentence1', only 'sentence1\\x0b', sentence2, label; did you mean 'sentence1\\x0b'?"),
    # fields of TSV
    ('too few', 'p.tsv', H+R+"a dog\ta cat\n", 'p.tsv, line 3 has 2 fields; the header has 3'),
    ('too many', 'p.tsv', H+R+"a dog\ta cat\t1\t2\n", 'p.tsv, line 3 has 4 fields; the header has 3'),
    ('trailing tab rows', 'p.tsv', H+"a dog\ta cat\t1\t\t\n", GOOD),
    ('trailing tab header and rows', 'p.tsv', H[:-1]+"\t\n"+R[:-1]+"\t\n", GOOD),
    ('trailing tab header only', 'p.tsv', H[:-1]+"\t\n"+R, GOOD),
    ('trailing empty rows', 'p.tsv', H+R+"\t\t\n\t\t\n", GOOD),
    ('empty row within', 'p.tsv', H+"\t\t\n"+R, 'p.tsv, line 2: sentence1 is empty'),
    ('leading empty name (index)', 'p.tsv', "\t"+H+"0\t"+R, GOOD),
    ('R row names', 'p.tsv', H+"1\t"+R, 'p.tsv, line 2 has 4 fields; the header has 3'),
    ('spaces for tabs', 'p.tsv', (H+R).replace("\t","    "), "p.tsv has no column 'sentence1', only sentence1    sentence2    label; say which with --left-column or --right-column (in Python left_column or right_column)"),
    ('commas in tsv', 'p.tsv', C+D, "p.tsv has no column 'sentence1', only sentence1,sentence2,label; if its fields are divided otherwise, say --format csv --separator ','"),
    ('header only', 'p.tsv', H, []),
    ('no header', 'p.tsv', R+R, "p.tsv has no column 'sentence1', only a dog, a cat, 1; say which with --left-column or --right-column (in Python left_column or right_column)"),
    ('empty', 'p.tsv', "", 'p.tsv is empty; expected a line of column names, and rows'),
    ('one name', 'p.tsv', "sentence1\na dog\n", "p.tsv has no column 'sentence2', only sentence1; did you mean 'sentence1'?"),
    ('duplicate unused', 'p.tsv', "sentence1\tsentence2\tlabel\tx\tx\na dog\ta cat\t1\t2\t3\n", GOOD),
    ('duplicate used', 'p.tsv', "sentence1\tsentence2\tsentence2\tlabel\na dog\ta cat\ta cow\t1\n", "p.tsv: two columns are named 'sentence2'; rename one of them"),
    ('all names empty', 'p.tsv', "\t\t\na dog\ta cat\t1\n", "p.tsv has no column 'sentence1', only '', .1, .2; say which with --left-column or --right-column (in Python left_column or right_column)"),
    ('case of names', 'p.tsv', "Sentence1\tSentence2\tLabel\n"+R, "p.tsv has no column 'sentence1', only Sentence1, Sentence2, Label; did you mean 'Sentence1'?"),
    ('space in names', 'p.tsv', " sentence1\tsentence2 \tlabel\n"+R, "p.tsv has no column 'sentence1', only ' sentence1', 'sentence2 ', label; did you mean ' sentence1'?"),
    ('quotes around everything, R', 'p.tsv', '"sentence1"\t"sentence2"\t"label"\n"a dog"\t"a cat"\t1\n', 'p.tsv, line 1: "sentence1" is quoted as in CSV; TSV has no quotes; say --format csv --separator tab (format="csv", separator="\\t" in Python) to read the quotes, or --format tsv to keep them'),
    ('quotes around one cell', 'p.tsv', H+'"a dog"\ta cat\t1\n', [('" a dog "', 'a cat', 1.0)]),
    ('one quote', 'p.tsv', H+'"a dog\ta cat\t1\n', [('" a dog', 'a cat', 1.0)]),
    ('pandas quote', 'p.tsv', H+'"a ""big"" dog"\ta cat\t1\n', 'p.tsv, line 2: "a ""big"" dog" is quoted as in CSV; TSV has no quotes; say --format csv --separator tab (format="csv", separator="\\t" in Python) to read the quotes, or --format tsv to keep them'),
    ('pandas tab in cell', 'p.tsv', H+'"a\tdog"\ta cat\t1\n', 'p.tsv, line 2 has 4 fields; the header has 3'),
    ('pandas line end in cell', 'p.tsv', H+'"a\ndog"\ta cat\t1\n', 'p.tsv, line 2 has 1 field; the header has 3'),
    ('empty quotes cell', 'p.tsv', H+'a dog\ta cat\t""\n', 'p.tsv, line 2: "" is quoted as in CSV; TSV has no quotes; say --format csv --separator tab (format="csv", separator="\\t" in Python) to read the quotes, or --format tsv to keep them'),
    ('backslash escapes', 'p.tsv', H+"a\\tdog\ta cat\t1\n", [('a \\ tdog', 'a cat', 1.0)]),
    ('comment line', 'p.tsv', "# made by x\n"+H+R, 'p.tsv, line 2 has 3 fields; the header has 1'),
    # CSV
    ('plain', 'p.csv', C+D, GOOD),
    ('CSV CRLF', 'p.csv', (C+D).replace("\n","\r\n"), GOOD),
    ('CSV CR', 'p.csv', (C+D).replace("\n","\r"), 'p.csv, line 1: lines end in carriage returns alone, as on old Macs; save the file with other line ends'),
    ('CSV CR in cell', 'p.csv', C+'"a\rdog",a cat,1\n', GOOD),
    ('CSV BOM', 'p.csv', "\ufeff"+C+D, GOOD),
    ('CSV BOM quoted header', 'p.csv', '\ufeff"sentence1","sentence2","label"\n'+D, GOOD),
    ('quoted comma', 'p.csv', C+'"a dog, a cow",a cat,1\n', [('a dog , a cow', 'a cat', 1.0)]),
    ('quoted line end', 'p.csv', C+'"a\ndog",a cat,1\n', GOOD),
    ('quoted quotes', 'p.csv', C+'"a ""big"" dog",a cat,1\n', [('a " big " dog', 'a cat', 1.0)]),
    ('quoted empty', 'p.csv', C+'"",a cat,1\n', 'p.csv, line 2: sentence1 is empty'),
    ('open quote', 'p.csv', C+'"a dog,a cat,1\n'+D, 'p.csv, line 2:…'),
    ('text after quote', 'p.csv', C+'"a dog" x,a cat,1\n', 'p.csv, line 2:…'),
    ('quote inside', 'p.csv', C+'a "big" dog,a cat,1\n', [('a " big " dog', 'a cat', 1.0)]),
    ('backslash quote', 'p.csv', C+'"a \\"big\\" dog",a cat,1\n', 'p.csv, line 2:…'),
    ('single quotes', 'p.csv', C+"'a, dog',a cat,1\n", 'p.csv, line 2 has 4 fields; the header has 3'),
    ('too few, csv', 'p.csv', C+"a dog,a cat\n", 'p.csv, line 2 has 2 fields; the header has 3'),
    ('too many, csv', 'p.csv', C+"a dog, a cow,a cat,1\n", 'p.csv, line 2 has 4 fields; the header has 3'),
    ('trailing commas', 'p.csv', C[:-1]+",,\n"+D[:-1]+",,\n,,,,\n", GOOD),
    ('trailing commas header only', 'p.csv', C[:-1]+",,\n"+D, GOOD),
    ('rows of commas at end', 'p.csv', C+D+",,\n,,\n", GOOD),
    ('row of commas within', 'p.csv', C+",,\n"+D, 'p.csv, line 2: sentence1 is empty'),
    ('semicolon', 'p.csv', (C+D).replace(",",";"), GOOD),
    ('semicolon, decimal comma', 'p.csv', "sentence1;sentence2;label\na dog;a cat;0,5\n", "p.csv, line 2: label is '0,5', which is no number; labels go from 0 to 1. Write the decimal point of a number as a point"),
    ('semicolon, quoted', 'p.csv', 'sentence1;sentence2;label\n"a; dog";a cat;1\n', [('a ; dog', 'a cat', 1.0)]),
    ('semicolon, comma in quoted name', 'p.csv', 'sentence1;sentence2;label;"x, y"\na dog;a cat;1;2\n', GOOD),
    ('sep line', 'p.csv', "sep=;\n"+(C+D).replace(",",";"), GOOD),
    ('sep line CRLF BOM', 'p.csv', "\ufeffsep=;\r\n"+(C+D).replace(",",";").replace("\n","\r\n"), GOOD),
    ('sep quoted', 'p.csv', '"sep=;"\n'+(C+D).replace(",",";"), GOOD),
    ('sep upper', 'p.csv', 'SEP=;\n'+(C+D).replace(",",";"), GOOD),
    ('sep tab', 'p.csv', "sep=\t\n"+H+R, GOOD),
    ('tabs in csv', 'p.csv', H+R, GOOD),
    ('pipes', 'p.csv', (C+D).replace(",","|"), GOOD),
    ('colons', 'p.csv', (C+D).replace(",",":"), "p.csv has no column 'sentence1', only sentence1:sentence2:label; say which with --left-column or --right-column (in Python left_column or right_column)"),
    ('spaces between', 'p.csv', (C+D).replace(","," "), "p.csv has no column 'sentence1', only sentence1 sentence2 label; say which with --left-column or --right-column (in Python left_column or right_column)"),
    ('csv header alone', 'p.csv', C, []),
    ('csv empty', 'p.csv', "", 'p.csv is empty; expected a line of column names, and rows'),
    ('csv blank', 'p.csv', "\n\n", 'p.csv is empty; expected a line of column names, and rows'),
    ('csv blank first', 'p.csv', "\n"+C+D, GOOD),
    ('long cell', 'p.csv', C+"dog "*50000+",a cat,1\n", [("dog " * 49999 + "dog", "a cat", 1.0)]),
    ('long quoted cell', 'p.csv', C+'"'+"dog "*50000+'",a cat,1\n', [("dog " * 49999 + "dog", "a cat", 1.0)]),
    ('index column', 'p.csv', ","+C+"0,"+D, GOOD),
    ('excel formula', 'p.csv', C+'="a dog",a cat,1\n', [('= " a dog "', 'a cat', 1.0)]),
    ('csv latin', 'p.csv', (C+"café x,a cat,1\n").encode("latin-1"), 'p.csv, line 2: byte 4 (0xe9) is not UTF-8; save the file as UTF-8'),
    ('csv UTF-16', 'p.csv', (C+D).encode("utf-16"), 'p.csv, line 1: byte 1 (0xff) is not UTF-8; it is UTF-16: save the file as UTF-8'),
    ('quoted name over lines', 'p.csv', 'sentence1,sentence2,label,"x\ny"\na dog,a cat,1,2\n', GOOD),
    # other kinds
    ('gz', 'p.tsv.gz', gzip.compress((H+R).encode(), mtime=0), GOOD),
    ('gz csv', 'p.csv.gz', gzip.compress((C+D).encode(), mtime=0), GOOD),
    ('gz jsonl', 'p.jsonl.gz', gzip.compress(J.encode(), mtime=0), GOOD),
    ('gz two members', 'p.tsv.gz', gzip.compress(H.encode(), mtime=0)+gzip.compress(R.encode(), mtime=0), GOOD),
    ('gz upper', 'p.TSV.GZ', gzip.compress((H+R).encode(), mtime=0), GOOD),
    ('gz named tsv', 'p.tsv', gzip.compress((H+R).encode(), mtime=0), GOOD),
    ('no gz', 'p.tsv.gz', H+R, 'p.tsv.gz: is no gzip file, or damaged:…'),
    ('gz cut', 'p.tsv.gz', gzip.compress((H+R*100).encode(), mtime=0)[:-8], 'p.tsv.gz: is no gzip file, or damaged:…'),
    ('gz with rubbish after', 'p.tsv.gz', gzip.compress((H+R).encode(), mtime=0)+b"rubbish", 'p.tsv.gz: is no gzip file, or damaged:…'),
    ('gz of UTF-16', 'p.tsv.gz', gzip.compress((H+R).encode("utf-16"), mtime=0), 'p.tsv.gz, line 1: byte 1 (0xff) is not UTF-8; it is UTF-16: save the file as UTF-8'),
    ('gz empty', 'p.tsv.gz', gzip.compress(b"", mtime=0), 'p.tsv.gz is empty; expected a line of column names, and rows'),
    ('bz2 named tsv', 'p.tsv', bz2.compress((H+R).encode()), 'p.tsv, line 1: byte 14 (0xed) is not UTF-8; the file is compressed: unpack it first'),
    ('bz2', 'p.tsv.bz2', bz2.compress((H+R).encode()), "p.tsv.bz2: the ending '.bz2' is not known, only .tsv, .csv, .jsonl, .ndjson, .parquet; say what it is with --format, or format= in Python"),
    ('xz named tsv', 'p.tsv', lzma.compress((H+R).encode()), 'p.tsv, line 1: byte 1 (0xfd) is not UTF-8; the file is compressed: unpack it first'),
    ('zst named tsv', 'p.tsv', b"\x28\xb5\x2f\xfd"+b"\x04\x00", 'p.tsv, line 1: byte 2 (0xb5) is not UTF-8; the file is compressed: unpack it first'),
    ('zip named csv', 'p.csv', zipped("p.csv",C+D), 'p.csv, line 1: byte 16 (0x99) is not UTF-8; it is a zip archive (such as .zip, .npz of NumPy or .xlsx of Excel), compressed or not: unpack it, or save the data as text'),
    ('xlsx', 'p.xlsx', zipped("xl/workbook.xml","x"), 'p.xlsx: is a workbook; save its sheet as CSV'),
    ('xlsx named csv', 'p.csv', zipped("xl/workbook.xml","x"), 'p.csv, line 1: byte 15 (0x83) is not UTF-8; it is a zip archive (such as .zip, .npz of NumPy or .xlsx of Excel), compressed or not: unpack it, or save the data as text'),
    ('xls named csv', 'p.csv', b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"+bytes(100), 'p.csv, line 1: byte 1 (0xd0) is not UTF-8; it is a file of an old Excel or Word: save its sheet as CSV'),
    ('pdf named tsv', 'p.tsv', b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", 'p.tsv, line 1: is no text; it is a PDF: save the data as text'),
    ('parquet named tsv', 'p.tsv', b"PAR1\x15\x04\x15\x10\x15\x14L\x15", 'p.tsv, line 1: is no text; the file is Parquet'),
    ('pickle named tsv', 'p.tsv', b"\x80\x04\x95\x10\x00", "p.tsv, line 1: byte 1 (0x80) is not UTF-8; it is a pickle, such as gensim's .kv or .model: save it with save_word2vec_format"),
    ('npy named tsv', 'p.tsv', b"\x93NUMPY\x01\x00v\x00", 'p.tsv, line 1: byte 1 (0x93) is not UTF-8; it is an array of NumPy, which has no words: save words and vectors as text'),
    ('html', 'p.csv', "<!DOCTYPE html>\n<html>\n", "p.csv has no column 'sentence1', only <!DOCTYPE html>; say which with --left-column or --right-column (in Python left_column or right_column)"),
    ('sqlite', 'p.csv', b"SQLite format 3\x00\x10\x00", 'p.csv, line 1: is no text; it is a database of SQLite: save the data as text'),
    ('txt', 'p.txt', H+R, "p.txt: the ending '.txt' is not known, only .tsv, .csv, .jsonl, .ndjson, .parquet; say what it is with --format, or format= in Python"),
    ('no ending', 'pairs', H+R, "pairs: the ending '' is not known, only .tsv, .csv, .jsonl, .ndjson, .parquet; say what it is with --format, or format= in Python"),
    ('json ending', 'p.json', J, "p.json: the ending '.json' is not known, only .tsv, .csv, .jsonl, .ndjson, .parquet; say what it is with --format, or format= in Python"),
    ('ndjson', 'p.ndjson', J, GOOD),
    ('feather', 'p.arrow', b"ARROW1", "p.arrow: the ending '.arrow' is not known, only .tsv, .csv, .jsonl, .ndjson, .parquet; say what it is with --format, or format= in Python"),
    ('dot only', 'p.', H+R, "p.: the ending '' is not known, only .tsv, .csv, .jsonl, .ndjson, .parquet; say what it is with --format, or format= in Python"),
    # JSON lines
    ('jsonl', 'p.jsonl', J, GOOD),
    ('jsonl CRLF', 'p.jsonl', J.replace("\n","\r\n"), GOOD),
    ('jsonl BOM', 'p.jsonl', "\ufeff"+J, GOOD),
    ('jsonl blank lines', 'p.jsonl', "\n \n"+J+"\n", GOOD),
    ('jsonl no end', 'p.jsonl', J[:-1], GOOD),
    ('jsonl list of words', 'p.jsonl', '{"sentence1": ["a", "big dog"], "sentence2": ["a", "cat"], "label": 1}\n', [('a big dog', 'a cat', 1.0)]),
    ('jsonl null', 'p.jsonl', '{"sentence1": null, "sentence2": "a cat", "label": 1}\n', 'p.jsonl, line 1: sentence1 is empty'),
    ('jsonl missing key', 'p.jsonl', '{"sentence1": "a dog", "label": 1}\n', "p.jsonl has no column 'sentence2', only sentence1, label; did you mean 'sentence1'?"),
    ('jsonl missing in second', 'p.jsonl', J+'{"sentence1": "a dog", "label": 1}\n', 'p.jsonl, line 2: sentence2 is empty'),
    ('jsonl number cell', 'p.jsonl', '{"sentence1": 3, "sentence2": "a cat", "label": 1}\n', 'p.jsonl, line 1: sentence1 is 3; expected a string or a list of strings'),
    ('jsonl bool', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": true}\n', GOOD),
    ('jsonl string label', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": "1"}\n', GOOD),
    ('jsonl null label', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": null}\n', 'p.jsonl, line 1: label is None, a missing label: leave such rows out (--skip-bad does, of fit and evaluate)'),
    ('jsonl list label', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": [1]}\n', 'p.jsonl, line 1: label is [1], which is no number; labels go from 0 to 1'),
    ('jsonl NaN label', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": NaN}\n', 'p.jsonl, line 1: label is nan; the label range is 0 to 1. If it marks a missing label, leave such rows out (--skip-bad does, of fit and evaluate)'),
    ('jsonl 1e400', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": 1e400}\n', 'p.jsonl, line 1: label is inf; the label range is 0 to 1. Labels are finite numbers'),
    ('jsonl -Infinity', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": -Infinity}\n', 'p.jsonl, line 1: label is -inf; the label range is 0 to 1. Labels are finite numbers'),
    ('jsonl huge int', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": 1'+"0"*400+'}\n', 'p.jsonl, line 1: label is 100000000000000000000000000000000000000000000000000000000000…, which is no number; labels go from 0 to 1'),
    ('jsonl 5000 digits', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": 1'+"0"*5000+'}\n', 'p.jsonl, line 1: JSON that cannot be read (Exc…'),
    ('jsonl deep', 'p.jsonl', "["*100000+"\n", 'p.jsonl, line 1: JSON that cannot be read (max…'),
    ('jsonl array', 'p.jsonl', "["+J[:-1]+"]\n", 'p.jsonl, line 1: expected a JSON object, not [{"sentence1": "a dog", "sentence2": "a'),
    ('jsonl array over lines', 'p.jsonl', "[\n"+J+"]\n", 'p.jsonl, line 1: no JSON…'),
    ('jsonl pretty', 'p.jsonl', json.dumps(json.loads(J),indent=1), 'p.jsonl, line 1: no JSON…'),
    ('jsonl two on a line', 'p.jsonl', J[:-1]+J, 'p.jsonl, line 1: no JSON…'),
    ('jsonl comma at end', 'p.jsonl', J[:-1]+",\n", 'p.jsonl, line 1: no JSON…'),
    ('jsonl single quotes', 'p.jsonl', "{'sentence1': 'a dog'}\n", 'p.jsonl, line 1: no JSON…'),
    ('jsonl string', 'p.jsonl', '"a dog"\n', 'p.jsonl, line 1: expected a JSON object, not "a dog"'),
    ('jsonl cut', 'p.jsonl', J+J[:20], 'p.jsonl, line 2: no JSON…'),
    ('jsonl twice a key', 'p.jsonl', '{"sentence1": "a dog", "sentence1": "a cow", "sentence2": "a cat", "label": 1}\n', "p.jsonl, line 1: JSON that cannot be read (an object has the key 'sentence1' twice)"),
    ('jsonl nested twice', 'p.jsonl', '{"sentence1": "a dog", "sentence2": "a cat", "label": 1, "x": {"a": 1, "a": 2}}\n', "p.jsonl, line 1: JSON that cannot be read (an object has the key 'a' twice)"),
    ('jsonl half character', 'p.jsonl', '{"sentence1": "a \\ud800", "sentence2": "a cat", "label": 1}\n', "p.jsonl, line 1: sentence1 has '\\ud800', half a character"),
    ('jsonl emoji escape', 'p.jsonl', '{"sentence1": "a \\ud83d\\ude00", "sentence2": "a cat", "label": 1}\n', [('a 😀', 'a cat', 1.0)]),
    ('jsonl control character', 'p.jsonl', '{"sentence1": "a\tdog", "sentence2": "a cat", "label": 1}\n', 'p.jsonl, line 1: no JSON…'),
    ('jsonl empty', 'p.jsonl', "", 'p.jsonl is empty; expected a JSON object on each line'),
    ('jsonl empty object', 'p.jsonl', "{}\n", "p.jsonl has no column 'sentence1', only ; say which with --left-column or --right-column (in Python left_column or right_column)"),
    ('jsonl latin', 'p.jsonl', '{"sentence1": "café x"}\n'.encode("latin-1"), 'p.jsonl, line 1: byte 19 (0xe9) is not UTF-8; save the file as UTF-8'),
    ('jsonl word list of empty', 'p.jsonl', '{"sentence1": ["", "dog"], "sentence2": "a cat", "label": 1}\n', [(' dog', 'a cat', 1.0)]),
    ('jsonl nested list', 'p.jsonl', '{"sentence1": [["a"], "dog"], "sentence2": "a cat", "label": 1}\n', "p.jsonl, line 1: sentence1 is [['a'], 'dog']; expected a string or a list of strings"),
    ('jsonl tsv', 'p.jsonl', H+R, 'p.jsonl, line 1: no JSON…'),
    # labels
    ('label 0', 'p.tsv', H + "a dog\ta cat\t0\n", [('a dog', 'a cat', 0.0)]),
    ('label 1.0', 'p.tsv', H + "a dog\ta cat\t1.0\n", GOOD),
    ('label  1 ', 'p.tsv', H + "a dog\ta cat\t 1 \n", GOOD),
    ('label +1', 'p.tsv', H + "a dog\ta cat\t+1\n", GOOD),
    ('label 1e0', 'p.tsv', H + "a dog\ta cat\t1e0\n", GOOD),
    ('label .5', 'p.tsv', H + "a dog\ta cat\t.5\n", [('a dog', 'a cat', 0.5)]),
    ('label 5e-1', 'p.tsv', H + "a dog\ta cat\t5e-1\n", [('a dog', 'a cat', 0.5)]),
    ('label 1.', 'p.tsv', H + "a dog\ta cat\t1.\n", GOOD),
    ('label -0', 'p.tsv', H + "a dog\ta cat\t-0\n", [('a dog', 'a cat', -0.0)]),
    ('label 01', 'p.tsv', H + "a dog\ta cat\t01\n", GOOD),
    ('label -1', 'p.tsv', H + "a dog\ta cat\t-1\n", 'p.tsv, line 2: label is -1; the label range is 0 to 1. -1 usually marks a missing label (1 row has it): leave such rows out; if it is a degree, say --label-range -1 1, or label_range=(-1, 1) in Python'),
    ('label 2', 'p.tsv', H + "a dog\ta cat\t2\n", 'p.tsv, line 2: label is 2; the label range is 0 to 1. Say what its labels mean with --label-range LOW HIGH, or label_range=(LOW, HIGH) in Python'),
    ('label 0.5.1', 'p.tsv', H + "a dog\ta cat\t0.5.1\n", "p.tsv, line 2: label is '0.5.1', which is no number; labels go from 0 to 1"),
    ('label 0,5', 'p.tsv', H + "a dog\ta cat\t0,5\n", "p.tsv, line 2: label is '0,5', which is no number; labels go from 0 to 1. Write the decimal point of a number as a point"),
    ('label ', 'p.tsv', H + "a dog\ta cat\t\n", "p.tsv, line 2: label is '', a missing label: leave such rows out (--skip-bad does, of fit and evaluate)"),
    ('label NA', 'p.tsv', H + "a dog\ta cat\tNA\n", "p.tsv, line 2: label is 'NA', which is no number; labels go from 0 to 1. If it marks a missing label, leave such rows out (--skip-bad does, of fit and evaluate)"),
    ('label nan', 'p.tsv', H + "a dog\ta cat\tnan\n", 'p.tsv, line 2: label is nan; the label range is 0 to 1. If it marks a missing label, leave such rows out (--skip-bad does, of fit and evaluate)'),
    ('label NaN', 'p.tsv', H + "a dog\ta cat\tNaN\n", 'p.tsv, line 2: label is nan; the label range is 0 to 1. If it marks a missing label, leave such rows out (--skip-bad does, of fit and evaluate)'),
    ('label inf', 'p.tsv', H + "a dog\ta cat\tinf\n", 'p.tsv, line 2: label is inf; the label range is 0 to 1. Labels are finite numbers'),
    ('label 1e400', 'p.tsv', H + "a dog\ta cat\t1e400\n", 'p.tsv, line 2: label is inf; the label range is 0 to 1. Labels are finite numbers'),
    ('label yes', 'p.tsv', H + "a dog\ta cat\tyes\n", "p.tsv, line 2: label is 'yes', which is no number; labels go from 0 to 1"),
    ('label true', 'p.tsv', H + "a dog\ta cat\ttrue\n", "p.tsv, line 2: label is 'true', which is no number; labels go from 0 to 1"),
    ('label 1_0', 'p.tsv', H + "a dog\ta cat\t1_0\n", "p.tsv, line 2: label is '1_0', which is no number; labels go from 0 to 1"),
    ('label 1_', 'p.tsv', H + "a dog\ta cat\t1_\n", "p.tsv, line 2: label is '1_', which is no number; labels go from 0 to 1"),
    ('label 0x1', 'p.tsv', H + "a dog\ta cat\t0x1\n", "p.tsv, line 2: label is '0x1', which is no number; labels go from 0 to 1"),
    ('label 1/2', 'p.tsv', H + "a dog\ta cat\t1/2\n", "p.tsv, line 2: label is '1/2', which is no number; labels go from 0 to 1"),
    ('label 50%', 'p.tsv', H + "a dog\ta cat\t50%\n", "p.tsv, line 2: label is '50%', which is no number; labels go from 0 to 1"),
    ('label １', 'p.tsv', H + "a dog\ta cat\t１\n", GOOD),
    ('label ०', 'p.tsv', H + "a dog\ta cat\t०\n", [('a dog', 'a cat', 0.0)]),
    ('label 1 0', 'p.tsv', H + "a dog\ta cat\t1 0\n", "p.tsv, line 2: label is '1 0', which is no number; labels go from 0 to 1"),
    ('label --', 'p.tsv', H + "a dog\ta cat\t--\n", "p.tsv, line 2: label is '--', which is no number; labels go from 0 to 1"),
    ('label N/A', 'p.tsv', H + "a dog\ta cat\tN/A\n", "p.tsv, line 2: label is 'N/A', which is no number; labels go from 0 to 1. If it marks a missing label, leave such rows out (--skip-bad does, of fit and evaluate)"),
    ('labels -1 among classes', 'p.tsv', H+R+"a dog\ta cat\t-1\n"+"a dog\ta cat\t0\n", 'p.tsv, line 3: label is -1; the label range is 0 to 1. -1 usually marks a missing label (1 row has it): leave such rows out (--skip-bad does, of fit and evaluate); if it is a degree, say --label-range -1 1, or label_range=(-1, 1) in Python'),
    ('labels 0 1 2', 'p.tsv', H+R+"a dog\ta cat\t2\n"+"a dog\ta cat\t0\n", 'p.tsv, line 3: label is 2; the label range is 0 to 1. If its labels are meant to go from 0 to 2, say --label-range 0 2, or label_range=(0, 2) in Python; if they are numbers of classes, --preset entailment, or classes=True'),
    ('labels 1 to 5', 'p.tsv', H+"a dog\ta cat\t5\n"+"a dog\ta cat\t1\n", 'p.tsv, line 2: label is 5; the label range is 0 to 1. If its labels are meant to go from 1 to 5, say --label-range 1 5, or label_range=(1, 5) in Python'),
    ('labels -1 and 1', 'p.tsv', H+R+"a dog\ta cat\t-1\n", 'p.tsv, line 3: label is -1; the label range is 0 to 1. -1 usually marks a missing label (1 row has it): leave such rows out; if it is a degree, say --label-range -1 1, or label_range=(-1, 1) in Python'),
    # sentences
    ('no sentence', 'p.tsv', H+"\ta cat\t1\n", 'p.tsv, line 2: sentence1 is empty'),
    ('spaces alone', 'p.tsv', H+"   \ta cat\t1\n", 'p.tsv, line 2: sentence1 is empty'),
    ('zero-width only', 'p.tsv', H+"\u200b\u200d\ta cat\t1\n", 'p.tsv, line 2: sentence1 is empty'),
    ('no-break only', 'p.tsv', H+"\u00a0\ta cat\t1\n", 'p.tsv, line 2: sentence1 is empty'),
    ('BOM in a cell', 'p.tsv', H+"\ufeffa dog\ta cat\t1\n", GOOD),
    ('soft hyphen', 'p.tsv', H+"a co\u00adoperate\ta cat\t1\n", [('a cooperate', 'a cat', 1.0)]),
    ('RTL mark', 'p.tsv', H+"\u200fa dog\u200e\ta cat\t1\n", GOOD),
    ('ideographic space', 'p.tsv', H+"a\u3000dog\ta cat\t1\n", GOOD),
    ('full-width', 'p.tsv', H+"ａ ｄｏｇ\ta cat\t1\n", [('ａ ｄｏｇ', 'a cat', 1.0)]),
    ('HTML entity', 'p.tsv', H+"a &amp; b\ta cat\t1\n", [('a & amp ; b', 'a cat', 1.0)]),
    ('null word', 'p.tsv', H+"null\tNA nan\t1\n", [('null', 'NA nan', 1.0)]),
]
# fmt: on


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.mark.parametrize(("name", "content", "expected"), [pytest.param(*case, id=id) for id, *case in CASES])
def test_file(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | bytes, expected: object) -> None:
    monkeypatch.chdir(folder)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        pairs = SentencePairs.load(name)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        if isinstance(expected, str) and expected.endswith("…"):
            assert message.startswith(expected[:-1])
        else:
            assert message == expected
        return
    assert pairs.labels is not None
    rows = zip(pairs.left, pairs.right, pairs.labels.tolist(), strict=True)
    assert [(" ".join(left), " ".join(right), label) for left, right, label in rows] == expected


def test_the_table_is_as_long_as_it_claims() -> None:
    assert len({id for id, *_ in CASES}) == len(CASES) >= 200
