"""C sources in; a shared library, an image of a core or a WebAssembly module out. The compiler is the same
everywhere.

The compiler is ``zig cc`` from the pip package ``ziglang``: one clang for every target, so that what is
compiled on a desk is what is compiled in CI. Objects and linked files are kept in a cache under the hash of
everything that made them (sources, headers, flags, compiler version), so nothing is compiled twice. The first
link for a target also builds the compiler's own support library (three to nine seconds, once per machine).
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata, util
from pathlib import Path

from elftools.elf.elffile import ELFFile

from microtune.errors import ToolchainError
from microtune.targets.catalogue import Target, target

# No contraction into fused multiply-add, no CPU of the day: the same bits on every target.
STANDARD = ("-std=c99", "-O2", "-ffp-contract=off", "-ffreestanding")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Wdouble-promotion")
# Small and free of surprises: zig would add debug information and its own run-time checks.
_PLAIN = (
    "-g0",
    "-fno-sanitize=undefined",
    "-fno-stack-protector",
    "-fomit-frame-pointer",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-ffunction-sections",
    "-fdata-sections",
)
# Of what type the functions are that are called through pointers, for stack.py: a section that takes no flash.
_CALL_TYPES = ("-Xclang", "-fexperimental-call-graph-section")
_SANITIZE = (
    "-std=c99",
    "-O1",
    "-g",
    "-ffp-contract=off",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-ftrivial-auto-var-init=pattern",  # what nobody set is no address and no sane number
    "-fno-sanitize-recover=all",
)

_ROOM = Path(__file__).parent / "targets"
_LINKER_SCRIPT = _ROOM / "core.ld"
_FREESTANDING = _ROOM / "freestanding"
_WASM_STACK = 64 * 1024
_SHOWN_DIAGNOSTICS = 10

Paths = Iterable[str | Path]


def compiler(override: str | None = None) -> tuple[str, ...]:
    """The compiler's command: zig's, or ``override`` such as ``"gcc"`` or ``"arm-none-eabi-gcc"``."""
    if override:
        parts = tuple(override.split())
        if shutil.which(parts[0]) is None:
            raise ToolchainError(f"compiler {parts[0]!r} is not on the PATH; leave it out to use ziglang from pip.")
        return parts
    found = util.find_spec("ziglang")
    if found is None or found.origin is None:
        raise ToolchainError("no C compiler: the Python package ziglang is missing. Install it: pip install ziglang")
    # the program itself: starting it through Python would cost more than compiling a small file
    return (str(Path(found.origin).parent / ("zig.exe" if os.name == "nt" else "zig")), "cc")


def compile_objects(
    sources: Paths,
    include: Paths = (),
    name: str | Target = "host",
    *,
    strict: bool = False,
    defines: Sequence[str] = (),
    cc: str | None = None,
) -> list[Path]:
    """Compile each source for a target and return the objects, in the order of the sources.

    The objects lie in the cache; do not change them. ``strict`` turns every warning of ``WARNINGS`` into an
    error. ``cc`` names another compiler, which must itself select the CPU: the target's zig flags are left
    out then.
    """
    chosen = target(name)
    if chosen.kind == "source" and cc is None:
        raise ToolchainError(f"target {chosen.name} is compiled by its vendor's tools; name a compiler with cc=.")
    flags = (
        *STANDARD,
        *_PLAIN,
        *WARNINGS,
        *(("-Werror",) if strict else ()),
        *(f"-D{define}" for define in defines),
    )
    if cc is None:
        flags = (*chosen.compile_flags, *flags, *(_CALL_TYPES if chosen.image else ()))
    if chosen.kind == "wasm":
        flags = (*flags, "-fvisibility=default")  # zig hides everything from a module's exports otherwise
    if chosen.kind in ("host", "library") and "windows" not in chosen.triple:
        flags = (*flags, "-fPIC")
    return _compile(compiler(cc), [Path(source) for source in sources], _include(include, chosen), flags)


def compile_library(
    sources: Paths,
    include: Paths,
    output: str | Path,
    *,
    name: str | Target = "host",
    sanitize: bool = False,
    strict: bool = False,
    defines: Sequence[str] = (),
    cc: str | None = None,
) -> Path:
    """Compile and link a shared library for the host or another Linux; every global function is exported.

    ``sanitize`` builds with the address and undefined-behaviour sanitizers of the system's compiler (zig
    ships no address sanitizer). To load that library into Python, start Python with
    ``LD_PRELOAD=sanitizer_runtime()``.
    """
    chosen = target(name)
    if chosen.kind not in ("host", "library"):
        raise ToolchainError(f"target {chosen.name} takes no shared library; use compile_image or compile_wasm.")
    if sanitize:
        command = compiler(cc or "gcc")
        flags = (*_SANITIZE, *WARNINGS, "-fPIC", *(f"-D{define}" for define in defines))
        objects = _compile(command, [Path(source) for source in sources], _include(include, chosen), flags)
        return _link(command, objects, ("-fsanitize=address,undefined", "-shared"), Path(output))
    objects = compile_objects(sources, include, chosen, strict=strict, defines=defines, cc=cc)
    flags = ("-shared", "-fno-sanitize=undefined") if cc is None else ("-shared",)
    if cc is None:
        # Only memcpy and memset come from outside, and every process has those: no libc to build stubs for.
        no_libc = ("-nostdlib",) if "linux" in chosen.triple else ()
        flags = (*chosen.compile_flags, *flags, *no_libc, "-O2")
    return _link(compiler(cc), objects, flags, Path(output))


def compile_program(
    sources: Paths,
    include: Paths,
    output: str | Path,
    *,
    sanitize: bool = False,
    defines: Sequence[str] = (),
    cc: str | None = None,
) -> Path:
    """Compile and link a program with a ``main`` for this machine, hosted: it may print. ``sanitize`` as
    above.
    """
    command = compiler(cc or ("gcc" if sanitize else None))
    flags: tuple[str, ...] = _SANITIZE if sanitize else tuple(flag for flag in STANDARD if flag != "-ffreestanding")
    selection = target("host").compile_flags if cc is None and not sanitize else ()
    flags = (*selection, *flags, *WARNINGS, *(f"-D{define}" for define in defines))
    objects = _compile(command, [Path(source) for source in sources], [Path(path) for path in include], flags)
    options = (*selection, *(("-fsanitize=address,undefined",) if sanitize else ("-O2",)))
    return _link(command, objects, options, Path(output))


def compile_image(
    sources: Paths,
    include: Paths,
    output: str | Path,
    name: str | Target,
    *,
    keep: Sequence[str] = (),
    strict: bool = False,
    defines: Sequence[str] = (),
) -> Path:
    """Compile and link an ELF image of a Cortex-M or RISC-V core. ``keep`` and the memory map: see ``link_image``."""
    objects = compile_objects(sources, include, name, strict=strict, defines=defines)
    return link_image(objects, output, name, keep=keep)


def link_image(
    objects: Sequence[str | Path], output: str | Path, name: str | Target, *, keep: Sequence[str] = ()
) -> Path:
    """Link an ELF for a core: code and constants from 0x08000000 (flash), data from 0x20000000 (RAM).

    ``keep`` names the functions to be called; what they do not reach is left out. Empty: every global
    function. There is no start-up code: the emulator loads ``.data`` and clears ``.bss`` itself.
    """
    chosen = target(name)
    if not chosen.image:
        raise ToolchainError(f"target {chosen.name} is no Cortex-M or RISC-V core; images are linked for those only.")
    roots = list(keep) or global_functions(objects)
    if not roots:
        raise ToolchainError("nothing to link: the objects define no global function.")
    return link_objects(objects, output, chosen, _LINKER_SCRIPT, roots)


def link_objects(
    objects: Sequence[str | Path], output: str | Path, name: str | Target, script: Path, keep: Sequence[str]
) -> Path:
    """Link an ELF for a core by a linker script of one's own; what ``keep`` does not reach is left out."""
    chosen = target(name)
    flags = (
        *chosen.compile_flags,
        f"-Wl,-T,{script}",
        "-Wl,--gc-sections",
        "-Wl,-z,max-page-size=4096",
        f"-Wl,-e,{keep[0]}",
        *(f"-Wl,-u,{symbol}" for symbol in keep),
    )
    return _link(compiler(), [Path(item) for item in objects], flags, Path(output), inputs=[script])


def compile_wasm(
    sources: Paths,
    include: Paths,
    output: str | Path,
    *,
    exports: Sequence[str] = (),
    strict: bool = False,
    defines: Sequence[str] = (),
) -> Path:
    """Compile and link a WebAssembly module without imports; it exports its memory and ``exports`` (empty:
    all).
    """
    chosen = target("wasm32")
    objects = compile_objects(sources, include, chosen, strict=strict, defines=defines)
    wanted = [f"-Wl,--export={symbol}" for symbol in exports] or ["-rdynamic"]
    flags = (
        *chosen.compile_flags,
        "-O2",
        "-Wl,--no-entry",
        "-Wl,--export=__heap_base",
        f"-Wl,-z,stack-size={_WASM_STACK}",
        "-Wl,--strip-debug",
        *wanted,
    )
    return _link(compiler(), objects, flags, Path(output))


def global_functions(objects: Iterable[str | Path]) -> list[str]:
    """Names of the global functions that ELF objects define, sorted."""
    names: set[str] = set()
    for path in objects:
        with Path(path).open("rb") as stream:
            table = ELFFile(stream).get_section_by_name(".symtab")
            for symbol in table.iter_symbols() if table else ():
                if (
                    symbol["st_info"]["type"] == "STT_FUNC"
                    and symbol["st_info"]["bind"] == "STB_GLOBAL"
                    and symbol["st_shndx"] != "SHN_UNDEF"
                ):
                    names.add(symbol.name)
    return sorted(names)


def sanitizer_runtime() -> str:
    """What ``LD_PRELOAD`` must be for a Python that loads a library built with ``sanitize=True``."""
    libraries = [
        subprocess.run(
            [*compiler("gcc"), f"-print-file-name={library}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for library in ("libasan.so", "libubsan.so")
    ]
    return " ".join(libraries)


def cache_directory() -> Path:
    """Where compiled files are kept: ``MICROTUNE_CACHE``, else the user's cache directory."""
    if chosen := os.environ.get("MICROTUNE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "microtune"


def _include(include: Paths, chosen: Target) -> list[Path]:
    directories = [Path(path) for path in include]
    return [*directories, _FREESTANDING] if chosen.image or chosen.kind == "wasm" else directories


def _compile(
    command: Sequence[str], sources: Sequence[Path], include: Sequence[Path], flags: Sequence[str]
) -> list[Path]:
    """One compiler process per source, as many at a time as there are processors."""
    for source in sources:
        if not source.is_file():
            raise ToolchainError(f"C source {source} does not exist.")
    options = [*flags, *(f"-I{path}" for path in include)]

    def compile_one(source: Path) -> Path:
        key = _key(
            [
                *_identity(command),
                *flags,
                source.name,
                str(source.parent.absolute()) if "-g" in flags else "",
            ],
            [source, *_headers(source, include)],
        )
        return _produce(key, ".o", [*command, *options, "-c", str(source)])

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(compile_one, sources))


def _link(
    command: Sequence[str],
    objects: Sequence[Path],
    flags: Sequence[str],
    output: Path,
    inputs: Sequence[Path] = (),
) -> Path:
    key = _key([*_identity(command), *flags], [*objects, *inputs])
    linked = _produce(key, output.suffix or ".bin", [*command, *(str(path) for path in objects), *flags])
    output.parent.mkdir(parents=True, exist_ok=True)
    # Replaced, never rewritten in place: an older copy may be loaded in this very process.
    with tempfile.TemporaryDirectory(dir=output.parent) as directory:
        fresh = Path(directory) / output.name
        shutil.copy(linked, fresh)
        fresh.replace(output)
    return output


def _produce(key: str, suffix: str, command: Sequence[str]) -> Path:
    """The file that ``command`` writes with ``-o``, from the cache if it was made before."""
    kept = cache_directory() / key[:2] / f"{key}{suffix}"
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
        fresh = Path(directory) / f"out{suffix}"
        result = subprocess.run([*command, "-o", str(fresh)], capture_output=True, text=True, check=False)
        if result.returncode != 0 or not fresh.exists():
            raise ToolchainError(_explain(command, result.stderr or result.stdout))
        fresh.replace(kept)  # atomic: two processes may make the same file at once
    return kept


def _key(words: Sequence[str], files: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join(words).encode())
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
        digest.update(path.name.encode() if path.suffix == ".h" else b"")
    return digest.hexdigest()


_INCLUDE = re.compile(rb"^[ \t]*#[ \t]*include\b[ \t]*(.*)", re.MULTILINE)
_HEADER = re.compile(rb"""["<]([^">]+)[">]""")


def _headers(source: Path, include: Sequence[Path]) -> list[Path]:
    """Every header that a source can reach through its includes, sorted; those of the compiler are left out.

    Neither conditions nor the order of the directories are evaluated: a header too many costs at worst a
    compilation too many. Where the name of a header is computed, it could be any of the directories.
    """
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        file = waiting.pop()
        directories = (file.parent, *include)
        for match in _INCLUDE.finditer(file.read_bytes()):
            written = _HEADER.match(match[1])
            if written is None:
                reached = [header for directory in directories for header in directory.glob("*.h")]
            else:
                paths = (directory / os.fsdecode(written[1]) for directory in directories)
                reached = [path for path in paths if path.is_file()]
            waiting += {*reached} - found
            found.update(reached)
    return sorted(found)


def _is_zig(command: Sequence[str]) -> bool:
    return Path(command[0]).stem == "zig"


@cache
def _identity(command: tuple[str, ...]) -> tuple[str, ...]:
    """What tells one compiler from another in the cache's key: its command and version."""
    if _is_zig(command):
        return ("zig cc", metadata.version("ziglang"))
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    return (*command, version.partition("\n")[0])


_DIAGNOSTIC = re.compile(r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):\d+: (?P<what>(fatal )?error: .*)$")


def _explain(command: Sequence[str], output: str) -> str:
    """The compiler's errors with file and line, without the rest of its talk."""
    errors = [
        f"  {match['file']}:{match['line']}: {match['what']}"
        for line in output.splitlines()
        if (match := _DIAGNOSTIC.match(line))
    ]
    if not errors:
        errors = [f"  {line}" for line in output.splitlines() if "error" in line or "undefined" in line]
    if not errors:
        errors = [f"  {line}" for line in output.splitlines()[-_SHOWN_DIAGNOSTICS:]]
    more = len(errors) - _SHOWN_DIAGNOSTICS
    shown = errors[:_SHOWN_DIAGNOSTICS] + ([f"  and {more} more"] if more > 0 else [])
    name = "zig cc" if _is_zig(command) else command[0]
    return "\n".join([f"the C compiler ({name}) refused:", *shown])
