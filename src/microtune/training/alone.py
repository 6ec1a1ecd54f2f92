"""One run at a time in a folder: a second one is told which process is there.

The system holds the lock and gives it up when a process ends, in whatever way: what a killed run leaves behind is a
file that nobody holds, and the next run takes it over. Windows and some file systems have no such lock; there nothing
guards the folder.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from microtune.errors import TrainingError

if sys.platform != "win32":
    import fcntl

LOCK = ".running"
"""The file that is locked; it says who runs."""


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder that is there until the block ends. Raises TrainingError, naming the process that holds it."""
    if sys.platform == "win32":
        yield
        return
    path = folder / LOCK
    descriptor = _locked(path)
    try:
        who = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        os.ftruncate(descriptor, 0)
        os.write(descriptor, who.encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever opened it meanwhile finds that it is not the file
        os.close(descriptor)


def _locked(path: Path) -> int:
    """The file opened and locked. One that was removed between both is opened again."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise TrainingError(f"{path.parent} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BlockingIOError:
            who = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise TrainingError(
                f"{path.parent}: {who}, makes its steps there; wait until it ends, or take another folder"
            ) from None
        except OSError:  # a file system without locks
            return descriptor
        os.close(descriptor)
