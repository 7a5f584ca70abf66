"""A run on disk: its state during training, and at the end the model, its metrics and its curves."""

import os
import shlex
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from towers import checkpoint
from towers.checkpoint import CONFIG, RESUME, WEIGHTS, replace
from towers.data.kept_vectors import FILE as VECTORS
from towers.model import TwoTowers
from towers.training.folders import DEFAULT_FOLDER, PARTIAL, is_run, next_free, take, write_json
from towers.training.history import DivergedError, History, draw_curves

RESULTS = (CONFIG, "metrics.json", "curves.png", WEIGHTS)
"""The files of a finished run; those of the command have vectors too. The config is removed first and written last."""


class Run:
    """The folder of a run.

    `resume.json` has the run's options and progress, and names the file of its tensors. Both files are written under
    another name and then renamed, resume.json last, so that it always names a complete file. At the end config.json,
    model.safetensors, metrics.json and curves.png are written. The state is kept, so that the run can be trained
    longer.

    Attributes:
        path: the folder.
        record: the content of resume.json.
        writes: whether this process writes the folder; of several processes only the first does.
    """

    def __init__(self, path: Path, record: dict[str, Any], *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.record: dict[str, Any] = record
        self.begun = "tensors" in record
        """Whether there is a state from which the run can continue."""

    @classmethod
    @contextmanager
    def new(
        cls,
        folder: str | PathLike[str] | None,
        about: Mapping[str, Any],
        *,
        overwrite: bool = False,
        writes: bool = True,
    ) -> Generator[Self]:
        """Take a folder for a run before the work begins, and release it if the work fails before the first state.

        Args:
            folder: absent or empty; None takes `towers-run` or the next free `towers-run-N` in the current folder. It
                appears with its resume.json in it.
            about: the first content of resume.json: "settings", and the "command" that began it.
            overwrite: the folder may hold another run, which is kept until this one has its first state.
            writes: whether this process makes and writes the folder.

        Raises:
            FileExistsError: the folder holds something, or another process works on it.
            OSError: the folder cannot be made, or nothing can be written to it.
        """
        if not writes:
            yield cls(Path(folder or DEFAULT_FOLDER), {}, writes=False)
            return
        record: dict[str, Any] = {"format": checkpoint.FORMAT, **about, "finished": False}
        path = None if folder is None else Path(folder)
        replaces = path is not None and overwrite and is_run(path)
        if path is None:
            path, made = next_free(record), True
        elif not replaces:
            made = take(path, record)
        else:
            made = False
        run = cls(path, record)
        with run._locked():
            try:
                yield run
            except BaseException:
                if not run.begun and not replaces:
                    run._let_go(made)
                raise

    @classmethod
    @contextmanager
    def reopened(cls, folder: str | PathLike[str], *, writes: bool = True) -> Generator[Self]:
        """The run in a folder.

        Raises:
            FileNotFoundError: there is no folder, or it holds no run.
            FileExistsError: another process works on it.
            ValueError: its resume.json is damaged or of a newer version.
        """
        run = cls(Path(folder), cls.read(folder), writes=writes)
        with run._locked():
            run.record = cls.read(folder)  # again, since no other process can write now
            run.begun = "tensors" in run.record
            yield run

    @staticmethod
    def read(folder: str | PathLike[str]) -> dict[str, Any]:
        """The content of a run's resume.json. Raises what `reopened` does."""
        path = Path(folder)
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: no folder; resume takes the folder of a run")
        if not (path / RESUME).is_file():
            problem = "the model is whole, but its training cannot go on" if (path / CONFIG).is_file() else "no run"
            raise FileNotFoundError(f"{path}: there is no {RESUME} ({problem}); start another run")
        return checkpoint.read_config(path, RESUME)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the state.

        Raises:
            ValueError: their file is missing or damaged.
        """
        return checkpoint.read_tensors(self.path / Path(str(self.record["tensors"])).name)

    def save(self, entries: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replace the last state: the tensors first, then resume.json, which names their file.

        Raises:
            OSError: it cannot be written; the last state is kept.
        """
        if not self.begun:
            self._take_over()
        number = int(self.record.get("number", 0)) + 1
        file = self.path / f"resume-{number}.safetensors"
        record: dict[str, Any] = {**self.record, **entries, "number": number, "tensors": file.name, "finished": False}
        checkpoint.write_tensors(file, tensors)
        try:
            write_json(self.path / RESUME, record)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        self.record, self.begun = record, True
        self._sweep(keep=file.name)

    def finish(
        self,
        model: TwoTowers,
        history: History,
        *,
        metrics: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the results of a finished run, config.json last: a folder with a config is complete.

        Args:
            model: with the weights to keep.
            history: its rows become metrics.json and curves.png.
            metrics: entries for metrics.json beside the history's, such as those of test pairs. NaN becomes null.
            extra: entries for config.json beside the model's.

        Raises:
            ImportError: safetensors or matplotlib is not installed.
            OSError: a file cannot be written; the state is kept.
        """
        if not self.writes:
            return
        with self.going_on():
            write_json(self.path / "metrics.json", {**history.as_dict(), **(metrics or {})})
            replace(self.path / "curves.png", lambda path: draw_curves(history, path))
            model.save(self.path, extra=extra)
            self.record = {**self.record, "finished": True}
            write_json(self.path / RESUME, self.record)
        self._sweep(keep=str(self.record.get("tensors")))

    @contextmanager
    def going_on(self) -> Generator[None]:
        """Add a note to an exception that ends the work early: what is saved, and how to resume."""
        try:
            yield
        except BaseException as error:
            if self.begun and self.writes and not isinstance(error, DivergedError):  # it would diverge again
                how = f"resume={str(self.path)!r}" if self.record.get("command") is None else self.resume_command
                error.add_note(f"saved in {self.path}: {self.standing}; go on with: {how}")
            raise

    @property
    def resume_command(self) -> str:
        """The command that resumes the run."""
        return f"towers fit --resume {shlex.quote(str(self.path))}"

    @property
    def standing(self) -> str:
        """The progress in words."""
        epochs, batch = len(self.record["history"]["epochs"]), self.record["position"]["batch"]
        done = f"{epochs} epoch{'' if epochs == 1 else 's'}"
        return f"{done} and {batch} batch{'' if batch == 1 else 'es'} done" if batch else f"{done} done"

    @property
    def finished(self) -> bool:
        """Whether the run is finished and all its result files exist."""
        return self.record.get("finished") is True and all((self.path / name).is_file() for name in RESULTS)

    def _take_over(self) -> None:
        """Remove the results of a replaced run before its state, the config first: the rest can still be resumed."""
        for name in (*RESULTS, VECTORS):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        numbers = [int(file.stem.rpartition("-")[2]) for file in self.path.glob("resume-[0-9]*.safetensors")]
        self.record["number"] = max(numbers, default=0)

    def _sweep(self, keep: str) -> None:
        for file in chain(self.path.glob("resume-[0-9]*.safetensors"), self.path.glob(PARTIAL)):
            if file.name != keep:
                file.unlink(missing_ok=True)

    def _let_go(self, made: bool) -> None:
        (self.path / RESUME).unlink(missing_ok=True)
        if made and not any(self.path.iterdir()):
            self.path.resolve().rmdir()

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Lock the folder against other processes; the system releases the lock when the process ends."""
        try:
            import fcntl
        except ImportError:  # Windows has none
            fcntl = None
        if fcntl is None or not self.writes:
            yield
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileExistsError(f"{self.path}: another process works on it; wait, or stop that one") from None
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(folder)
