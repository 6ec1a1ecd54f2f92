"""Must hold: the runtime and generated C compile without a warning under gcc and clang for every target, and as C++17
when included from C++. Compilers that are not installed are skipped."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import microtune as mt
from microtune.compiler.inference import emit_network
from microtune.compiler.sources import FIXED, copy_runtime, runtime_directory, write_sources
from microtune.frontends.builder import Builder
from microtune.ir import Graph, verify
from microtune.targets import target, targets
from microtune.targets.disassembly import undefined_symbols
from microtune.toolchain import STANDARD, WARNINGS, compile_objects, compiler

FREESTANDING = Path(mt.__file__).parent / "targets" / "freestanding"
FOREIGN = {"mt_cmsis_nn.h"}
"""Headers that need what is not here: CMSIS-NN's."""


@dataclass(frozen=True)
class Compiler:
    """A compiler for C and one for C++ with the flags that select a core; empty: zig's, for a target."""

    name: str
    c: str = ""
    cpp: str = ""
    target: str = "host"

    @property
    def thorough(self) -> bool:
        """Whether it is given the policy and storage too, which take long and warn of the same on every core of a
        compiler: one of 64 bits and one of 32. The others read what was generated and all headers, in which the
        kernels are."""
        return self.name in ("zig, host", "zig, riscv32", "gcc", "arm gcc, cortex-m0")


def _arm(core: str, *flags: str) -> Compiler:
    options = " ".join((f"-mcpu={core}", "-mthumb", *flags))
    return Compiler(f"arm gcc, {core}", f"arm-none-eabi-gcc {options}", f"arm-none-eabi-g++ {options}", core)


HARD = "-mfloat-abi=hard"
RISCV_GCC = "riscv gcc, rv32imc"
RISCV = "-march=rv32imc -mabi=ilp32"
COMPILERS = (
    *(Compiler(f"zig, {each.name}", target=each.name) for each in targets() if each.kind != "source"),
    Compiler("gcc", "gcc", "g++"),
    Compiler("clang", "clang", "clang++"),
    _arm("cortex-m0"),
    _arm("cortex-m3"),
    _arm("cortex-m4", "-mfpu=fpv4-sp-d16", HARD),
    _arm("cortex-m7", "-mfpu=fpv5-sp-d16", HARD),
    _arm("cortex-m33", "-mfpu=fpv5-sp-d16", HARD),
    _arm("cortex-m55", "-mfpu=auto", HARD),
    Compiler(RISCV_GCC, f"riscv64-unknown-elf-gcc {RISCV}", f"riscv64-unknown-elf-g++ {RISCV}", "riscv32"),
)
_OF_CPP = ("clang", "zig, cortex-m0", "arm gcc, cortex-m4", "arm gcc, cortex-m55", RISCV_GCC)
CPP = tuple(each for each in COMPILERS if each.thorough or each.name in _OF_CPP)


def _images() -> Graph:
    """A convolution, one by channel, a pool and a dense layer, for ten-by-ten images."""
    r = np.random.default_rng(0)
    b = Builder("images")

    def weight(name: str, *shape: int) -> str:
        return b.constant(name, r.normal(size=shape) / 3, "test")

    x = b.input("image", (10, 10, 1))
    same = {"stride": (1, 1), "padding": ((1, 1), (1, 1))}
    x = b.emit("conv2d", [x, weight("w1", 4, 3, 3, 1), weight("b1", 4)], "c1", "test", **same)
    x = b.emit("relu", [x], "r1", "test")
    x = b.emit("depthwise_conv2d", [x, weight("w2", 3, 3, 4), weight("b2", 4)], "c2", "test", **same)
    x = b.emit("relu6", [x], "r2", "test")
    x = b.emit("max_pool2d", [x], "pool", "test", kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)))
    x = b.reshape(x, (100,), "flat", "test")
    x = b.emit("dense", [x, weight("w3", 3, 100), weight("b3", 3)], "y", "test")
    return verify(b.finish(x, "test"))


def _eight() -> Graph:
    return mt.quantize(_images(), np.random.default_rng(0).normal(size=(40, 10, 10, 1)).astype(np.float32))


def _dense(sizes: Sequence[int]) -> Graph:
    r = np.random.default_rng(0)
    b = Builder("net")
    x = b.input("x", (sizes[0],))
    for i in range(1, len(sizes)):
        if i > 1:
            x = b.emit("relu", [x], f"a{i}", "test")
        weight = b.constant(f"w{i}", r.normal(size=(sizes[i], sizes[i - 1])), "test")
        x = b.emit("dense", [x, weight, b.constant(f"b{i}", r.normal(size=sizes[i]), "test")], f"h{i}", "test")
    return verify(b.finish(x, "test"))


def _plans() -> dict[str, mt.Plan]:
    """One of each kind, with whatever else a device can have."""
    full = mt.Learner(
        buffer=20, replay=10, profiles=2, recognise=True, contexts=(mt.Context(0, (0.0,)),), log=4, sensors=True,
        ewc=1.0, ewc_memory=1.0, pull=0.1, recency=5.0, slice=7, threshold=0.4, caution=0.1,
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    ranges = [mt.Input(f"feature {i}", -1, 1) for i in range(4)]
    some = mt.Learner(buffer=20)
    return {
        "gradient": mt.plan(
            _dense([4, 6, 3]), mt.Full(), "cross_entropy", mt.SGD(0.05, 0.9), full, inputs=ranges, calibration=x
        ),
        "pictures": mt.plan(_images(), mt.Full(), "cross_entropy", mt.Adam(), some),
        "bayes": mt.plan(_dense([4, 6, 1]), mt.Head(1), "mse", mt.Bayes(), mt.Learner(log=4), inputs=ranges),
        "closed": mt.plan(_dense([4, 6, 3]), mt.Head(1), "cross_entropy", mt.MAP(), some, calibration=x),
        "mixed": mt.plan(_eight(), mt.Full(), "cross_entropy", mt.SGD(0.05), some, precision="mixed"),
    }


@dataclass(frozen=True)
class Written:
    """A folder of C with one form of the runtime, and its public headers."""

    folder: Path
    sources: tuple[Path, ...]
    headers: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def generated(self) -> tuple[Path, ...]:
        """What is written anew for each package, and the file of all headers."""
        return tuple(path for path in self.sources if not path.name.startswith("mt_") and "_base" not in path.name)


def _everything(folder: Path, packages: Sequence[str], fixed: bool, others: Sequence[str] = ()) -> Written:
    """With a file that includes every header of the runtime and of the packages: kernels no package calls are read."""
    for path in runtime_directory().glob("mt_*.h"):
        if path.name not in FOREIGN and path.name not in FIXED.values() and not (folder / path.name).exists():
            source = path.with_name(FIXED.get(path.name, path.name)) if fixed else path
            shutil.copy(source, folder / path.name)
    headers = [path.name for path in sorted(folder.glob("mt_*.h"))] + [f"{name}.h" for name in (*packages, *others)]
    (folder / "all_headers.c").write_text("".join(f'#include "{name}"\n' for name in headers))
    return Written(folder, tuple(sorted(folder.glob("*.c"))), tuple(headers), tuple(packages))


def _integer_plans() -> dict[str, mt.Plan]:
    """The same for integers only."""
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    y = np.arange(200) % 3
    full = mt.Learner(buffer=20, replay=10, profiles=2, log=4, pull=0.1, slice=7, threshold=0.4, caution=0.1)
    dense, some = mt.quantize(_dense([4, 6, 3]), x), mt.Learner(buffer=20)
    return {
        "gradient": mt.plan(dense, mt.Full(), "cross_entropy", mt.SGD(0.05, 0.9), full, "int8"),
        "pictures": mt.plan(_eight(), mt.Full(), "cross_entropy", mt.SGD(0.05), some, "int8"),
        "closed": mt.plan(dense, mt.Head(1), "cross_entropy", mt.MAP(), some, "int8", calibration=(x, y)),
    }


@pytest.fixture(scope="module", params=["floats", "integers only"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Packages of every kind in one folder, so that each source of the runtime is compiled once."""
    folder = tmp_path_factory.mktemp("written")
    fixed = request.param == "integers only"
    plans = _integer_plans() if fixed else _plans()
    for name, plan in plans.items():
        write_sources(plan, name, folder)
    if fixed:
        return _everything(folder, list(plans), fixed)
    files = emit_network(_eight(), "only")
    for file, content in files.items():
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    copy_runtime(str(files["only.c"]) + str(files["only.h"]), folder)
    return _everything(folder, list(plans), fixed=False, others=["only"])


def _installed(command: str) -> str:
    if command and shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    return command


def _cpp(each: Compiler) -> list[str]:
    """The command of the C++ compiler, with its warnings as errors."""
    zig = [compiler()[0], "c++", *target(each.target).compile_flags, "-fno-sanitize=undefined", f"-I{FREESTANDING}"]
    return [*(_installed(each.cpp).split() or zig), "-std=c++17", *STANDARD[1:], *WARNINGS, "-Werror"]


def _passes(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("each", COMPILERS, ids=lambda each: each.name)
def test_compiles_without_a_warning(each: Compiler, written: Written) -> None:
    sources = written.sources if each.thorough else written.generated
    compile_objects(sources, [written.folder], each.target, strict=True, cc=_installed(each.c) or None)


@pytest.mark.parametrize("each", CPP, ids=lambda each: each.name)
def test_is_clean_when_a_cpp_program_includes_it(each: Compiler, written: Written, tmp_path: Path) -> None:
    """All headers at once; and the functions keep the names that the C objects give them."""
    verbs = [f"{name}_{verb}" for name in written.packages for verb in ("init", "predict", "observe", "idle")]
    source, made = tmp_path / "sketch.cpp", tmp_path / "sketch.o"
    calls = "".join(f"    (void (*)()){verb},\n" for verb in verbs)
    source.write_text(
        "".join(f'#include "{name}"\n' for name in written.headers)
        + f"extern void (*const sketch[])();\nvoid (*const sketch[])() = {{\n{calls}}};\n"
    )
    _passes([*_cpp(each), f"-I{written.folder}", "-c", str(source), "-o", str(made)])
    assert set(verbs) <= set(undefined_symbols(made))


@pytest.mark.parametrize(
    "each", [each for each in CPP if each.name in ("gcc", "arm gcc, cortex-m4")], ids=lambda each: each.name
)
def test_sources_may_be_renamed_to_cpp(each: Compiler, written: Written) -> None:
    """As some build systems do to all they are given."""
    files = [str(path) for path in written.sources]
    _passes([*_cpp(each), "-fsyntax-only", f"-I{written.folder}", "-x", "c++", *files])
