"""The parts of a run, done by actors of Ray Data, on this machine or on a cluster."""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from towers.data.parts import Part
from towers.scale.run_folder import Done, Job


class Actor:
    """What each actor of Ray is: it has the job, and loads the model for its first part."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do the parts of a batch. An error goes back as text: one of Ray would have a traceback."""
        answers: list[dict[str, Any]] = []
        for row in zip(*(batch[name].tolist() for name in Part._fields), strict=True):
            try:
                answers.append({"done": self.job(Part(*row)), "error": None})
            except (ValueError, OSError) as error:
                answers.append({"done": None, "error": str(error)})
        told = [None if answer["done"] is None else _packed(answer["done"]) for answer in answers]
        return {"done": told, "error": [answer["error"] for answer in answers]}


def _packed(done: Done) -> str:
    return json.dumps(asdict(done))


class RayEngine:
    """A Ray that runs: this process's, the one at an address, or a new one of this machine.

    Args:
        address: of a cluster, as `ray.init` takes it ("auto", "ray://…", "host:port"); None: one that this process has
            begun, or a new one.
        workers: how many actors; None: one for each CPU but one, which Ray needs for reading.

    Raises:
        ImportError: Ray is not installed.
        ValueError: there are too few CPUs for the actors: Ray would wait for ever.
        ConnectionError: there is no Ray at the address, or a new one does not start.
    """

    def __init__(self, address: str | None, workers: int | None) -> None:
        check_installed()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone
        self.ray: Any = import_module("ray")
        self._own = not self.ray.is_initialized()
        if self._own:
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
            if address is None:
                options["include_dashboard"] = False
            try:
                self.ray.init(address=address or "local", **options)
            except Exception as error:  # Ray raises a bare Exception where its start takes too long
                where = "Ray does not start here" if address is None else f"--address {address}: there is no Ray"
                raise ConnectionError(f"{where}: {str(error).splitlines()[0]}") from None
        try:
            cpus = int(self.ray.cluster_resources().get("CPU", 0))
            self.workers = checked_workers(workers, cpus)
        except ValueError:
            self.close()
            raise

    def __call__(self, job: Job, parts: list[Part]) -> Iterator[Done]:
        """Do all parts, in any order. Actors that are lost are replaced, and their parts are done again.

        Raises:
            ValueError: a part cannot be done.
        """
        data: Any = import_module("ray.data")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False  # the run has its own
        dataset = data.from_items([part._asdict() for part in parts], override_num_blocks=len(parts))
        answers = dataset.map_batches(
            Actor, fn_constructor_args=(job,), batch_size=1, batch_format="numpy", num_cpus=1,
            compute=data.ActorPoolStrategy(size=min(self.workers, len(parts))),
        )  # fmt: skip
        for row in answers.iter_rows():
            if row["error"] is not None:
                raise ValueError(row["error"])
            yield Done(**json.loads(row["done"]))

    def close(self) -> None:
        """End the Ray that began here."""
        if self._own:
            self.ray.shutdown()


def check_installed() -> None:
    """Refuse to go on without Ray.

    Raises:
        ImportError: ray or pyarrow is not installed.
    """
    for package in ("ray", "pyarrow"):
        if find_spec(package) is None:
            raise ImportError(f'{package} is not installed: pip install "towers[ray]"')


def checked_workers(workers: int | None, cpus: int) -> int:
    """How many actors there are.

    Raises:
        ValueError: there are not that many CPUs, and one more.
    """
    most = cpus - 1
    if most < 1:
        problem = "it needs one for reading and one for each actor"
        raise ValueError(f"this Ray has {cpus} CPU: {problem}; say --engine local")
    if workers is not None and workers > most:
        problem = f"this Ray has {cpus} CPUs, of which it needs one for reading: it would wait for ever"
        raise ValueError(f"--workers {workers}: {problem}; say --workers {most} or fewer")
    return most if workers is None else workers
