"""What the command says of itself is what it does."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from towers.cli import main
from towers.cli.parser import COMMANDS, HELP

from ..helpers import shown
from ..helpers.forked import Forks

TEXTS = {"towers": HELP} | {name: command.HELP for name, (command, _) in COMMANDS.items()}


def shell(line: str, folder: Path, forks: Forks, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a line in a shell in which `towers` is a fork."""
    path = f"{Path(forks.command).parent}{os.pathsep}{os.environ['PATH']}"
    return forks.run(["bash", "-c", line], cwd=folder, env=os.environ | {"PATH": path} | more)


@pytest.mark.long
def test_examples_print_what_is_shown(tmp_path: Path, forks: Forks):
    """All in one folder and in order: the model that the first one trains is what a later one predicts with."""
    for name, text in TEXTS.items():
        examples = shown.examples(text)
        assert examples, name
        for example in examples:
            run = shell(example.command, tmp_path, forks)
            assert run.returncode == 0, f"{example.command}\n{run.stderr}"
            assert shown.same(example.output, run.stdout.splitlines()), f"{example.command}\n{run.stdout}"


@pytest.mark.parametrize(
    ("line", "other", "same"),
    [
        ("loss 0.6936  1.6 s", "loss 0.6941  13.2 s", True),
        ("loss 0.6936", "loss 0.7936", False),
        ("19,232 weights", "19,233 weights", False),
        ("words 5", "words 6", False),
        ("kept epoch", "kept  epoch", True),
        ("kept epoch", "epoch", False),
    ],
)
def test_the_comparison_can_fail(line: str, other: str, same: bool):
    assert shown.same([line], [other]) == same


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_begins_with_a_real_command(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert f"  $ towers {command}".rstrip() in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", shell])
    out = capsys.readouterr().out
    assert end.value.code == 0
    for word in ("predict", "explain", "keep-best"):
        assert word in out


def test_bash_completes_options_and_subcommands(tmp_path: Path, forks: Forks):
    complete = "source <(towers --print-completion bash); "
    tried = 'COMP_WORDS=(towers {}); COMP_CWORD={}; _shtab_towers; echo "${{COMPREPLY[@]}}"'
    run = shell(complete + tried.format("ex", 1), tmp_path, forks)
    assert run.stdout.split() == ["export", "explain"], run.stderr
    run = shell(complete + tried.format("fit --keep-b", 2), tmp_path, forks)
    assert run.stdout.split() == ["--keep-best"], run.stderr


def test_completion_without_shtab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", "bash"])
    assert end.value.code == 2
    assert capsys.readouterr().err == 'towers: shtab is not installed: pip install "towers[train]"\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "towers: the following arguments are required: COMMAND"),
        ("fit --epochs x", "towers fit: argument --epochs: 'x' is no whole number"),
        ("similar --query a", "towers similar: the following arguments are required: --in"),
        (
            "export --mdoel a --out b",
            "towers export: unrecognized arguments: --mdoel; did you mean --model? (towers ex",
        ),
        ("export --model=a --zzz=1", "towers export: the following arguments are required: --out (towers export"),
        ("fit --epoch 3", "towers fit: unrecognized arguments: --epoch 3; did you mean --epochs? (towers fit --help"),
        (
            "predict --model=a --pairs=b --out=c --zzz=1",
            "towers predict: unrecognized arguments: --zzz=1 (towers",
        ),
        ("explain here", "towers explain: unrecognized arguments: here (towers explain --help tells more)"),
    ],
)
def test_a_wrong_option_is_one_line(line: str, said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main(shlex.split(line))
    out, err = capsys.readouterr()
    assert (end.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(said)


def test_no_escape_codes_without_a_terminal(tmp_path: Path, forks: Forks):
    line = "towers verify towers:Tower; towers --help; towers fit --epochs x || true"
    run = shell(line, tmp_path, forks, TERM="xterm-256color")
    assert "proven" in run.stdout
    assert "\x1b" not in run.stdout + run.stderr
