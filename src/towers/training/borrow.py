"""What training borrows from the process and restores: the model's device and modes, random state, signals, loggers."""

import logging
import signal
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from types import FrameType

import torch
from torch import nn

# Warnings of Lightning about the caller's own choices, or about Lightning itself.
_REMARKS = (
    "GPU available but not used",
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "You defined a `validation_step` but have no `val_dataloader`",
)

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM ended, as in shells."""

SMALL_BATCH = 32
"""Up to this number of pairs in a step, a second thread gains less than a tenth (two cores, about ten words)."""


@contextmanager
def borrowed(model: nn.Module) -> Generator[None]:
    """Restore the model's device, dtype and training modes at the end, and remove its gradients."""
    home = next(model.parameters())
    device, dtype = home.device, home.dtype
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        model.to(device=device, dtype=dtype)
        model.zero_grad(set_to_none=True)
        for module, training in modes.items():
            module.training = training


@contextmanager
def own_random_state(seed: int, device: torch.device) -> Generator[None]:
    """Seed what is random in a model (dropout), and restore torch's random state at the end."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        with torch.cuda.device(device) if on_cuda else nullcontext():  # Lightning changes the current device
            if on_cuda:
                torch.cuda.manual_seed(seed)
            yield


@contextmanager
def fitting_threads(batch_size: int) -> Generator[None]:
    """Use one thread for small batches: a second one gains almost nothing, and on a busy machine both would wait."""
    before = torch.get_num_threads()
    try:
        if batch_size <= SMALL_BATCH:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet(*loggers: str, level: int = logging.WARNING) -> Generator[None]:
    """Silence these loggers below a level."""
    before = {logger: logger.level for logger in map(logging.getLogger, loggers)}
    try:
        for logger in before:
            logger.setLevel(max(logger.level, level))
        yield
    finally:
        for logger, own in before.items():
            logger.setLevel(own)


@contextmanager
def quiet_lightning() -> Generator[None]:
    """Run Lightning without these warnings and without its signal handling.

    Lightning leaves Ctrl-C switched off after the first one, and ends with exit code 0 on SIGTERM.
    """
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        if handlers.get(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)  # Lightning calls the handler that it finds
        with quiet("lightning.pytorch", "lightning.fabric"), warnings.catch_warnings():
            for remark in _REMARKS:
                warnings.filterwarnings("ignore", remark, module=r"lightning\.")
            yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns the one into the other
            raise KeyboardInterrupt from None
        if (
            type(error).__name__ == "SIGTERMException"
        ):  # the caller's own handler returned, but Lightning ended the work
            raise SystemExit(TERMINATED) from None
        raise
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # None: it was not set from Python and cannot be restored
                signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


class Stop:
    """Notes Ctrl-C and SIGTERM; training ends at the next step, where the state can be saved.

    A second signal ends it at once. The caller's own handler for Ctrl-C is left alone.
    """

    def __init__(self) -> None:
        self.wanted = 0
        """The signal's number; 0 before a signal."""
        main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}

    def listen(self) -> None:
        """Note signals from now on. `quiet_lightning` restores the handlers."""
        for number, handler in self._before.items():
            default = handler is signal.default_int_handler if number == signal.SIGINT else callable(handler)
            if default:
                signal.signal(number, self._note)

    def act(self, number: int) -> None:
        """End as the signal asks.

        Raises:
            KeyboardInterrupt: it was Ctrl-C.
            SystemExit: it was SIGTERM; unless the caller's own handler raises something else.
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        handler = self._before.get(signal.Signals(number))
        if callable(handler):
            handler(number, None)
        raise SystemExit(TERMINATED)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            self.act(number)
        self.wanted = number
