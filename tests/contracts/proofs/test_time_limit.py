"""The time limit of verify holds with whatever a module does, and leaves nothing behind: not in the interpreter, not in
torch, not in other threads. `forward` may never end; where it cannot be interrupted, its thread is left to itself."""

import ctypes
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from towers.contracts import contract, verify
from towers.contracts.proofs import time_limit
from towers.contracts.proofs.time_limit import Abandoned, OutOfTime, within

from ...helpers.forked import Forks

PROFILED_AFTERWARDS = """
import cProfile, time
from towers.contracts.proofs import time_limit

def work(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass

for limit, seconds in ((20, 0), (0.01, 60)):  # in time; interrupted
    try:
        time_limit.within(limit, lambda: work(seconds))
        print("ended")
    except time_limit.OutOfTime:
        print("out of time")
    profile = cProfile.Profile()
    profile.runcall(sum, (abs(number) for number in range(1000)))
    print(profile.getstats() != [])
"""


def test_a_profiler_runs_after_it(forks: Forks):
    """CPython 3.11 looks for ever for an interruption that was taken back, once a profiler runs."""
    run = forks.run([forks.with_torch, "-c", PROFILED_AFTERWARDS])
    assert run.stdout.split("\n") == ["ended", "True", "out of time", "True", ""], run.stderr


class Does(nn.Module):
    """Does something before it returns its input."""

    def __init__(self, work: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.work = work

    @contract
    def forward(self, x: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        self.work(x)
        return x


def forever(_: object = None) -> None:
    while True:
        pass


def operations(x: Tensor) -> None:
    while True:
        x = torch.cat([x, x], 1)[:, : x.shape[1]]


def batches(x: Tensor) -> None:
    def endless():
        while True:
            yield x[:, :1]

    for _ in endless():
        pass


def calls(_: Tensor) -> None:
    def fibonacci(number: int) -> int:
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    fibonacci(90)


def catches(_: Tensor) -> None:
    while True:
        with suppress(Exception):
            forever()


def sizes(x: Tensor) -> None:
    size = x.shape[1]
    for step in range(2, 10**6):
        size = (size * step + size // step) // (step % 7 + 2) + size % step
        torch.zeros(size)


class Endless(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        while True:
            pass


def gradients(x: Tensor) -> None:
    Endless.apply(x)


def mapped(x: Tensor) -> None:
    torch.vmap(forever)(x)


def state() -> dict[str, Any]:
    for thread in set(threading.enumerate()) - OTHERS:  # one of another test may have been stopped for good
        if "verify" in thread.name:
            thread.join(60)
    return {
        "gradients": torch.is_grad_enabled(),
        "modes": (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
        "keys": (str(torch._C._dispatch_tls_local_include_set()), str(torch._C._dispatch_tls_local_exclude_set())),
        "random": torch.get_rng_state().tolist(),
        "streams": (sys.stdout, sys.stderr),
        "hooks": (sys.unraisablehook, threading.excepthook, sys.gettrace(), sys.getprofile()),
        "threads": set(threading.enumerate()) - OTHERS,
    }


OTHERS = set[threading.Thread]()
"""Threads that were there before a test: those of other tests may end at any time."""


@pytest.fixture(autouse=True)
def others_threads() -> None:
    OTHERS.clear()
    OTHERS.update(threading.enumerate())


@pytest.mark.parametrize(
    "work",
    [forever, operations, batches, calls, catches, sizes, gradients, mapped],
    ids=lambda each: each.__name__,
)
def test_what_never_ends_is_ended_and_leaves_all_as_it_was(work: Callable[[Tensor], None]):
    before = state()
    proof = verify(Does(work), seconds=0.3)
    assert proof.verdict == "not provable"
    assert state() == before


def test_a_call_that_cannot_be_interrupted_is_left_to_itself():
    waits, before = threading.Event(), state()
    proof = verify(Does(lambda _: waits.wait()), seconds=0.3)
    assert proof.verdict == "not provable"
    assert "time limit" in proof.message
    assert any("verify" in thread.name for thread in threading.enumerate())
    waits.set()
    assert state() == before
    assert verify(Does(lambda x: x + 1)).verdict == "proven"


def test_a_copy_that_never_ends_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["towers.contracts.proofs.verify"], "COPYING", 0.2)

    class Copied(Does):
        def __deepcopy__(self, memo: Any) -> Any:
            forever()

    with pytest.raises(ValueError, match="Copied: verify runs a copy, and copying took over"):
        verify(Copied(torch.relu), seconds=0.2)


def test_a_copy_that_takes_longer_than_the_limit_has_a_verdict():
    class Copied(Does):
        def __deepcopy__(self, memo: Any) -> Any:
            time.sleep(0.2)
            return Copied(self.work)

    proof = verify(Copied(torch.relu), seconds=0.1)
    assert proof.verdict == "not provable"
    assert "time limit" in proof.message


def test_a_failure_seen_before_the_time_was_over_stands():
    def work(x: Tensor) -> None:
        if not isinstance(x, FakeTensor):
            if x.shape[1] == 3:
                raise RuntimeError("three")
            if x.shape[1] > 4:
                forever()

    proof = verify(Does(work), seconds=2)
    assert proof.verdict == "failed"
    assert "three" in proof.message


def test_an_error_of_the_work_arrives():
    with pytest.raises(KeyError, match="mine"):
        within(60, lambda: {}["mine"])


def test_limits_stand_in_each_other():
    def outer() -> str:
        with pytest.raises(OutOfTime):
            within(0.01, forever)
        assert within(60, lambda: 3) == 3
        return "ended"

    assert within(60, outer) == "ended"


def test_what_the_work_swallows_is_sent_again():
    met = []

    def work() -> None:
        while len(met) < 3:
            try:
                forever()
            except OutOfTime as error:
                met.append(error)

    with suppress(OutOfTime):
        within(0.01, work)
    assert len(met) <= 3


def test_an_interruption_in_a_finalizer_is_not_told(capfd: pytest.CaptureFixture[str]):
    class Dropped:
        def __del__(self) -> None:
            for _ in range(10**5):
                pass

    def work() -> None:
        while True:
            Dropped()

    with pytest.raises(OutOfTime):
        within(0.01, work)
    assert capfd.readouterr() == ("", "")


def test_the_thread_has_the_modes_of_the_one_that_asks():
    word = ContextVar("word", default="")
    word.set("said")

    def seen() -> Any:
        return (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.zeros(1).device.type,
            word.get(),
            time_limit.root_thread(),
        )

    assert within(60, seen) == seen()
    with torch.no_grad(), torch.autocast("cpu", torch.float16), torch.device("meta"):
        assert within(60, seen) == seen()
    with torch.inference_mode():
        assert within(60, seen) == seen()


def test_abandoned_is_out_of_time():
    assert issubclass(Abandoned, OutOfTime)
    assert not issubclass(OutOfTime, Exception)


def test_it_computes_with_as_many_threads_as_torch_was_told():
    """More threads than free cores wait for each other, tens of times slower."""
    library = re.search(r"/\S*lib[gi]omp\S*", Path("/proc/self/maps").read_text()) if sys.platform == "linux" else None
    if library is None:
        pytest.skip("this torch does not compute with OpenMP, or says not where that is")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert within(60, lambda: ctypes.CDLL(library[0]).omp_get_max_threads()) == 3
    finally:
        torch.set_num_threads(threads)
