"""Outputs that appear whole or not at all.

A regular file is written under a work name beside it, `.NAME.kron2sum-work`, flushed to the disk and
renamed. The work file is locked while it is written: a second run with the same output is refused,
and the work file of a killed run, which nobody locks, is taken over.
"""

import errno
import fcntl
import io
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from kron2sum_cli.errors import OutputError

STDOUT = "-"
WORK_SUFFIX = ".kron2sum-work"

_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr)|(?:/dev/fd|/proc/self/fd)/(\d+)")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the system that say that a disk or a quota is full, or a file as large as it may be."""

_LOCKS_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

_unfinished: set[Path] = set()
"""Work files being written, and those of finished parts that have none yet, for `discard_unfinished` alone."""

_resumable: set[str] = set()
"""Finished parts of work under way, which stay when the process ends; for `resume_advice` alone."""


@contextmanager
def atomic_output(path: str) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when it is complete.

    ``-`` is standard output. Devices, pipes and ``/dev/stdout`` are written to directly, since nothing can be renamed
    there. Of a symbolic link the target is replaced. A file that is replaced hands its permissions on. When the block
    ends by any exception, what was written is removed. Raises OutputError if the folder is missing, the file is
    write-protected or being written by another run, or the device is full.
    """
    if path == STDOUT:
        yield from _to_stdout()
    elif is_stream(path):
        yield from _to_stream(path)
    else:
        yield from _to_file(path)


class Abandonable(io.RawIOBase):
    """A file to which nothing more is written once it is abandoned, or a write failed; closing it closes nothing.

    Libraries that write an end whenever their file is closed or destroyed cannot make it look complete.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.abandoned = False

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any) -> int:
        """Write to the file, or nowhere."""
        if not self.abandoned:
            try:
                self._file.write(data)
            except BaseException:
                self.abandoned = True
                raise
        return memoryview(data).nbytes


def is_stream(path: str) -> bool:
    """Whether a path is standard output, a device or a pipe: something without a name to rename to."""
    if path == STDOUT or _DESCRIPTOR.fullmatch(path):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def guard_inputs(out: str, inputs: Iterable[str]) -> None:
    """Refuse an output that would overwrite an input, also through links."""
    if is_stream(out):
        return
    for path in inputs:
        if path != STDOUT and same_file(out, path):
            raise OutputError(f"{out}: is also an input ({path}), which is never overwritten; choose another name")


def check_output(path: str) -> None:
    """Refuse, before anything is read, an output that is a folder, or in a folder where nothing can be written."""
    if is_stream(path):
        return
    with _errors_named(path):
        target = Path(os.path.realpath(path))
        _check_target(target, path)
        if not target.parent.is_dir():
            raise OSError(errno.ENOTDIR if target.parent.exists() else errno.ENOENT, "")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            read_only = os.statvfs(target.parent).f_flag & os.ST_RDONLY
            reason = errno.EROFS if read_only else errno.EACCES
            raise OSError(reason, os.strerror(reason))


def same_file(a: str, b: str) -> bool:
    """Whether two paths are one file, also through links."""
    with suppress(OSError):
        if os.path.samefile(a, b):
            return True
    return os.path.realpath(a) == os.path.realpath(b)


def lock(descriptor: int, path: str) -> None:
    """Take the lock of an open file, where the file system has locks.

    Raises OutputError if another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"{path}: another run is writing it now; wait for it to end or choose another name"
        raise OutputError(message) from error
    except OSError as error:
        if error.errno not in _LOCKS_UNSUPPORTED:
            raise


def open_locked(work: Path, out: str) -> int:
    """Open a work file of an output as it is, or a new one, and lock it.

    Raises OutputError if another process holds it; OSError if it cannot be opened.
    """
    while True:
        descriptor = os.open(work, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            lock(descriptor, out)
            # The run that held the lock may have renamed or removed the file in between: then it is no longer ours.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(work), os.fstat(descriptor)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def discard_unfinished() -> None:
    """Remove the work files of this process, before it ends without unwinding (a second signal)."""
    for work in list(_unfinished):
        work.unlink(missing_ok=True)


class FinishedWork:
    """A file of finished parts of the work under way, which stays when the process ends before the work is done."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.file, self.path = file, path

    @property
    def stays(self) -> bool:
        """Whether there are such parts."""
        return self.path in _resumable

    def keep(self) -> None:
        """Note that there are."""
        _resumable.add(self.path)
        _unfinished.discard(Path(self.path))

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Add `resume_advice` to what ends the block early, where going on later makes sense."""
        if not self.stays:
            _unfinished.add(Path(self.path))
        try:
            yield
        except (KeyboardInterrupt, OutputError, OSError, MemoryError) as error:
            if self.stays:
                error.add_note(resume_advice())
            raise
        finally:
            _resumable.discard(self.path)
            _unfinished.discard(Path(self.path))


@contextmanager
def work_beside(out: str, suffix: str) -> Iterator[FinishedWork | None]:
    """Open and lock the file ``.OUT`` and a suffix, which keeps finished parts of an output; None beside a stream.

    It is closed when the block ends. Raises OutputError where it cannot be opened, or another process holds it.
    """
    if is_stream(out):
        yield None
        return
    target = Path(os.path.realpath(out))
    path = target.with_name(f".{target.name}{suffix}")
    try:
        file = os.fdopen(open_locked(path, out), "r+b")
    except OSError as error:
        raise output_error(str(path), error) from error
    try:
        yield FinishedWork(file, str(path))
    finally:
        with suppress(OSError):  # what could not be flushed has failed already
            file.close()


def resume_advice() -> str:
    """What to say when the process ends now; nothing where no finished work stays."""
    return "the blocks finished so far are kept: run it again with --resume to go on" if _resumable else ""


def output_error(path: str, error: OSError) -> OutputError:
    """The message for a failure of the system to write `path`."""
    folder = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path) or "."
    if error.errno in NO_SPACE:
        reason = f"no space left to write it ({error.strerror}); free some or write elsewhere"
    elif error.errno == errno.ENOENT:
        reason = f"the folder {folder} does not exist; make it first"
    elif error.errno == errno.EROFS:
        reason = f"{folder} lies on a file system that can only be read; write elsewhere"
    elif error.errno in (errno.EACCES, errno.EPERM):
        reason = f"cannot be written ({error.strerror}); check the permissions of {folder}"
    elif error.errno == errno.ENAMETOOLONG:
        reason = "the name is too long for a file and its work file; choose a shorter one"
    elif error.errno == errno.EISDIR:
        reason = "is a folder; name a file in it"
    elif error.errno == errno.ENOTDIR:
        reason = f"{folder} is not a folder"
    else:
        reason = error.strerror or str(error)
    return OutputError(f"{path}: {reason}")


def _to_stdout() -> Iterator[BinaryIO]:
    if sys.stdout is None:
        raise OutputError("-: standard output is closed; redirect it to a file or use --out")
    with _errors_named("standard output"):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()


def _to_stream(path: str) -> Iterator[BinaryIO]:
    match = _DESCRIPTOR.fullmatch(path)
    with _errors_named(path):
        if match is None:
            target: str | int = path
        else:
            target = os.dup(_STANDARD[match[1]] if match[1] else int(match[2]))
        with open(target, "wb") as file:
            yield file


def _to_file(path: str) -> Iterator[BinaryIO]:
    target = Path(os.path.realpath(path))
    work = target.with_name(f".{target.name}{WORK_SUFFIX}")
    with _errors_named(path):
        _check_target(target, path)
        file = os.fdopen(open_locked(work, path), "wb")
        _unfinished.add(work)
        try:
            file.truncate(0)  # a killed run may have left something
            with suppress(OSError):  # there is no file yet, or the file system has no permissions
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))  # what was private stays so
            yield file
            _publish(file, work, target)
        except BaseException:
            work.unlink(missing_ok=True)
            raise
        finally:
            _unfinished.discard(work)
            with suppress(OSError):  # what could not be flushed has failed already, or is discarded
                file.close()


def _check_target(target: Path, path: str) -> None:
    if target.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{path}: is write-protected; choose another name or change its permissions")


def _publish(file: io.BufferedWriter, work: Path, target: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    os.replace(work, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems cannot flush a folder
            raise
    finally:
        os.close(folder)


@contextmanager
def _errors_named(path: str) -> Iterator[None]:
    """Turn errors of writing into messages; those of reading carry the name of their own file."""
    try:
        yield
    except OSError as error:
        about_output = error.filename is None or WORK_SUFFIX in str(error.filename) or error.filename == path
        if isinstance(error, BrokenPipeError) or not about_output:
            raise
        raise output_error(path, error) from error
