"""Lines on standard error."""

import os
import sys


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
