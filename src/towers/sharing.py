"""Models given to others: a folder with a model card, written, pushed to the Hugging Face hub, and loaded from there.

Names and arguments are those of huggingface_hub's `PyTorchModelHubMixin`, which is not inherited from: it would make
`import towers` need the hub, delete config.json before a new one is written, and load pickles and weights that do not
fit.
"""

import inspect
import json
import re
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from os import PathLike
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any, Self, TypedDict, Unpack, cast

import torch
from torch import nn

from towers import checkpoint
from towers.checkpoint import CONFIG, VECTORS, WEIGHTS
from towers.model_card import card, check_license, is_own, license_of

CARD = "README.md"
METRICS = "metrics.json"
OF_A_RUN = (METRICS, "curves.png", VECTORS)
FILES = (*OF_A_RUN, CARD, WEIGHTS, CONFIG)
"""What is shared, in the order in which it is written: a folder with a config is complete."""
REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


NOT_TAKEN = {
    "map_location": "say device",
    "strict": "weights that do not fit are always refused",
    "proxies": "set the variable HTTPS_PROXY",
    "resume_download": "what was downloaded in part is always continued",
    "config": "config.json is written from the model, and read with its weights",
    "model_card_kwargs": "README.md can be written first, and is kept",
    **dict.fromkeys(("allow_patterns", "ignore_patterns", "delete_patterns"), "all files of a model belong together"),
}
"""Arguments of the mixin that are not taken here, each with what to do."""


class PushOptions(TypedDict, total=False):
    """The arguments of `push_to_hub` that `save_pretrained` passes on."""

    private: bool | None
    token: str | bool | None
    commit_message: str
    branch: str | None
    create_pr: bool | None


class Shareable(nn.Module):
    """A module that `save` writes to a folder and `load` reads, and that can be shared so."""

    def save(self, folder: str | PathLike[str], *, extra: Mapping[str, Any] | None = None) -> None:
        """Write config.json and model.safetensors."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: str | PathLike[str], *, device: torch.device | str | None = None) -> Self:
        """A module that `save` wrote, in evaluation."""
        raise NotImplementedError

    def refuse_other_init(self, *arguments: object, **named: object) -> None:
        """Refuse to save what `load` could not make again, from these arguments of its class.

        Raises:
            ValueError: the class has an `__init__` of its own that does not take them.
        """
        try:
            inspect.signature(type(self)).bind(*arguments, **named)
        except TypeError as error:
            raise ValueError(
                f"{type(self).__name__} has an __init__ of its own, which does not take what load would give it "
                f"({error}), so it is not saved; let it take the arguments of the class that it is derived from"
            ) from None

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        *,
        run: str | PathLike[str] | None = None,
        license: str | None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_options: Unpack[PushOptions],
    ) -> str | None:
        """Write the folder that `save` writes, and a README.md: a model card.

        The card has the sizes, the metrics, the names of the data, and the shape contracts with their proof, which
        takes seconds. A README.md that is there is kept, unless it is a card that was written here and that no one
        changed: that one is written again, with its licence.

        Args:
            save_directory: it is created if there is none; a model in it is replaced.
            run: the folder that `towers fit` or `fit(out=...)` wrote for these weights. Its metrics, curves and word
                vectors are copied, and what its config says of the data, with the names of files but not their folders.
                None: `save_directory` itself, if it is such a folder.
            license: the identifier of a licence for the card: "mit", "apache-2.0", "cc-by-4.0", "other".
            repo_id: the name on the hub, "owner/name", for the card and for pushing; None: that of the folder.
            push_to_hub: push the model too, with `push_options`, which are the arguments of `push_to_hub`.

        Returns:
            The address of the commit on the hub; None if nothing was pushed.

        Raises:
            ImportError: safetensors is not installed, or huggingface_hub, with `push_to_hub`.
            TypeError: there are `push_options` without `push_to_hub`, or one that `push_to_hub` does not have.
            ValueError: `license` is no identifier, or there is a README.md to be kept; the class has another `__init__`
                than `load` needs; `run` has other weights than this
                model, or is damaged; `save_directory` has metrics of other weights.
            OSError: `run` is missing or unfinished, the folder cannot be written, or the hub refuses.
        """
        folder = Path(save_directory)
        name = repo_id or folder.resolve().name
        _refuse_unknown("save_pretrained", push_options.keys() - PushOptions.__annotations__)
        if push_options and not push_to_hub:
            raise TypeError(f"{next(iter(push_options))} goes with push_to_hub=True")
        check_license(license)
        if push_to_hub:
            _check_name("repo_id", name)
            _need_hub()
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder}: is a file; name a folder as save_directory")
        before = (folder / CARD).read_text("utf8", "replace") if (folder / CARD).is_file() else None
        has_card = before is not None and not is_own(before)
        if license is not None and has_card:
            raise ValueError(
                f"license: {folder / CARD} is kept as it is; write the licence into it, or remove it first"
            )
        with TemporaryDirectory() as scratch:
            whole = Path(scratch) / "model"
            if before is not None and not has_card:
                license = license or license_of(before)
            self._assemble(whole, _run_of(folder) if run is None else Path(run), name, license, given=run is not None)
            folder.mkdir(parents=True, exist_ok=True)
            for file in FILES:
                if (whole / file).exists() and not (file == CARD and has_card):
                    checkpoint.replace(folder / file, lambda partial, file=file: shutil.copyfile(whole / file, partial))
            if has_card:
                shutil.copyfile(folder / CARD, whole / CARD)
            return _push(whole, name, push_options) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        run: str | PathLike[str] | None = None,
        license: str | None = None,
        **push_options: Unpack[PushOptions],
    ) -> str:
        """Push to the Hugging Face hub what `save_pretrained` writes, in one commit.

        The repository is created if there is none. Its README.md is replaced.

        Args:
            repo_id: "owner/name", or "name" for one's own.
            run: as in `save_pretrained`.
            license: as in `save_pretrained`.
            private: whether a new repository is private; None: as the owner's settings say.
            token: a token of the hub's; None: that of `hf auth login`, or of the variable HF_TOKEN.
            commit_message: of the commit.
            branch: the branch to push to; None: "main".
            create_pr: make a pull request in place of a commit to the branch.

        Returns:
            The address of the commit.

        Raises:
            ImportError: huggingface_hub or safetensors is not installed.
            TypeError: there is another argument, such as one of the mixin that is not taken.
            ValueError: as in `save_pretrained`, or `repo_id` is malformed.
            OSError: `run` is missing, or the hub cannot be reached or refuses.
        """
        _refuse_unknown("push_to_hub", push_options.keys() - PushOptions.__annotations__)
        _check_name("repo_id", repo_id)
        check_license(license)
        _need_hub()
        with TemporaryDirectory() as scratch:
            whole = Path(scratch) / "model"
            self._assemble(whole, None if run is None else Path(run), repo_id, license, given=True)
            return _push(whole, repo_id, push_options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: torch.device | str | None = None,
        **model_kwargs: object,
    ) -> Self:
        """A model from a folder, or from the Hugging Face hub. Nothing but safetensors and JSON is read.

        It is in evaluation, as from `load`: without dropout. Call `train()` before a training that goes on.

        Args:
            pretrained_model_name_or_path: a folder that `save`, `save_pretrained` or `towers fit` wrote; else the name
                of a model on the hub: "owner/name".
            revision: a branch, a tag or a commit on the hub; None: "main".
            token: a token of the hub's; None: that of `hf auth login`, or of the variable HF_TOKEN.
            cache_dir: where downloaded files are kept; None: where huggingface_hub keeps all of them.
            local_files_only: do not ask the hub; take what was downloaded before.
            force_download: download again what was downloaded before.
            device: as in `load`.
            model_kwargs: none: what the mixin takes beside these is refused, with what to do.

        Raises:
            TypeError: there are `model_kwargs`.
            ImportError: safetensors is not installed, or huggingface_hub and this is no folder.
            FileNotFoundError: there is no such folder and no such model or revision on the hub, or it was never
                downloaded and cannot be now; or a file is missing in it.
            ValueError: a file is damaged or of a newer format, has an unknown entry, or the weights do not fit; there
                is a `revision` and this is a folder.
            OSError: the hub refuses.
        """
        _refuse_unknown("from_pretrained", model_kwargs)
        name = str(pretrained_model_name_or_path)
        if name and Path(name).is_dir():
            if revision is not None:
                raise ValueError(
                    f"revision ({revision!r}) is of a model on the hub; {name} is a folder, which has none"
                )
            return cls.load(name, device=device)
        if not REPO_ID.fullmatch(name):
            problem = "no folder, and no name of a model on the hub, such as owner/name"
            raise FileNotFoundError(f"{name!r}: {problem}{checkpoint.home_hint(name)}")
        _need_hub()
        from huggingface_hub import snapshot_download

        with _told(name):
            folder = snapshot_download(  # all files of one commit
                name,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
                allow_patterns=[CONFIG, WEIGHTS],
            )
        return cls.load(folder, device=device)

    def _assemble(self, place: Path, run: Path | None, name: str, license: str | None, *, given: bool) -> None:
        """Write all files of FILES to a new folder; `given`: the user says that `run` has these weights."""
        self.save(place)
        metrics: dict[str, Any] = {}
        if run is not None:
            config, weights = checkpoint.read(run)
            own_config, own_weights = checkpoint.read(place)
            if config.get("model") == own_config["model"] and _same(weights, own_weights):
                self.save(place, extra=_extra(config))
                _copy(run, place, config)
                metrics = _metrics(run)
            elif given or (run / METRICS).exists():
                problem = f"has other weights than this model, so its {METRICS} would be wrong"
                raise ValueError(f"{run}: {problem}; load the model from there, or name another folder")
        config = checkpoint.read_config(place)
        with checkpoint.undamaged((run or place) / METRICS):
            text = card(self, name, config, metrics, license)
        (place / CARD).write_text(text, encoding="utf8")


def _refuse_unknown(function: str, names: Iterable[str]) -> None:
    for name in names:
        hint = f": {NOT_TAKEN[name]}" if name in NOT_TAKEN else ""
        raise TypeError(f"{function} takes no {name}{hint}")


def _run_of(folder: Path) -> Path | None:
    return folder if all((folder / name).is_file() for name in (CONFIG, WEIGHTS)) else None


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and torch.equal(value, other[name]) for name, value in one.items()
    )


def _extra(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a config beside the model's; where the word vectors are is said without their folder."""
    extra = {name: value for name, value in config.items() if name not in ("format", "towers", "model")}
    vectors: dict[str, Any] = extra.get("vectors", {})
    if isinstance(source := vectors.get("source"), str):
        extra["vectors"] = {**vectors, "source": PureWindowsPath(source).name}  # it knows both kinds of slashes
    return extra


def _copy(run: Path, place: Path, config: Mapping[str, Any]) -> None:
    if config.get("vectors", {}).get("file") == VECTORS and not (run / VECTORS).is_file():
        raise FileNotFoundError(
            f"{run / VECTORS}: there is no such file, and {CONFIG} names it; train again, or mend that"
        )
    for name in OF_A_RUN:
        if (run / name).is_file():
            shutil.copyfile(run / name, place / name)


def _metrics(run: Path) -> dict[str, Any]:
    path = run / METRICS
    if not path.is_file():
        return {}
    try:
        metrics: object = json.loads(path.read_text(encoding="utf8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is damaged: {error}") from None
    if not isinstance(metrics, dict):
        raise ValueError(f"{path}: is damaged: it is no object")
    return cast(dict[str, Any], metrics)


def _push(folder: Path, repo_id: str, options: PushOptions) -> str:
    from huggingface_hub import HfApi

    with _told(repo_id):
        api = HfApi(token=options.get("token"))
        made = api.create_repo(repo_id, private=options.get("private"), exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message=options.get("commit_message", "Push model using towers."),
            revision=options.get("branch"),
            create_pr=options.get("create_pr"),
            delete_patterns=[name for name in OF_A_RUN if not (folder / name).exists()],  # of other weights
        )
    return str(commit)


def _check_name(argument: str, name: str) -> None:
    if not REPO_ID.fullmatch(name):
        raise ValueError(f"{argument} ({name!r}) must be the name of a model on the hub: owner/name")


@contextmanager
def _told(repo_id: str) -> Generator[None]:
    """Turn an error of huggingface_hub, of many kinds and lines, into one line that names the model."""
    from huggingface_hub import errors

    missing = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError)
    try:
        yield
    except Exception as error:
        told = f"{repo_id}: {' '.join(str(error).split())}"
        if isinstance(error, missing):
            raise FileNotFoundError(told) from None
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            raise ValueError(told) from None
        raise OSError(told) from None


def _need_hub() -> None:
    if find_spec("huggingface_hub") is None:
        raise ImportError('the hub is reached with huggingface_hub: pip install "towers[hub]"')
