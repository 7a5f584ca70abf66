"""Training by two processes on the CPU, begun by Lightning, by torchrun, and as SLURM begins them."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from towers import training
from towers.cli import main
from towers.training.loop import Batches
from towers.training.options import Settings
from towers.training.processes import is_main

from ..helpers.forked import Forks
from ..helpers.killed import BEGIN, write_files
from ..helpers.small import RESULTS, names, small_model, some_pairs

SCRIPT = str(Path(__file__).parents[1] / "helpers/processes.py")
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "MASTER"))}
TWO = [*BEGIN, "--batch-size", "8", "--save-every", "30"]


def run(*command, **environment):
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=PLAIN | environment)
    return ended.returncode, ended.stdout, ended.stderr


def rows(folder):
    return [(row["train"], row["dev"]) for row in json.loads((folder / "metrics.json").read_text())["epochs"]]


def test_two_processes_learn_what_one_does(tmp_path, monkeypatch, forks: Forks):
    """The command itself: the last of each epoch's batches has fewer pairs than the others."""
    monkeypatch.chdir(tmp_path)
    write_files()
    assert main([*TWO, "--out", "one"]) == 0
    code, out, err = run(forks.python, "-W", "error", "-m", "towers.cli", *TWO, "--devices", "2")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["pairs:", "vectors:", "network:", *["epoch"] * 6, "kept", "test,", "saved"]  # fmt: skip
    assert sorted(names(tmp_path)) == sorted(["one", "towers-run", "train.tsv", "dev.tsv", "vectors.txt"])
    assert names(tmp_path / "towers-run") == [*RESULTS, "resume-2.safetensors", "resume.json", "vectors.safetensors"]
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "towers-run"), strict=True):
        for alone, shared in zip(one, two, strict=True):
            assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-4)
            assert shared["accuracy"] == alone["accuracy"]
    for name, weight in load_file(tmp_path / "one" / "model.safetensors").items():
        torch.testing.assert_close(
            load_file(tmp_path / "towers-run/model.safetensors")[name], weight, rtol=0, atol=1e-3
        )


def test_torchrun_is_ended_and_slurm_goes_on_bit_for_bit(tmp_path, forks: Forks):
    """With dropout: each process draws numbers of its own, and has them back."""
    options = ["epochs=3", "batch_size=8", "lr=0.02", "devices=2", "forgetful=True", "save_every=1000"]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    code, told, err = run(forks.python, "-W", "error", SCRIPT, *options, f"out={str(whole)!r}")
    assert (code, err) == (0, "")
    # --standalone takes a free port
    torchrun = [forks.python, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    code, begun, err = run(*torchrun, SCRIPT, *options, f"out={str(parted)!r}", "end_in=2", OMP_NUM_THREADS="1")
    assert code == 1
    assert "exitcode  : 143" in err, err
    assert names(parted) == ["resume-2.safetensors", "resume.json"]
    code, rest, err = as_slurm_runs(forks.python, "forgetful=True", f"resume={str(parted)!r}")
    assert (code, err) == (0, "")
    assert begun + rest == told
    assert begun.count("\n") == 2
    expected = load_file(whole / "model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in load_file(parted / "model.safetensors").items())


def as_slurm_runs(python, *arguments):
    """Two tasks of a step with what srun sets for them; the outputs of the first."""
    step = {"SLURM_JOB_ID": "14671", "SLURM_JOB_NAME": "towers", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    step |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}
    with socket.socket() as free:  # else the job's number says the port, the same for all who run this test
        free.bind(("127.0.0.1", 0))
        step |= {"MASTER_PORT": str(free.getsockname()[1])}
    tasks = [
        subprocess.Popen(
            [python, SCRIPT, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=PLAIN | step | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)},
        )
        for number in range(2)
    ]
    told = [task.communicate(timeout=300) for task in tasks]
    assert tasks[1].returncode == 0, told[1]
    return tasks[0].returncode, *told[0]


# The shares of a batch, without processes.


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_shares_make_the_batches_of_one_process(processes):
    whole, parts = Batches(some_pairs(23), 6, seed=1), [Batches(some_pairs(23), 6, seed=1) for _ in range(processes)]
    for rank, part in enumerate(parts):
        part.rank, part.processes = rank, processes
    for share, *shares in zip(whole, *parts, strict=True):
        counted = [part.batch.index[: part.pairs] for part in shares]
        assert sorted(torch.cat(counted).tolist()) == sorted(share.batch.index.tolist())
        assert {part.whole for part in shares} == {share.pairs}
        assert all(len(part.batch.index) >= 1 for part in shares), "each process has a step"
        words = [part.batch.left.lengths.sum().item() for part in shares if part.pairs == shares[0].pairs]
        assert max(words) - min(words) <= 6, "of sentences of like length"


def test_the_environment_says_which_process_is_the_first(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        assert is_main(alone=False)
        monkeypatch.setenv(name, "1")
        assert not is_main(alone=False)
        assert is_main(alone=True)
        monkeypatch.setenv(name, "0")


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, r"devices \(0\) must be an int of at least 1"),
        ({"devices": "some"}, r"devices \('some'\) must be a number, 'auto', or numbers such as '0,2'"),
        ({"devices": "0,1", "device": "cpu"}, r"devices \('0,1'\) lists CUDA devices; on the CPU say how many"),
        ({"nodes": 0}, r"nodes \(0\) must be an int of at least 1"),
        ({"devices": 2, "device": "cpu:0"}, r"device \(cpu:0\) is one device; with devices \(2\) say device c"),
        ({"devices": 2, "batch_size": 1}, r"batch_size \(1\) is less than the 2 processes that share each batch"),
        ({"strategy": "clever"}, r"devices \(1\), nodes \(1\), strategy \('clever'\): You selected an invalid"),
        ({"strategy": "ddp_spawn", "devices": 2}, r"strategy \('ddp_spawn'\) does not keep whole weights in .*; say ddp"),
        ({"strategy": "ddp_fork", "devices": 2}, r"strategy \('ddp_fork'\) does not keep whole weights"),
        ({"strategy": "fsdp", "devices": 2}, r"strategy \('fsdp'\): .*requires a GPU"),
    ],
    ids=str,
)  # fmt: skip
def test_senseless_devices(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        training.fit(small_model(), some_pairs(5), out=tmp_path / "run", **{"device": "cpu", **options})
    assert names(tmp_path) == []


def test_another_number_of_processes_than_were_started(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"devices \(1\) x nodes \(1\) is 1, but 4 processes were started; make them"):
        training.fit(small_model(), some_pairs(5), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_where_there_is_none():
    with pytest.raises(ValueError, match=r"device \(cuda\): torch finds 0 CUDA devices here; say auto or cpu"):
        training.fit(small_model(), some_pairs(5), device="cuda", devices=2)


def test_settings_are_what_options_say():
    from towers.training.options import Options

    assert list(Settings().as_dict()) == list(Options.__annotations__)
    assert Settings.from_dict(Settings(lr=0.5, patience=3).as_dict()) == Settings(lr=0.5, patience=3)
