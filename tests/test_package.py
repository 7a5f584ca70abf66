"""The package as a whole: its public names, what importing it does (nothing), and what it needs."""

import ast
import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import towers

from .helpers.forked import Forks

PUBLIC = {
    "FeaturePool",
    "PairFeatures",
    "PairHead",
    "PhraseConv",
    "Ragged",
    "RaggedLSTM",
    "ShapeContractError",
    "StepPool",
    "Tower",
    "TwoTowers",
    "WordDropout",
    "WordFeatures",
    "WordMap",
    "contracts",
    "data",
    "export",
    "keras",
    "load",
    "optim",
    "scale",
    "search",
    "training",
}

# Prints what IMPORT changes in a process that has torch already, and which modules it adds.
PROBE = """
import contextlib, io, json, logging, os, sys, threading, warnings
import torch

def state():
    return {
        "environment": dict(os.environ),
        "path": list(sys.path),
        "warning filters": [str(entry) for entry in warnings.filters],
        "log handlers": [str(handler) for handler in logging.getLogger().handlers],
        "hooks": [str(hook) for hook in (sys.excepthook, sys.displayhook, *sys.meta_path, *sys.path_hooks)],
        "threads": [threading.active_count(), torch.get_num_threads(), torch.get_num_interop_threads()],
        "random state": torch.get_rng_state().tolist(),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cuda started": torch.cuda.is_initialized(),
    }

before, modules, out = state(), set(sys.modules), io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
    IMPORT
after = state()
changed = [key for key in before if before[key] != after[key]]
print(json.dumps({
    "changed": sorted(changed + ["output"] * bool(out.getvalue())),
    "modules": sorted({name.split(".")[0] for name in set(sys.modules) - modules}),
}))
"""


def python(code: str, forks: Forks) -> str:
    run = forks.run([forks.with_torch, "-c", code])
    assert run.returncode == 0, run.stderr
    return run.stdout


def effects_of(statement: str, forks: Forks) -> dict[str, list[str]]:
    return json.loads(python(PROBE.replace("IMPORT", statement), forks))


def test_public_names():
    assert set(towers.__all__) == PUBLIC
    assert all(getattr(towers, name) is not None for name in PUBLIC)
    assert set(dir(towers)) >= PUBLIC


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'towers' has no attribute 'Towel'"):
        _ = towers.Towel


def test_import_has_no_effects(forks: Forks):
    assert effects_of("import towers", forks) == {"changed": [], "modules": ["towers"]}


def test_the_compiler_is_loaded_by_those_who_compile_only(forks: Forks):
    # It takes 150 MB and seconds: `towers predict` has other uses for both.
    everything = "import towers.model, towers.data, towers.training, towers.cli.predict_job, towers.cli.fit_job"
    model = "towers.TwoTowers(device='meta'); towers.TwoTowers()"
    assert not {"triton", "sympy"} & set(effects_of(f"{everything}; {model}", forks)["modules"])


EFFECTS = {
    "device": "torch.set_default_device('meta')",
    "dtype": "torch.set_default_dtype(torch.float64)",
    "environment": "os.environ['TOWERS'] = '1'",
    "gradients": "torch.set_grad_enabled(False)",
    "hooks": "sys.meta_path.append(object())",
    "log handlers": "logging.basicConfig()",
    "matmul precision": "torch.set_float32_matmul_precision('high')",
    "output": "print('hello')",
    "path": "sys.path.append('somewhere')",
    "random state": "torch.rand(1, device='cpu')",
    "threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "warning filters": "warnings.simplefilter('ignore')",
}


def test_effects_would_be_noticed(forks: Forks):
    noticed = effects_of("; ".join(["import h5py, beartype", *EFFECTS.values()]), forks)
    assert noticed["changed"] == sorted(EFFECTS)
    assert {"h5py", "beartype"} <= set(noticed["modules"])


def test_names_of_the_network_need_the_four_required_packages_only(forks: Forks):
    # All extras made unimportable: what is not required is not needed.
    block = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL}))\n"
    names = sorted(PUBLIC - {"training"})
    python(block + f"from towers import {', '.join(names)}", forks)


def project() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf8"))["project"]


OPTIONAL = sorted(
    {"lightning", "pytorch_lightning", "torchmetrics", "safetensors", "gensim", "polars", "matplotlib"}
    | {"h5py", "rich", "pytest", "hypothesis", "onnx", "onnxscript", "onnxruntime", "triton", "huggingface_hub"}
)


def test_requirements():
    assert project()["requires-python"] == ">=3.11"
    assert project()["dependencies"] == ["torch>=2.11", "einops>=0.8", "jaxtyping>=0.3", "beartype>=0.20"]


def test_the_package_carries_its_types():
    assert (Path(towers.__file__).parent / "py.typed").is_file()


# Imports run downwards only: a module may import those of its own floor and of floors below.
FLOORS = [
    {"contracts", "kernels"},
    {"ragged_checks", "shape_hints"},
    {"ragged", "pytest_contracts"},
    {"convert", "microbatch", "freed_memory"},
    {"layers"},
    {"model", "ensemble", "checkpoint", "optim", "sharing", "model_card"},
    {"data", "training", "keras", "search", "export"},
    {"answers", "evaluated", "every_pair", "model_config", "sentence_words"},
    {"scale"},
    {"cli"},
]


IMPORTS = re.compile(r"^[ \t]*(from towers\b[\w.]* import (?:\([^)]*\)|.*)|import towers\b.*)", re.MULTILINE)


def imported_parts(file: Path) -> set[str]:
    """The parts of towers that a file imports, anywhere in it."""
    names: set[str] = set()
    statements = IMPORTS.findall(file.read_text("utf8"))  # to parse all files whole would take seconds
    for node in ast.parse("\n".join(statements)).body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("towers.")}


def test_no_two_files_share_a_name():
    files = Counter(file.name for file in Path(towers.__file__).parent.rglob("*.py"))
    assert {name for name, count in files.items() if count > 1} <= {"__init__.py", "__main__.py"}


def test_imports_run_downwards():
    source = Path(towers.__file__).parent
    floor = {part: height for height, parts in enumerate(FLOORS) for part in parts}
    upwards = []
    for file in source.rglob("*.py"):
        own = file.relative_to(source).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for other in imported_parts(file) - {own}:
            if floor[other] > floor[own] or floor[own] == 0:
                upwards.append(f"{file.relative_to(source)} imports {other}")
    assert not upwards
