"""How far a long run is, how fast it goes, and when it will end."""

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TextIO

EVERY = 30.0
"""Seconds between two lines, where standard error is no terminal."""


class Pace:
    """Says on standard error how many rows are done, a second, and when all will be: one line that is written over on a
    terminal, elsewhere a line now and then.

    Args:
        total: rows.
        done: rows that were done before.
        unit: what the rows are.
        stream: where it is written.
        clock: seconds.
        now: the time of day.
    """

    def __init__(
        self,
        total: int,
        done: int,
        unit: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.total, self.done, self.unit = total, done, unit
        self._stream = sys.stderr if stream is None else stream
        self._clock, self._now = clock, now
        self._over = self._stream.isatty()
        self._before, self._began = done, clock()
        self._said = self._began

    def add(self, rows: int) -> None:
        """Count rows that are done."""
        self.done += rows
        at = self._clock()
        if at - self._said >= (0.5 if self._over else EVERY):
            self._said = at
            line = self.line()
            self._stream.write(f"\r{line}\x1b[K" if self._over else line + "\n")
            self._stream.flush()

    def line(self) -> str:
        """For example: 1,200,000 of 10,000,000 pairs (12 %), 53,000 a second, ends at 19:42."""
        seconds = self._clock() - self._began
        rate = (self.done - self._before) / seconds if seconds > 0 else 0.0
        share = f"{self.done:,} of {self.total:,} {self.unit} ({100 * self.done // max(self.total, 1)} %)"
        if not rate:
            return share
        end = self._now() + timedelta(seconds=(self.total - self.done) / rate)
        day = "" if end.date() == self._now().date() else f"{end:%Y-%m-%d} "
        return f"{share}, {rate:,.{0 if rate >= 10 else 1}f} a second, ends at {day}{end:%H:%M}"

    def clear(self) -> None:
        """Remove the line that is written over."""
        if self._over:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
