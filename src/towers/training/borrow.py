"""What training takes from the process and gives back: the model's place, random state, signals, others' loggers."""

import logging
import signal
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from types import FrameType

import torch
from torch import nn

# Lightning's own remarks about the machine and about itself: what they say is the caller's choice, or not his to mend.
_REMARKS = (
    "GPU available but not used",
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "You defined a `validation_step` but have no `val_dataloader`",
)

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that was asked to end, as shells count."""

SMALL_BATCH = 32
"""Pairs of a step up to which a second thread gives less than a tenth (two cores, sentences of some ten words)."""


@contextmanager
def borrowed(model: nn.Module) -> Generator[None]:
    """Give the model back on the device, in the dtype and in the modes in which it came, without gradients."""
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
    """Let what is random in a model (dropout) start from the seed, and put torch's random state back at the end."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        with torch.cuda.device(device) if on_cuda else nullcontext():  # Lightning changes the current device
            if on_cuda:
                torch.cuda.manual_seed(seed)
            yield


@contextmanager
def fitting_threads(batch_size: int) -> Generator[None]:
    """Compute small batches by one thread: a second gives next to nothing, and on a busy machine both wait for long."""
    before = torch.get_num_threads()
    try:
        if batch_size <= SMALL_BATCH:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet(*loggers: str, level: int = logging.WARNING) -> Generator[None]:
    """Let these loggers say nothing below a level."""
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
    """Run Lightning without its remarks and without its ideas of signals.

    It leaves Ctrl-C switched off once it was pressed, and ends with exit code 0 on SIGTERM.
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
        if type(error).__name__ == "SIGTERMException":  # the caller's own handler let the work go on; Lightning did not
            raise SystemExit(TERMINATED) from None
        raise
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # None: it was not set from Python, and cannot be
                signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


class Stop:
    """The wish to end that a signal brought. A second signal does at once what it would have done without this.

    A handler of the caller's own for Ctrl-C is left alone.
    """

    def __init__(self) -> None:
        self.wanted = 0
        """The signal's number; 0 as long as none came."""
        main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}

    def listen(self) -> None:
        """Note signals from now on. Whoever began the work puts the handlers back."""
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
