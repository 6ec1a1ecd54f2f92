"""The compiler's face: what it refuses and how it says so, the cache, and the flags that keep bits and rules."""

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from microtune import toolchain
from microtune.errors import ToolchainError
from microtune.targets import targets
from microtune.targets.frames_thumb import instructions
from microtune.targets.image import read_image
from microtune.toolchain import compile_image, compile_library, compile_objects, compile_program, compile_wasm


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", [item.name for item in targets() if item.kind in ("host", "library")])
def test_libraries_are_built_for_every_linux(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "add.c", "int add(int a, int b);\nint add(int a, int b) { return a + b; }\n")
    library = compile_library([source], [], tmp_path / "lib" / "add.so", name=name, strict=True)
    assert library.read_bytes()[:4] in (b"\x7fELF", b"\xcf\xfa\xed\xfe") or library.suffix == ".dll"
    if name == "host":
        assert ctypes.CDLL(str(library)).add(2, 3) == 5


def test_error_shows_file_and_line_without_noise(tmp_path: Path) -> None:
    source = write(tmp_path / "bad.c", "int f(void);\nint f(void) { return missing; }\n")
    with pytest.raises(ToolchainError, match=r"bad\.c:2: error: .*missing") as caught:
        compile_objects([source])
    assert len(str(caught.value).splitlines()) == 2


def test_unresolved_symbol_and_missing_source_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "lost.c", "int lost(int x);\nint f(int x);\nint f(int x) { return lost(x); }\n")
    with pytest.raises(ToolchainError, match="lost"):
        compile_image([source], [], tmp_path / "lost.elf", "cortex-m4")
    with pytest.raises(ToolchainError, match="lost"):
        compile_wasm([source], [], tmp_path / "lost.wasm")
    with pytest.raises(ToolchainError, match=r"nowhere\.c does not exist"):
        compile_objects([tmp_path / "nowhere.c"])


@pytest.mark.parametrize(
    "text",
    [
        "long long f(int x) { return x; }\nvoid g(unsigned char *p, int x) { *p = x; }\n",
        "float f(float x) { return x * 2.0; }\n",
    ],
    ids=["conversion", "double"],
)
def test_strict_refuses_what_plain_accepts(tmp_path: Path, text: str) -> None:
    source = write(tmp_path / "loose.c", text)
    compile_objects([source])
    with pytest.raises(ToolchainError, match=r"conversion|double-promotion"):
        compile_objects([source], strict=True)


def test_nothing_is_compiled_twice_and_a_changed_header_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROTUNE_CACHE", str(tmp_path / "cache"))
    header = write(tmp_path / "value.h", "#define VALUE 1\n")
    source = write(tmp_path / "value.c", '#include "value.h"\nint value(void);\nint value(void) { return VALUE; }\n')
    runs = []
    run = subprocess.run

    def counted(*arguments: Any, **options: Any) -> Any:
        runs.append(arguments)
        return run(*arguments, **options)

    monkeypatch.setattr(toolchain.subprocess, "run", counted)
    first = compile_library([source], [], tmp_path / "one.so")
    assert ctypes.CDLL(str(first)).value() == 1 and len(runs) == 2
    compile_library([source], [], tmp_path / "two.so")
    assert len(runs) == 2
    header.write_text("#define VALUE 2\n")
    assert ctypes.CDLL(str(compile_library([source], [], tmp_path / "three.so"))).value() == 2


def test_only_what_a_source_reaches_makes_it_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers of headers, in angle brackets, by a computed name, one that now stands before another; no others."""
    monkeypatch.setenv("MICROTUNE_CACHE", str(tmp_path / "cache"))
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir(), far.mkdir()
    write(far / "inner.h", "#define INNER 1\n")
    write(far / "outer.h", "#  include <inner.h>\n")
    write(far / "quoted.h", "#define QUOTED 10\n")
    plain = write(near / "plain.c", "int plain;\n")
    deep = write(near / "deep.c", '#include "outer.h"\n#include "quoted.h"\nint deep = INNER + QUOTED;\n')
    computed = write(near / "computed.c", '#define FILE_NAME "inner.h"\n#include FILE_NAME\nint computed = INNER;\n')

    def objects() -> list[Path]:
        return compile_objects([plain, deep, computed], [far])

    def changed() -> list[str]:
        nonlocal before
        after = objects()
        pairs, before = zip(("plain", "deep", "computed"), before, after, strict=True), after
        return [name for name, old, new in pairs if old != new]

    before = objects()
    write(near / "stranger.txt", "")
    assert changed() == []
    write(far / "inner.h", "#define INNER 2\n")
    assert changed() == ["deep", "computed"]
    write(far / "unrelated.h", "#define UNRELATED\n")
    assert changed() == ["computed"]  # its header could be any
    write(near / "quoted.h", "#define QUOTED 20\n")
    assert changed() == ["deep", "computed"]


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_no_fused_multiply_add_even_where_the_core_has_one(tmp_path: Path, name: str) -> None:
    source = write(
        tmp_path / "fused.c",
        "float f(float a, float b, float c);\nfloat f(float a, float b, float c) { return a * b + c; }\n",
    )
    image = read_image(compile_image([source], [], tmp_path / "fused.elf", name))
    mnemonics = {item.mnemonic for item in instructions(image, image.symbol("f"))}
    # vmla rounds the product before it adds (unlike vfma), so it gives the same bits as vmul and vadd.
    assert mnemonics & {"vmul.f32", "vmla.f32"} and not any(word.startswith(("vfm", "vfnm")) for word in mnemonics)


def test_missing_compiler_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.util, "find_spec", lambda _: None)
    with pytest.raises(ToolchainError, match="pip install ziglang"):
        toolchain.compiler()
    with pytest.raises(ToolchainError, match="no-such-cc"):
        toolchain.compiler("no-such-cc")


@pytest.mark.skipif(toolchain.shutil.which("gcc") is None, reason="the sanitizers are the system compiler's")
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("return a + 2147483647;", "signed integer overflow"),
        ("int m[4] = {0}; return m[a + 3];", "out of bounds|overflow"),
    ],
)
def test_sanitized_program_stops_at_the_fault(tmp_path: Path, body: str, complaint: str) -> None:
    source = write(
        tmp_path / "fault.c",
        f"static int f(volatile int a) {{ {body} }}\n"
        "int main(int argc, char **argv) { (void)argv; return f(argc); }\n",
    )
    program = compile_program([source], [], tmp_path / "fault", sanitize=True)
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode != 0 and re.search(complaint, result.stderr)
