"""The process of ``kron2sum``, also started as ``python -m kron2sum_cli``."""

import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it; Ctrl-C while it is loaded ends the process with one line, too."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    # Imported here, since it takes most of the time until the command line handles signals by itself.
    from kron2sum_cli.cli import main as run

    run()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End at once: nothing has been begun that would have to be cleaned up."""
    try:
        os.write(2, b"kron2sum: interrupted\n")
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    main()
