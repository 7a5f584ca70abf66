"""Ctrl-C and SIGTERM while a model learns: noted at once, acted upon where everything is whole."""

import signal
import threading
from types import FrameType

from towers.training.borrow import TERMINATED


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
