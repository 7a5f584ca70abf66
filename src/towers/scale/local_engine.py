"""The parts of a run, done by processes of this machine."""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context

from towers.data.parts import Part
from towers.scale.cores import cores
from towers.scale.run_folder import Done, Job

TRIES = 3
"""How often a new set of processes begins, without a part done in between, after one was killed."""


def run_local(job: Job, parts: list[Part], workers: int) -> Iterator[Done]:
    """Do all parts, in any order: in this process, or in `workers` others.

    Raises:
        ValueError: a part cannot be done, or processes are killed again and again.
        OSError: a file cannot be read or written.
    """
    if workers == 1:
        yield from map(job, parts)
        return
    left, tries = {part.number: part for part in parts}, TRIES
    while left:
        try:
            for done in _in_pool(job, list(left.values()), workers):
                del left[done.part]
                tries = TRIES
                yield done
        except BrokenProcessPool:
            tries -= 1
            if not tries:
                problem = f"a worker was killed {TRIES} times, and no part was done in between"
                raise ValueError(f"{problem}: does the memory suffice for {workers} workers?") from None


def _in_pool(job: Job, parts: list[Part], workers: int) -> Iterator[Done]:
    waiting = iter(parts)
    threads = max(1, cores() // workers)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(threads,))
    try:
        running: set[Future[Done]] = {pool.submit(job, part) for part in islice(waiting, 2 * workers)}
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                running |= {pool.submit(job, part) for part in islice(waiting, 1)}
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the others
    torch.set_num_threads(threads)
