"""Ctrl-C and termination: work files are removed, one line is printed, and the process ends soon."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from kron2sum_cli.cli.messages import say
from kron2sum_cli.files.outputs import discard_unfinished, resume_advice

GRACE_SECONDS = 0.6
"""How long the command may take to stop by itself (a matrix factorisation cannot be interrupted)."""

DESTRUCTOR_SECONDS = 0.02
"""A signal whose exception a destructor swallowed is raised again after this time."""

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "terminated (hung up)"}


class Stopped(KeyboardInterrupt):
    """The process was asked to stop by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS[signal.Signals(number)])
        self.exit_code = 128 + number


@contextmanager
def stopping_on_signals(command: str) -> Iterator[None]:
    """Raise `Stopped` in the main thread on SIGINT, SIGTERM and SIGHUP, and end the process if that fails.

    Python runs a handler only between two steps of the main thread, which may be in a long computation.
    A second thread learns of the signal at once, waits a moment, and if the block has not ended by then,
    removes the work files and ends the process, naming the command. Use it in a process of our own only.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(read_end, ended, command), daemon=True).start()
    former_wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    former = {number: signal.signal(number, _raise) for number in _WORDS if not _is_ignored(number)}
    former_hook, sys.unraisablehook = sys.unraisablehook, _raising_again(sys.unraisablehook)
    try:
        yield
    finally:
        ended.set()
        sys.unraisablehook = former_hook
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_wakeup)
        os.close(write_end)


def _is_ignored(number: int) -> bool:
    """Whether the caller asked us not to mind this signal (nohup, a background job)."""
    return signal.getsignal(number) == signal.SIG_IGN


def _raise(number: int, frame: FrameType | None) -> None:
    for other in _WORDS:  # a second signal must not disturb the cleaning up after the first
        if not _is_ignored(other):
            signal.signal(other, _mind_no_more)
    raise Stopped(number)


def _mind_no_more(number: int, frame: FrameType | None) -> None:
    """Do nothing: with SIG_IGN, Python would complain of a signal that came before and has not been handled yet."""


def _raising_again(otherwise: Callable[[Any], Any]) -> Callable[[Any], None]:
    """A hook for exceptions that Python cannot raise, as in a destructor, and prints: a signal's is raised after it."""

    def hook(unraisable: Any) -> None:
        stopped = unraisable.exc_value
        if not isinstance(stopped, Stopped):
            otherwise(unraisable)
            return
        number = signal.Signals(stopped.exit_code - 128)
        signal.signal(number, _raise)
        # From another thread and a moment later: within this hook it would be lost, too.
        threading.Timer(DESTRUCTOR_SECONDS, _thread.interrupt_main, (number,)).start()

    return hook


def _watch(read_end: int, ended: threading.Event, command: str) -> None:
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        while byte := pipe.read(1):
            if byte[0] in _WORDS and not ended.wait(GRACE_SECONDS):
                discard_unfinished()
                stopped = Stopped(byte[0])
                say("; ".join(filter(None, (f"{command}: {stopped}", resume_advice()))))
                os._exit(stopped.exit_code)
