"""One face for everything that runs compiled C here: this host, an emulated core, WebAssembly.

A test or a tool written against ``Machine`` drives the same package on all of them and compares memory byte
for byte.
"""

import ctypes
from pathlib import Path
from typing import Protocol

from microtune.errors import EmulationError


class Machine(Protocol):
    """Runs functions of a compiled package.

    Arguments and results are integers or pointers of at most the pointer's width: floating-point numbers and
    structs go through memory, as in the whole C interface of a package.
    """

    pointer_size: int  # bytes: 4 or 8

    def call(self, symbol: str, *arguments: int) -> int:
        """Call a function and return its result as an unsigned 32-bit integer (no meaning for ``void``)."""
        ...

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the machine's memory."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Write bytes to the machine's memory."""
        ...

    def allocate(self, size: int, align: int = 8) -> int:
        """The address of ``size`` zeroed bytes for the caller, which stay as long as the machine does."""
        ...


class HostMachine:
    """A shared library in this process, through ctypes. A wrong address crashes the process, as in C."""

    pointer_size = ctypes.sizeof(ctypes.c_void_p)

    def __init__(self, library: str | Path) -> None:
        try:
            self._library = ctypes.CDLL(str(Path(library).absolute()))
        except OSError as error:
            raise EmulationError(f"cannot load {library}: {error}") from error
        self._buffers: list[ctypes.Array[ctypes.c_char]] = []

    def call(self, symbol: str, *arguments: int) -> int:
        """See ``Machine``."""
        try:
            function = self._library[symbol]
        except AttributeError as error:
            raise EmulationError(f"the library has no function {symbol!r}.") from error
        function.restype = ctypes.c_uint32
        return int(function(*(ctypes.c_void_p(argument) for argument in arguments)))

    def read(self, address: int, size: int) -> bytes:
        """See ``Machine``."""
        return ctypes.string_at(address, size)

    def write(self, address: int, data: bytes) -> None:
        """See ``Machine``."""
        ctypes.memmove(address, data, len(data))

    def allocate(self, size: int, align: int = 8) -> int:
        """See ``Machine``."""
        buffer = ctypes.create_string_buffer(size + align)
        self._buffers.append(buffer)
        return (ctypes.addressof(buffer) + align - 1) // align * align
