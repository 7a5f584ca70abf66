"""What is counted in machine code, and what the results say of today's kernels."""

import importlib
import json
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

LOOP = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   MUFU.EX2 R2, R3 ;
        /*0020*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*0030*/                   LDG.E R8, [R9.64] ;
        /*0040*/              @P1  BRA 0x30 ;
        /*0050*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0060*/              @!P0 BRA `(0x10) ;
        /*0070*/                   EXIT ;
"""


@pytest.fixture
def sass(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(repository / "benchmarks")
    return importlib.import_module("cuda_sass")


def test_a_step_is_the_loop_and_what_runs_inside_it(sass):
    assert sass.step(LOOP, 1, whole=False) == (6, 1, 1, 1)
    assert sass.step(LOOP, 4, whole=False) == (6 + 3 * 2, 1, 1, 1), "the load and its branch, three times more"
    assert sass.step(LOOP, 1, whole=True) == (8, 1, 1, 1)


def test_a_loop_that_the_assembler_unrolled_is_several_steps(sass):
    twice = LOOP.replace("MOV R1, c[0x0][0x28]", "NOP").replace("LDG.E R8, [R9.64]", "MUFU.EX2 R2, R3")
    rest = twice.replace("MUFU.EX2 R2, R3 ;\n        /*0040*/", "NOP ;\n        /*0040*/")
    moved = rest.replace("/*00", "/*01").replace("0x30", "0x130").replace("0x10", "0x110")
    assert sass.step(twice + moved, 1, whole=False)[:2] == (3, 1)


def test_the_results_are_of_both_tritons_and_say_that_each_design_gains(repository, sass):
    found = json.loads((repository / "benchmarks/results/sm_90.json").read_text("utf8"))
    work = found.pop("work")
    assert len(found) >= 4, "two versions of Triton, each before and now"
    for version, rows in found.items():
        for row in rows:
            if not version.endswith("before"):
                assert row["spilled"] == 0, row
            assert row["shared"] <= 227 * 1024
    launches = {(job.name, launch) for job in sass.jobs() for launch in job.launches}
    for version in [version for version in found if not version.endswith("before")]:
        assert {(row["case"], row["kernel"]) for row in found[version]} == launches, version
        now, before = (
            {(row["case"], row["kernel"]): row["instructions"] * row["warps"] / row.get("sentences", 1) for row in rows}
            for rows in (found[version], found.get(f"{version}, before", []))
        )
        assert all(now[key] < before[key] for key in before if key[0].startswith("hidden")), version
        # 64 rows of 64 inputs to 128 gates, beside the multiplications alone of one thread for each: 32 a warp's.
        by_units = next(
            row for row in found[version] if (row["case"], row["kernel"]) == ("products, float32", "inputs")
        )
        assert by_units["instructions"] * by_units["warps"] < 64 * 64 * 128 / 32 / 2
    assert any(row["sorted"] for row in work)
    for row in work:
        assert row["rows"] < 0.6 * row["rows_before"]
        assert (row["steps"] < 0.65 * row["steps_before"]) if row["sorted"] else row["steps"] == row["steps_before"]


def test_the_walk_of_the_place_that_ends_last(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "benchmarks")
    counts = importlib.import_module("cuda_counts")
    lengths = torch.tensor([1, 4, 1, 4, 2])
    assert counts.walk(lengths, 2, 1) == (12 / 20, 10), "4, 4 and 2 steps, one after the other"
    assert counts.walk(lengths, 2, 2) == (12 / 20, 6)
    assert counts.walk(lengths.sort(descending=True).values, 2, 2) == (12 / 14, 4)
