"""Lines on standard error."""

import os
import sys


def say(line: str) -> None:
    """Print a line on standard error, if anybody is there to read it, and it is no file on a full disk."""
    if sys.stderr is not None:
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:
            silence(sys.stderr.fileno())


def silence(descriptor: int) -> None:
    """Let what is still to be written to a pipe without a reader go nowhere, at exit too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
