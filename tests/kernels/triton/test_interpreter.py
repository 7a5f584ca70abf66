"""The kernels themselves, without a GPU: Triton's interpreter runs the tests of this folder in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent
LEAST = 100  # tests; fewer means that some did not run


@pytest.mark.long
def test_every_kernel_under_the_interpreter():
    files = [HERE / f"test_{name}.py" for name in ("lstm", "phrases", "layers", "operators", "eager", "best_items")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # no -n of ours
    run = subprocess.run(command, env=alone | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=900)
    if "only 0-dimensional arrays can be converted to Python scalars" in run.stdout:
        pytest.skip("the interpreter of Triton 3.6 cannot loop with a NumPy of this age")
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    outcome = run.stdout.strip().splitlines()[-1]
    passed = re.fullmatch(r"(\d+) passed in .*", outcome)
    assert passed, f"none may be skipped: {outcome}"
    assert int(passed[1]) >= LEAST
