"""The folder of a run over many rows: what it was asked for, and what is done. An interrupted run goes on from it.

manifest.json       the question: options, fingerprints of the model and of the input, the parts; it never changes
done.jsonl          a line for each part that is done: its rows, its bad rows, the size of its output
part-00007.tsv      the rows of a part with their answers, written whole and then renamed
bad-00007.jsonl     the bad rows of a part with their reasons, if it has any; it is there before the part
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from towers.checkpoint import CONFIG, VECTORS, WEIGHTS, lock, own_version, replace, undamaged
from towers.data.parts import Fingerprint, Part, TableFile

FORMAT = 1
MANIFEST, JOURNAL = "manifest.json", "done.jsonl"


@dataclass(frozen=True)
class Done:
    """A part that is done.

    rows: with an answer.
    bad: without one.
    unknown: answered, though a sentence has no known word.
    size: bytes of the output; None if there is no row, and no file.
    worker: the process that did it.
    loads: how many models that process has loaded so far.
    tokens: the words of its sentences, each occurrence counted.
    tokens_found: how many of them have a vector.
    missing: the most frequent words without one, and how often they occur.
    """

    part: int
    rows: int
    bad: int
    unknown: int
    size: int | None
    worker: str
    loads: int
    first_bad: str | None = None
    tokens: int = 0
    tokens_found: int = 0
    missing: dict[str, int] = field(default_factory=dict[str, int])


Job = Callable[[Part], Done]
"""Does a part, in any process."""


def files_of_model(folder: Path) -> dict[str, Path]:
    """The files that decide what a model says."""
    return {name: folder / name for name in (CONFIG, WEIGHTS, VECTORS) if (folder / name).is_file()}


def is_partial(file: Path) -> bool:
    """Whether a file is what a killed process left half written; see `replace`."""
    return file.name.startswith(".") and file.suffix == ".partial"


class RunFolder:
    """The folder of a run that has begun. `opened` makes one, or checks that an older one was asked for the same."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        with undamaged(path / MANIFEST):
            self.files = [
                TableFile(file[0], file[1], file[2], (file[3][0], file[3][1]), Fingerprint(*file[4]))
                for file in manifest["files"]
            ]
            self.parts = [Part(*part) for part in manifest["parts"]]
            self.out_format = manifest["options"]["out_format"]
        self.done: dict[int, Done] = {}
        self._journal: BinaryIO | None = None

    @property
    def remaining(self) -> list[Part]:
        """The parts that are not done."""
        return [part for part in self.parts if part.number not in self.done]

    @property
    def rows(self) -> int:
        """All rows, blank lines among them."""
        return sum(part.rows for part in self.parts)

    def total(self, name: str) -> int:
        """The sum of `rows`, `bad`, `unknown`, `tokens` or `tokens_found` over the parts that are done."""
        return sum(getattr(done, name) for done in self.done.values())

    @property
    def missing(self) -> Counter[str]:
        """The words without a vector, of the parts that are done."""
        every = Counter[str]()
        for done in self.done.values():
            every.update(done.missing)
        return every

    def output(self, part: int) -> Path:
        """The file of a part's answers."""
        return self.path / f"part-{part:05}.{self.out_format}"

    def bad(self, part: int) -> Path:
        """The file of a part's bad rows."""
        return self.path / f"bad-{part:05}.jsonl"

    def record(self, done: Done) -> None:
        """Note that a part is done; the line is on the disk when this returns."""
        assert self._journal is not None
        self._journal.write((json.dumps(asdict(done)) + "\n").encode())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self.done[done.part] = done

    @contextmanager
    def writing(self) -> Generator[None]:
        """Lock the folder for this process, read what is done, and remove what killed processes left half written.

        Raises:
            ValueError: another process writes here, or an output is not what was written.
        """
        with (self.path / MANIFEST).open("rb") as manifest, (self.path / JOURNAL).open("a+b") as journal:
            if not lock(manifest, without_locks=True):
                raise ValueError(f"{self.path}: another process writes here; wait for it, or end it")
            for partial in self.path.glob(".*.partial"):
                with suppress(OSError):
                    partial.unlink()
            journal.seek(0)
            text = journal.read()
            whole = text.rfind(b"\n") + 1  # of a process that was killed while it wrote, the last line may be cut off
            if whole < len(text):
                journal.truncate(whole)
            with undamaged(self.path / JOURNAL):
                entries = [Done(**json.loads(line)) for line in text[:whole].splitlines()]
            self.done = {done.part: done for done in entries if self._is_there(done)}
            self._journal = journal
            try:
                yield
            finally:
                self._journal = None

    def _is_there(self, done: Done) -> bool:
        """Whether the output of a part lies there as it was written; a part without it is done again."""
        path = self.output(done.part)
        if done.size is None:
            return True
        if not path.exists():
            return False
        if path.stat().st_size != done.size:
            found = f"has {path.stat().st_size:,} bytes, and the run wrote {done.size:,}"
            raise ValueError(f"{path}: {found}: it was changed or cut off; remove it, and it is made again")
        return True


def opened(
    path: Path, options: Mapping[str, Any], given: Mapping[str, Mapping[str, Path]], plan: Any, *, what: str
) -> RunFolder:
    """The folder of a run: a new one, or one that goes on.

    Args:
        path: the folder.
        options: what decides the output, beside the files; JSON.
        given: the files of the "model" and of the "input", by name: their content decides the output too.
        plan: called without arguments for a new run, gives its files and parts.
        what: of the command, for errors.

    Raises:
        ValueError: there is something else in the folder, or a run with other options, another model or other input.
    """
    if not (path / MANIFEST).is_file():
        if path.exists() and (not path.is_dir() or any(not is_partial(file) for file in path.iterdir())):
            raise ValueError(f"{path}: is no folder of such a run, and not empty; name another folder")
        files, parts = plan()
        prints = {kind: {name: Fingerprint.of(file) for name, file in named.items()} for kind, named in given.items()}
        about = {"format": FORMAT, "towers": own_version(), "what": what, "options": dict(options), **prints}
        manifest = json.loads(json.dumps(about | {"files": files, "parts": parts}))
        made = not path.exists()
        path.mkdir(exist_ok=True)
        try:
            text = json.dumps(manifest) + "\n"
            replace(path / MANIFEST, lambda partial: partial.write_text(text, encoding="utf8"))
        except OSError:
            if made:
                path.rmdir()
            raise
        return RunFolder(path, manifest)
    with undamaged(path / MANIFEST):
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text("utf8"))
        if manifest["format"] > FORMAT:
            raise ValueError(f"format {manifest['format']} is of a newer towers: update towers")
        before: dict[str, Any] = manifest["options"]
        prints = {kind: {name: Fingerprint(*entry) for name, entry in manifest[kind].items()} for kind in given}
    if manifest["what"] != what:
        raise ValueError(f"{path}: is of a run of towers {manifest['what']}; name another folder")
    for name, value in json.loads(json.dumps(options)).items():
        if before.get(name) != value:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{path}: its run has {option} {before.get(name)}, not {value}; name another folder")
    for kind, named in given.items():
        _check_same(path, kind, prints[kind], named)
    return RunFolder(path, manifest)


def _check_same(path: Path, kind: str, before: Mapping[str, Fingerprint], named: Mapping[str, Path]) -> None:
    if missing := sorted(before.keys() ^ named.keys()):
        raise ValueError(
            f"{path}: its run has another {kind}: {missing[0]} is in one of them only; name another folder"
        )
    for name, file in named.items():
        if not before[name].fits(file):
            told = f"{file} is not what it was when the run began"
            raise ValueError(f"{path}: its run has another {kind}: {told}; name another folder")
