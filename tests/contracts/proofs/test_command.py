"""`towers verify`, on modules that nobody here wrote: torch's own, and blocks in the style of public code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from towers.cli import main

THEIRS = """
from torch import nn


def encoder():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def seq2seq():
    return nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)


def time_first():
    return nn.GRU(8, 6)


class Residual(nn.Module):  # as in ResNets
    def __init__(self, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(2, width), nn.ReLU(),
                                  nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x):
        return x + self.body(x)


class Attention(nn.Module):  # as in small GPTs
    def __init__(self, width=16, heads=4):
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x):
        batch, time, width = x.shape
        q, k, v = self.qkv(x).view(batch, time, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, width))


class Classifier(nn.Module):  # as in many a tutorial: ids, a padding mask, an embedding, an LSTM
    def __init__(self, words=50, width=8, hidden=6):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(words, width, padding_idx=0), nn.LSTM(width, hidden, batch_first=True)

    def forward(self, ids, mask=None):
        x = self.embedding(ids)
        return self.lstm(x if mask is None else x.masked_fill(~mask[..., None], 0.0))[0]


LINEAR = nn.Linear(8, 6)
EMBEDDING = nn.Embedding(10, 3)
NUMBER = 5


def needs(size):
    return nn.Linear(size, size)


def none():
    return None
"""

CASES = [
    ("encoder", "batch time 16 -> batch time 16", 0),
    ("seq2seq", "batch time 8 -> batch time 12, (4 batch 6, 4 batch 6)", 0),
    ("seq2seq", "batch time 8 -> batch time 6, (4 batch 6, 4 batch 6)", 1),
    ("time_first", "batch time 8 -> batch time 6, 1 batch 6", 1),
    ("Residual", "batch 8 height width -> batch 8 height width", 0),
    ("Attention", "batch time 16 -> batch time 16", 0),
    ("LINEAR", "... 8 -> ... 6", 0),
    ("EMBEDDING", "Int batch words -> batch words 3", 0),
    ("EMBEDDING", "Int32 ... -> Float32 ... 3", 0),
    ("EMBEDDING", "Int batch words -> Float64 batch words 3", 1),
    ("EMBEDDING", "batch words -> batch words 3", 1),
    ("Classifier", "Int batch words, Bool batch words -> Float batch words 6", 0),
    ("Classifier", "Int batch words, Bool words batch -> batch words 6", 1),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "their_modules.py").write_text(THEIRS, "utf8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_modules", raising=False)
    return tmp_path


@pytest.mark.parametrize(("name", "text", "code"), CASES)
def test_modules_of_others(name: str, text: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", f"their_modules:{name}", "--contract", text]) == code
    printed = capsys.readouterr().out
    assert ("proven\n" in printed.split(":", 1)[1][:9]) == (code == 0)
    assert max(map(len, printed.splitlines())) <= 100


def test_ours_and_a_condition(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", "towers:Tower", "--where", "words <= 40"]) == 0
    assert "words >= 2 and words <= 40" in capsys.readouterr().out


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", "their_modules:LINEAR", "--contract", "batch 8 -> batch 5", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "failed"
    assert "expected 5" in data["message"]


def test_the_shapes_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", "their_modules:LINEAR", "--contract", "batch 8 -> batch 6", "--trace"]) == 0
    assert "(itself): Linear  (batch, 8) -> (batch, 6)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["their_modules"], "'their_modules' must read PACKAGE.MODULE:NAME"),
        (["no_such_package:X"], "no_such_package cannot be imported: no package no_such_package is found"),
        (["their_module:LINEAR"], "no package their_module is found; perhaps their_modules is meant"),
        (["their_modules:Resi"], "their_modules has no Resi; perhaps Residual is meant"),
        (["their_modules:Residual.forward"], "is a method; perhaps their_modules:Residual is meant"),
        (["their_modules:nothing"], "their_modules has no nothing"),
        (["their_modules:NUMBER"], "their_modules:NUMBER is an int; expected an nn.Module or what makes one"),
        (["their_modules:needs"], "their_modules:needs cannot be called without arguments"),
        (["their_modules:none"], r"their_modules:none() is a NoneType; expected an nn.Module"),
        (["their_modules:LINEAR"], "Linear.forward has no contract"),
        (["their_modules:LINEAR", "--contract", "batch 8"], "'batch 8' is no contract"),
        (["their_modules:LINEAR", "--contract", "batch 8 -> batch 6", "--where", "x"], "'x' is no condition"),
    ],
)
def test_what_cannot_be_tried_is_told_in_a_line(
    arguments: list[str], text: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["verify", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("towers verify: ")
    assert text in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("import sys\nsys.exit(0)", "N", "bad_module cannot be imported: SystemExit: 0 (bad_module.py:2)"),
        ("x = (", "N", "bad_module cannot be imported: SyntaxError: '(' was never closed (bad_module.py:1)"),
        ("1 / 0", "N", "bad_module cannot be imported: ZeroDivisionError: division by zero (bad_module.py:1)"),
        ("def N():\n  raise KeyError('k')", "N", "bad_module:N() raised KeyError: 'k' (bad_module.py:2)"),
        ("def N():\n  raise SystemExit", "N", "bad_module:N() raised SystemExit:  (bad_module.py:2)"),
    ],
)
def test_a_module_that_raises_or_ends_is_told_in_a_line(
    text: str, name: str, told: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (folder / "bad_module.py").write_text(text, "utf8")
    monkeypatch.delitem(sys.modules, "bad_module", raising=False)
    assert main(["verify", f"bad_module:{name}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"towers verify: {told}\n"


def test_what_a_module_prints_is_no_part_of_the_answer(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "loud_module.py").write_text("from torch import nn\nprint('hello')\nN = nn.Linear(8, 6)", "utf8")
    assert main(["verify", "loud_module:N", "--contract", "batch 8 -> batch 6", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verdict"] == "proven"
    assert captured.err == "hello\n"


def test_help_imports_no_torch(folder: Path):
    code = "import sys\nfrom towers.cli import main\ntry:\n    main(['verify', '--help'])\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"
    assert "Exit code 0: proven" in run.stdout


def test_a_time_limit(folder: Path, capsys: pytest.CaptureFixture[str]):
    """A limit that is too short for a proof ends it, and says so."""
    contract = ["--contract", "batch 8 -> batch 5"]
    assert main(["verify", "their_modules:LINEAR", *contract, "--seconds", "0.001"]) == 1
    assert "the time limit was reached" in capsys.readouterr().out
    for wrong in ("0", "-1", "soon", "nan"):
        with pytest.raises(SystemExit):
            main(["verify", "their_modules:LINEAR", *contract, "--seconds", wrong])
        assert "must be a number of seconds, more than 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("blocks.py:3", "blocks:Block"),
        ("blocks.py:9:4", "blocks:Other"),
        ("blocks.py", "blocks:Block or blocks:Other"),
        ("blocks", "blocks:Block or blocks:Other"),
        ("blocks:", "blocks:Block or blocks:Other"),
        ("./blocks.py:Block", "blocks:Block"),
        ("{here}/blocks.py:Blok", "blocks:Block"),
        ("blocks.py:Block:forward", "blocks:Block"),
        ("blocks/Other", "blocks:Block or blocks:Other"),
        ("blocks.Block", "blocks:Block"),
        ("blocks::Block", "blocks:Block"),
        ("blocks:Block()", "blocks:Block"),
        ("below/makers.py:3", "below.makers:made"),
        ("nowhere.py:3", None),
        ("Block", None),
        (":Block", None),
        ("C:/blocks.py:Block", None),
    ],
)
def test_what_names_no_module_gets_a_name_that_was_meant(text, meant, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    raises = "raise SystemError('the file is read, and not run')\n"
    (tmp_path / "blocks.py").write_text(f"{raises}class Block:\n    x = 1\n\n\n\n\nclass Other:\n    y = 2\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "makers.py").write_text(f"{raises}def made():\n    return 3\n")
    text = text.format(here=tmp_path)
    assert main(["verify", text]) == 2
    told = capsys.readouterr().err.strip()
    assert (
        told == f"towers verify: {text!r} must read PACKAGE.MODULE:NAME{f'; perhaps {meant} is meant' if meant else ''}"
    )


def test_a_part_of_a_module_may_be_a_number(tmp_path, monkeypatch, capsys):
    (tmp_path / "parts.py").write_text(
        "from torch import nn\nclass Made(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 3)\n"
        "    @classmethod\n    def made(cls): return cls()\nALL = nn.Sequential(Made(), nn.ReLU())\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("parts:ALL.0", "parts:Made.made"):
        assert main(["verify", name, "--contract", "batch 2 -> batch 3"]) == 0
