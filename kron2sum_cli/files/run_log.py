"""The record of one run: a log file with what was asked, done and counted, its times and its memory."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO

from kron2sum_cli._version import __version__
from kron2sum_cli.errors import Kron2SumError, OutputError, UsageError, readable
from kron2sum_cli.files.outputs import check_output, guard_inputs, is_stream, lock, output_error, same_file
from kron2sum_cli.resources import peak_memory_mib
from kron2sum_cli.settings import ExportSettings, FitSettings, ScanSettings

LOGGER = logging.getLogger("kron2sum")
"""The logger of the commands: modules of fit, scan and export log to its children, the command line prints them."""

_OUR_LOG = b"0000-00-00 00:00:00,000 DEBUG   kron0sum "
"""How a log begins, with every digit a 0."""
_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def default_log(out: str) -> str | None:
    """The log that belongs to an output: its name with ``.log``; none for standard output or a device."""
    return None if is_stream(out) else f"{out}.log"


@contextmanager
def recorded_run(command_line: str, settings: FitSettings | ScanSettings | ExportSettings) -> Iterator[None]:
    """Keep the log of what happens inside, `CommonSettings.log`, and refuse outputs that are inputs.

    Raises OutputError if the output or the log is also an input, or cannot be written; UsageError if the log is the
    output.
    """
    for path in settings.outputs:
        guard_inputs(path, settings.input_paths)
        check_output(path)
    if settings.common.log is None:
        yield
        return
    guard_inputs(settings.common.log, settings.input_paths)
    for path in settings.outputs:
        if not is_stream(path) and same_file(path, settings.common.log):
            raise UsageError(f"--log {settings.common.log}: is the output, too; choose another name for one of them")
    with _log_file(settings.common.log) as handler:
        started = time.perf_counter()
        LOGGER.debug("kron2sum %s", __version__)
        LOGGER.debug("Command: %s", command_line)
        LOGGER.debug("Settings: %r", settings)
        try:
            yield
        except BaseException as error:
            _record_failure(handler, error)
            raise
        finally:
            seconds = time.perf_counter() - started
            LOGGER.debug("Total time: %.2f s; peak memory: %.0f MiB", seconds, peak_memory_mib())


class _LogHandler(logging.Handler):
    """Writes to the log; a full disk is an error of the run, not a traceback between its lines."""

    def __init__(self, file: FileIO, path: str) -> None:
        super().__init__()
        self._file = file
        self._path = path
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + "\n"
        try:
            self._file.write(line.encode(errors="backslashreplace"))
        except OSError as error:
            raise output_error(self._path, error) from error


@contextmanager
def _log_file(path: str) -> Iterator[_LogHandler]:
    """Open the log and send the messages of the commands, and Python's warnings, to it."""
    listened = (LOGGER, logging.getLogger("py.warnings"))
    with _open_locked(path) as file:
        handler = _LogHandler(file, path)
        logging.captureWarnings(True)
        for logger in listened:
            logger.addHandler(handler)
        try:
            yield handler
        finally:
            for logger in listened:
                logger.removeHandler(handler)
            logging.captureWarnings(False)


def _open_locked(path: str) -> FileIO:
    """Open the log for writing; it is emptied only if it is a log that no other run is writing."""
    stream = is_stream(path)
    try:
        file = open(path, "ab" if stream else "a+b", buffering=0)  # noqa: SIM115 (handed on)
    except OSError as error:
        raise output_error(path, error) from error
    try:
        if not stream:
            lock(file.fileno(), path)
            file.seek(0)
            # A run that was killed, or found no room, may have written only a part of it.
            head = re.sub(rb"\d", b"0", file.read(len(_OUR_LOG)))
            if not _OUR_LOG.startswith(head):
                raise OutputError(f"{path}: is there and is not a log of kron2sum; choose another --log")
            file.truncate(0)
    except BaseException:
        file.close()
        raise
    return file


def _record_failure(handler: logging.Handler, error: BaseException) -> None:
    """Say in the log, and only there, how the run ended; the command line tells the user."""
    expected = isinstance(error, Kron2SumError | KeyboardInterrupt)
    trace = None if expected else (type(error), error, error.__traceback__)
    message = f"{type(error).__name__}: {readable(str(error))}"
    handler.emit(LOGGER.makeRecord(LOGGER.name, logging.ERROR, "", 0, message, (), trace))
