"""Lines for people on standard error, and how they tell counts and times."""

import logging
import os
import sys
from collections.abc import Callable

from kron2sum_cli.errors import readable
from kron2sum_cli.settings import CommonSettings


def say(line: str) -> None:
    """Print a line on standard error; nothing happens where that is closed, or a file on a full disk."""
    if sys.stderr is not None:
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:
            silence(sys.stderr.fileno())


def silence(descriptor: int) -> None:
    """Turn a descriptor to ``/dev/null``, so that what is still buffered for it raises no error at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def count(number: float) -> str:
    """A number of things with thousands separators."""
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3 min 5 s, 2 h 7 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def status(done: int, total: int | None, unit: str, seconds: float) -> str:
    """How far a step is: count, share, speed and time left."""
    rate = done / seconds if seconds > 0 else 0.0
    speed = f"{count(rate)} {unit}/s" if rate >= 1 or not done else f"{duration(seconds / done)} each"
    if total is None:
        return f"{count(done)} {unit}, {speed}" if done else duration(seconds)
    share = f"{count(done)} of {count(total)} {unit} ({done / total if total else 1:.0%}), {speed}"
    return f"{share}, {duration((total - done) / rate)} left" if rate and done < total else share


class StderrHandler(logging.Handler):
    """Prints messages for people by its function ``say``; warnings say what they are."""

    def __init__(self, command: str, common: CommonSettings) -> None:
        super().__init__(logging.DEBUG if common.verbose else logging.WARNING if common.quiet else logging.INFO)
        self._command = command
        self.say: Callable[[str], None] = say

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        if getattr(record, "is_drawn", False):
            return
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{self._command}: {record.levelname.lower()}: {readable(text)}"
        else:
            text = readable(text, most=len(text))
        self.say(text)
