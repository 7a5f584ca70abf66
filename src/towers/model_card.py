"""The README.md of a shared model: what it is, how it did, what it learned from, and the proof of its contracts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from torch import nn

from towers.checkpoint import VECTORS

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
SIZES = ("words", "vector_width", "kernel_words", "filters", "pool", "hidden", "chunk", "recurrent_activation")
ORIGINS = {"glove-6b-50d": "glove-6b-50d: GloVe 6B, by Pennington, Socher and Manning (2014), PDDL 1.0"}
"""Word vectors that are asked for by name, with their source and licence."""


MARK = re.compile(r"<!-- towers wrote this card; a changed one is kept: ([0-9a-f]{16}) -->\n?\Z")
LICENSED = re.compile(r"^license: (\S+)$", re.MULTILINE)

PARTS = ("bidirectional", "reduce", "word_map", "word_maximum", "word_mean")


def check_license(license: str | None) -> None:
    """Refuse what is no identifier of a licence.

    Raises:
        ValueError: it is not a word of lower-case letters, digits, dots, plus and minus signs.
    """
    if license is not None and not LICENSE.fullmatch(license):
        problem = "is no identifier of a licence, such as 'mit', 'apache-2.0' or 'cc-by-4.0'"
        raise ValueError(f"license ({license!r}) {problem}; for all others there is 'other'")


def card(
    model: nn.Module, name: str, config: Mapping[str, Any], metrics: Mapping[str, Any] | None, license: str | None
) -> str:
    """The text of a model card, in the Markdown of the Hugging Face hub.

    Args:
        model: its contracts are verified, which takes seconds.
        name: the title, and what a reader passes to `from_pretrained`.
        config: the entries of config.json.
        metrics: the entries of metrics.json, if there are any.
        license: an identifier of the hub's; None: the card names none.

    Raises:
        ValueError: `license` is no identifier.
        KeyError, TypeError, ...: an entry of `metrics` is not as `towers fit` writes it.
    """
    check_license(license)
    sections = [
        _front(license),
        f"# {name}",
        "Two towers read the two sentences of a pair; the network says how likely it is that they belong together.",
        _use(name, config),
        _network(model, config["model"]),
        *_results(metrics or {}),
        *_data(config),
        *_contracts(model),
    ]
    text = "\n\n".join(sections) + "\n\n"
    return f"{text}<!-- towers wrote this card; a changed one is kept: {_digest(text)} -->\n"


def is_own(text: str) -> bool:
    """Whether `card` wrote a text, and it has not been changed since."""
    mark = MARK.search(text)
    return mark is not None and mark[1] == _digest(text[: mark.start()])


def license_of(text: str) -> str | None:
    """The licence that a card of ours names."""
    found = LICENSED.search(text)
    return None if found is None else found[1]


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _front(license: str | None) -> str:
    lines = [f"license: {license}"] if license is not None else []
    return "\n".join(["---", *lines, "library_name: towers", "tags:", "- sentence-pairs", "- shape-contracts", "---"])


def _use(name: str, config: Mapping[str, Any]) -> str:
    ensemble = "members" in config["model"]
    kind, place = ("Ensemble", "towers.ensemble") if ensemble else ("TwoTowers", "towers")
    lines = [f"from {place} import {kind}", "", f'model = {kind}.from_pretrained("{name}")  # for word vectors']
    if config.get("vectors", {}).get("file") == VECTORS:
        download = ["import towers", "from huggingface_hub import snapshot_download", ""]
        lines += ["", *download, f'model = towers.load(snapshot_download("{name}"))  # for sentences']
    return "\n".join(["```python", *lines, "```"])


def _network(model: nn.Module, sizes: Mapping[str, Any]) -> str:
    members = sizes.get("members", [sizes])
    sizes = members[0]
    shared = sizes["right"] == "left"
    towers = [sizes["left"]] if shared else [sizes["left"], sizes["right"]]
    rows = [[name, *(_size(name, tower.get(name)) for tower in towers)] for name in SIZES]
    rows += [
        [name, *(str(tower.get(name, "")) for tower in towers)] for name in PARTS if name in {**towers[0], **towers[-1]}
    ]
    heads = ["", "both towers, one set of weights"] if shared else ["", "left", "right"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows += [[name, *[str(sizes[name])] * len(towers)] for name in ("features", "outputs") if name in sizes]
    many = "" if len(members) == 1 else f" in {len(members)} networks of these sizes, which answer together"
    told = f"{parameters:,} parameters{many}; a dense layer of {sizes['dense']} units."
    return f"## Network\n\n{_table(heads, rows)}\n\n{told}"


def _size(name: str, value: object) -> str:
    missing = {"words": "any number", "chunk": "all steps at once", "recurrent_activation": "sigmoid",
               "filters": "no convolution", "hidden": "no LSTM"}  # fmt: skip
    return missing.get(name, "") if value is None else str(value)


def _results(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics of the epoch that was kept, and of the test pairs."""
    rows: list[tuple[str, Mapping[str, float | None]]] = []
    epochs: Sequence[Mapping[str, Any]] = metrics.get("epochs", ())
    if epochs:
        kept = epochs[int(metrics["best_epoch"]) - 1]
        place = f"epoch {kept['epoch']} of {len(epochs)}"
        rows += [(f"{part}, {place}", kept[part]) for part in ("train", "dev") if kept[part]]
    if test := metrics.get("test"):
        found = {name: value for name, value in test.items() if name != "pairs"}
        rows.append((f"test, {test['pairs']} pairs", found))
    if not rows:
        return []
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    cells = [[label, *(_number(row.get(name)) for name in names)] for label, row in rows]
    notes = ["`train` is measured while learning, with weights that change from step to step."] if epochs else []
    notes += ["`majority` is the accuracy of always answering the more frequent class."] if "majority" in names else []
    return ["\n\n".join(["## Results", _table(["pairs", *names], cells), *notes])]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _data(config: Mapping[str, Any]) -> list[str]:
    """What the config says of pairs and word vectors; names of files, without their folders."""
    data, vectors = config.get("data", {}), config.get("vectors", {})
    known = {
        **{f"{part} pairs": data.get(part) for part in ("train", "dev", "test")},
        "word vectors": ORIGINS.get(vectors.get("source"), vectors.get("source")),
        "words without a vector": vectors.get("missing"),
        "columns": ", ".join(
            filter(None, (data.get(name) for name in ("left_column", "right_column", "label_column")))
        ),
        "words are split by": data.get("split"),
        "sentences are fitted": data.get("fit_length"),
    }
    rows = [[name, str(value)] for name, value in known.items() if value]
    return [f"## Data\n\n{_table(['', ''], rows)}"] if rows else []


def _contracts(model: nn.Module) -> list[str]:
    """Each contract, the shapes that it sees in this network, and whether it is proven."""
    from towers.contracts import verify  # it needs a part of torch that is slow to load

    title = "## Shape contracts"
    try:
        proof = verify(model, seconds=20)  # a card is written once: better late than undecided
    except ValueError as error:
        return [title, f"Not tried: {_cell(str(error))}"]
    verdicts = {(each.path, each.contract): each.verdict for each in proof.contracts}
    rows = [
        [row.path or "(itself)", name, f"`{row.demand}`", f"`{row.came} -> {row.went}`", verdicts[row.path, name]]
        for row in proof.trace.rows
        for name in (row.kind, f"{row.kind}.forward")
        if (row.path, name) in verdicts
    ]
    free = ", ".join(f"`{axis}`" for axis in proof.axes.values())
    return [
        title,
        f"`towers.contracts.verify`: **{proof.headline()}**" + (f" for all {free}." if free else "."),
        *([f"{_cell(proof.message)}"] if proof.message else []),
        _table(["module", "contract", "demands and promises", "in this network", "verdict"], rows),
        f"Assumed: {'; '.join(proof.assumptions)}. Tried with real tensors of {proof.tried} sizes.",
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
