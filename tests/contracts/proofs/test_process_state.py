"""What code sets for the whole process is after verify as it was before, or the verdict says that it is not."""

import gc
import locale
import logging
import os
import sys
import threading
from queue import SimpleQueue

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from towers.contracts import contract, verify
from towers.contracts.proofs.process_state import settings


class Sets(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    @contract
    def forward(self, x: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch 4"]:
        self.step(x)
        return x


def now():
    """Every setting, with a number for those of one name; of all loggers the root."""
    found = {(at, setting.name): setting.read() for at, setting in enumerate(settings())}
    return {key: value[logging.getLogger()] if key[1] == "logging" else value for key, value in found.items()}


def set_everything(folder):
    """Set all that there is to something else."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.autograd.set_detect_anomaly(True, check_nan=False)
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_warn_always(True)
    torch.set_printoptions(precision=2, sci_mode=True)
    for kernel in ("flash", "mem_efficient", "cudnn", "math"):
        getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(False)
    torch.backends.cudnn.enabled = torch.backends.cudnn.allow_tf32 = torch.backends.mkldnn.enabled = False
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True
    for kind in ("forward_pre_hook", "forward_hook", "full_backward_hook", "full_backward_pre_hook"):
        getattr(nn.modules.module, f"register_module_{kind}")(lambda *given: None)
    nn.modules.module.register_module_parameter_registration_hook(lambda *given: None)
    os.environ["TOWERS_TEST"] = "set"
    os.environ.pop("HOME", None)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv.append("--more")
    sys.setrecursionlimit(sys.getrecursionlimit() + 100)
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C")
    gc.disable()
    logging.disable(logging.CRITICAL)
    logging.getLogger().addHandler(logging.NullHandler())
    sys.excepthook = sys.displayhook = lambda *given: None


def test_every_setting_is_put_back(tmp_path):
    before, during = now(), SimpleQueue()  # of which verify knows nothing: it would be empty again

    def step(x):
        if during.empty():
            set_everything(tmp_path)
            during.put(now())

    assert verify(Sets(step))
    assert now() == before
    kept = during.get()
    same = {name for (at, name), value in before.items() if kept[at, name] == value}
    assert same <= {"the number of torch's threads", "hooks of all modules", "the precision of float32"}


def test_what_was_set_before_stays():
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert verify(Sets(lambda x: torch.set_float32_matmul_precision("highest")))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(precision)


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.fixture
def log():
    logger = logging.getLogger("program")
    logger.addHandler(Kept())
    yield logger
    logger.handlers.clear()


def test_no_record_with_names_of_symbols_is_logged(log):
    log.warning("before")
    assert verify(Sets(lambda x: log.warning("shape %s", tuple(x.shape))))
    log.warning("after")
    assert log.handlers[0].texts == ["before", "after"]


def test_another_thread_goes_on_logging(log):
    ready, logged = threading.Event(), threading.Event()

    def other():
        ready.wait()
        log.warning("from another thread")
        logged.set()

    thread = threading.Thread(target=other)
    thread.start()
    verify(Sets(lambda x: (ready.set(), logged.wait())))
    thread.join()
    assert log.handlers[0].texts == ["from another thread"]


def test_a_thread_that_goes_on_is_named():
    end = threading.Event()

    def start(x):
        threading.Thread(target=end.wait, name=f"poll-{threading.active_count()}", daemon=True).start()

    before = set(threading.enumerate())
    try:
        (told,) = [text for text in verify(Sets(start), seconds=1).assumptions if "whole process" in text]
    finally:
        end.set()
        for each in set(threading.enumerate()) - before:
            each.join()
    assert "the thread poll-" in told
