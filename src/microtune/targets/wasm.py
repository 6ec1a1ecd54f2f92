"""Run a WebAssembly module under wasmtime, with the face of every other machine."""

from pathlib import Path

import wasmtime

from microtune.errors import EmulationError

_PAGE = 65536


class WasmMachine:
    """A ``Machine`` that is a WebAssembly module without imports; addresses are offsets in its memory."""

    pointer_size = 4

    def __init__(self, module: str | Path) -> None:
        engine = wasmtime.Engine()
        try:
            loaded = wasmtime.Module.from_file(engine, str(module))
            self._store = wasmtime.Store(engine)
            self._exports = wasmtime.Instance(self._store, loaded, []).exports(self._store)
        except (wasmtime.WasmtimeError, OSError) as error:
            raise EmulationError(f"cannot load the WebAssembly module {module}: {error}") from error
        memory, base = self._exports.get("memory"), self._exports.get("__heap_base")
        if not isinstance(memory, wasmtime.Memory) or not isinstance(base, wasmtime.Global):
            raise EmulationError(f"{module} exports no memory and __heap_base; build it with compile_wasm.")
        self._memory = memory
        self._heap = int(base.value(self._store))

    def call(self, symbol: str, *arguments: int) -> int:
        """See ``Machine``. A trap is an ``EmulationError``."""
        function = self._exports.get(symbol)
        if not isinstance(function, wasmtime.Func):
            known = ", ".join(sorted(name for name in self._exports if not name.startswith("__"))[:30])
            raise EmulationError(f"the module exports no function {symbol!r}. It exports: {known}.")
        try:
            result = function(self._store, *(_signed(argument) for argument in arguments))
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise EmulationError(f"wasm32: {symbol} was stopped: {reason}") from error
        return int(result or 0) & 0xFFFFFFFF

    def read(self, address: int, size: int) -> bytes:
        """See ``Machine``."""
        self._check(address, size)
        return bytes(self._memory.read(self._store, address, address + size))

    def write(self, address: int, data: bytes) -> None:
        """See ``Machine``."""
        self._check(address, len(data))
        self._memory.write(self._store, data, address)

    def allocate(self, size: int, align: int = 8) -> int:
        """See ``Machine``."""
        address = (self._heap + align - 1) // align * align
        missing = address + size - self._memory.data_len(self._store)
        if missing > 0:
            try:
                self._memory.grow(self._store, (missing + _PAGE - 1) // _PAGE)
            except wasmtime.WasmtimeError as error:
                raise EmulationError(f"out of WebAssembly memory: {size} bytes asked.") from error
        self._heap = address + size
        return address

    def _check(self, address: int, size: int) -> None:
        if address < 0 or address + size > self._memory.data_len(self._store):
            raise EmulationError(f"no memory at {address:#x}, {size} bytes.")


def _signed(value: int) -> int:
    """WebAssembly's integers are passed as signed ones."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value
