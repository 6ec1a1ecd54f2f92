"""Exports are built: by CMake and Make for real, by stand-ins of ESP-IDF and Zephyr, with the flags of Arduino's cores.
All with warnings as errors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from microtune import toolchain
from microtune.export.formats import DRIVERS

from .conftest import NAMES, Exported

STUBS = Path(__file__).parent / "stubs"
STRICT = "-Wall -Wextra -Wconversion -Wpedantic -Wdouble-promotion -Werror"
M4F = "-mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard"
# what a program takes that was compiled for another core is not its own machine's
BARE = {"arm-none-eabi": M4F, "riscv64-unknown-elf": "-march=rv32imc -mabi=ilp32"}


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [each for each in programs if shutil.which(each) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def cmake(source: Path, build: Path, *options: str, **environment: str) -> None:
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    run("cmake", *generator, "-S", source, "-B", build, *options, **environment)
    run("cmake", "--build", build, **environment)


def uses(output: str) -> tuple[int, int]:
    """Uses before this run; suggestions in it."""
    before = re.search(r"(\d+) uses so far", output)
    assert before is not None
    return int(before[1]), output.count("confidence")


@needs("make", "gcc")
@pytest.mark.parametrize("name", NAMES)
def test_make_builds_and_the_example_learns(exports: dict[str, Exported], name: str, tmp_path: Path) -> None:
    library = exports[name]["make"]
    run("make", "-C", library, "-s", "CC=gcc", f"CFLAGS=-O1 {STRICT}", f"BUILD={tmp_path}")
    example = tmp_path / f"{name}_example"
    first = run(example, "60", cwd=tmp_path)
    assert uses(first) == (0, 60) and "status" not in first and "learnt: kept" in first
    assert (tmp_path / f"{name}.flash").exists()
    again = run(example, "5", cwd=tmp_path)
    assert uses(again) == (60, 5) and "status" not in again
    if name in ("camera", "blinds"):
        # who always wants the same gets it in the end
        wanted = r"class [12]" if name == "camera" else r"0\.[5-9]\d\d confidence|1\.000 confidence"
        assert len(re.findall(wanted, again)) == 5
    if name == "blinds":
        # another driver, or none
        run("make", "-C", library, "-s", "CC=gcc", f"CFLAGS=-O1 {STRICT}", f"BUILD={tmp_path}", "FLASH=none")
        assert "goes with the power" in run(example, "3", cwd=tmp_path)
        run("make", "-C", library, "-s", "library", "CC=gcc", f"CFLAGS=-O1 {STRICT}", f"BUILD={tmp_path}", "FLASH=")
        assert "mt_flash_open" not in run("nm", tmp_path / "libblinds.a")


@needs("cmake")
def test_cmake_builds_installs_and_is_found(exports: dict[str, Exported], tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    cmake(exports["toaster"]["cmake"], tmp_path / "build", f"-DCMAKE_INSTALL_PREFIX={installed}",
          f"-DCMAKE_C_FLAGS={STRICT}")  # fmt: skip
    commands = run("grep", "-rh", "contract", tmp_path / "build", "--include=build.ninja", "--include=flags.make")
    assert "-ffp-contract=off" in commands and "-std=c99" in commands
    assert uses(run(tmp_path / "build" / "toaster_example", "3", cwd=tmp_path)) == (0, 3)
    run("cmake", "--install", tmp_path / "build")
    user = tmp_path / "user"
    user.mkdir()
    shutil.copy(exports["toaster"]["cmake"] / "example" / "main.c", user / "main.c")
    (user / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(user C)\nfind_package(toaster 1.0 REQUIRED)\n"
        "add_executable(user main.c)\ntarget_link_libraries(user PRIVATE toaster::flash toaster::toaster)\n"
    )
    cmake(user, tmp_path / "built", f"-DCMAKE_PREFIX_PATH={installed}")
    assert uses(run(tmp_path / "built" / "user", "2", cwd=tmp_path)) == (3, 2)


@pytest.mark.parametrize("triple", [pytest.param(each, marks=needs("cmake", f"{each}-gcc")) for each in BARE])
def test_cmake_builds_for_a_core(exports: dict[str, Exported], triple: str, tmp_path: Path) -> None:
    """The example is linked: nothing is missing."""
    library = exports["camera"]["cmake"]
    toolchain_file = library / "cmake" / f"{triple}.cmake"
    cmake(library, tmp_path, f"-DCMAKE_TOOLCHAIN_FILE={toolchain_file}", CFLAGS=STRICT)
    names = run(f"{triple}-nm", tmp_path / "camera_example")
    assert " T camera_predict" in names and " T mt_flash_open" in names
    assert "elf32" in run(f"{triple}-objdump", "-f", tmp_path / "camera_example")


@needs("make", "arm-none-eabi-gcc")
def test_integers_only_reach_into_the_example(exports: dict[str, Exported], tmp_path: Path) -> None:
    """On Cortex-M0 no floating-point routine is called for, by the package or its example."""
    library, core = exports["meter"]["make"], "-mcpu=cortex-m0 -mthumb"
    run("make", "-C", library, "-s", "library", f"{tmp_path}/example/main.o", "CC=arm-none-eabi-gcc",
        "AR=arm-none-eabi-ar", f"CPU={core}", f"CFLAGS=-Os {STRICT}", f"BUILD={tmp_path}", "FLASH=none")  # fmt: skip
    called = run("arm-none-eabi-nm", "-u", tmp_path / "libmeter.a", tmp_path / "example" / "main.o")
    assert "meter_predict" in called and not re.search(r"__aeabi_(?!u?idiv|u?ldiv|lmul|mem)\w+", called)


CHIPS = [each.name for each in DRIVERS if each.name in ("nrf52", "stm32f4_sector", "stm32l4_page")]


@needs("arm-none-eabi-gcc")
def test_drivers_of_chips_compile_without_warnings(exports: dict[str, Exported], tmp_path: Path) -> None:
    library = exports["toaster"]["cmake"]
    sources = [library / "flash" / f"{each}.c" for each in (*CHIPS, "rp2040", "none")]
    for core in (M4F, "-mcpu=cortex-m0plus -mthumb"):
        chosen = [each for each in sources if core == M4F or each.stem in ("rp2040", "nrf52", "none")]
        run("arm-none-eabi-gcc", *core.split(), "-std=c99", "-O2", *STRICT.split(), f"-I{library / 'include'}",
            f"-I{STUBS / 'pico'}", "-c", *chosen, cwd=tmp_path)  # fmt: skip


@needs("cmake", "gcc")
def test_zephyr_scripts_build_module_and_sample(exports: dict[str, Exported], tmp_path: Path) -> None:
    name = "toaster"
    sample = exports[name]["zephyr"] / "samples" / name
    options = [f"-DZephyr_DIR={STUBS / 'cmake'}", f"-DSTUBS={STUBS}", f"-DMODULE_NAME={name}"]
    cmake(sample, tmp_path, *options, f"-DCMAKE_C_FLAGS={STRICT}")
    members = run("ar", "t", next(tmp_path.rglob(f"lib{name}.a")))
    assert f"{name}.c.o" in members and "zephyr_flash_map.c.o" in members and "none.c.o" not in members
    assert "main.c.o" in run("ar", "t", tmp_path / "libapp.a")
    flags = run("grep", "-rhc", "ffp-contract=off", tmp_path, "--include=build.ninja", "--include=flags.make")
    assert sum(map(int, flags.split())) > 0


@needs("cmake", "gcc")
def test_esp_idf_scripts_build_component_and_project(exports: dict[str, Exported], tmp_path: Path) -> None:
    name = "camera"
    project = exports[name]["esp-idf"] / "examples" / name
    cmake(project, tmp_path, f"-DCMAKE_C_FLAGS={STRICT}", IDF_PATH=str(STUBS / "idf"))
    library = next(tmp_path.rglob("libesp-idf_component.a"))
    assert {f"{name}.c.o", "esp32_partition.c.o"} <= set(run("ar", "t", library).split())
    # the partition's label is Kconfig's
    assert b"microtune\0" in library.read_bytes()
    assert f"{name}_main.c.o" in run("ar", "t", next(tmp_path.rglob("libmain_component.a")))


@needs("arm-none-eabi-gcc")
@pytest.mark.parametrize("format", ["arduino", "platformio"])
def test_boards_sources_never_fuse(exports: dict[str, Exported], format: str, tmp_path: Path) -> None:
    """As Arduino's cores compile them: no flag of ours reaches them there, and PlatformIO brings one."""
    library = exports["blinds"][format]
    sources = sorted((library / "src").rglob("*.c"))
    include = library / ("src" if format == "arduino" else "include")
    ours = [] if format == "arduino" else ["-ffp-contract=off"]
    flags = [*M4F.split(), "-Os", "-std=gnu11", *STRICT.split(), "-ffunction-sections", "-fdata-sections"]
    boards = ["NRF52840_XXAA", "ARDUINO_ARCH_RP2040", "STM32F4xx", "STM32L4xx", "UNKNOWN", "ARDUINO_ARCH_MBED"]
    for board in boards:
        place = tmp_path / board
        place.mkdir()
        first = board == boards[0]
        chosen = [each for each in sources if each.parent.name == "flash" or (first and each.name == "blinds.c")]
        chip = ["-DNRF52840_XXAA"] if board == "ARDUINO_ARCH_MBED" else []
        run("arm-none-eabi-gcc", *flags, *ours, f"-D{board}", *chip, "-DARDUINO=10819", f"-I{include}",
            f"-I{STUBS / 'pico'}", f"-I{STUBS / 'mbed'}", "-c", *chosen, cwd=place)  # fmt: skip
        names = run("arm-none-eabi-nm", *sorted(place.glob("*.o")))
        assert names.count(" T mt_flash_open") == 1, f"one driver on each board, {board} too"
    code = run("arm-none-eabi-objdump", "-d", *sorted((tmp_path / "NRF52840_XXAA").glob("*.o")))
    fused = re.compile(r"\bvfn?m[as]\.f32")
    assert "vmul.f32" in code and not fused.search(code)
    if format == "arduino":
        # the pragma does it: without it the same compiler fuses
        bare = tmp_path / "bare"
        bare.mkdir()
        run("arm-none-eabi-gcc", *flags, "-DMT_EXACT_H", f"-I{include}", "-c", library / "src" / "blinds.c", cwd=bare)
        assert fused.search(run("arm-none-eabi-objdump", "-d", bare / "blinds.o"))


def sketch_as_cpp(library: Path, name: str, folder: Path) -> Path:
    """As Arduino's builder does it."""
    text = (library / "examples" / name / f"{name}.ino").read_text()
    (folder / f"{name}.ino.cpp").write_text(f"#include <Arduino.h>\n{text}")
    return folder / f"{name}.ino.cpp"


def compile_cpp(source: Path, include: Sequence[Path], output: Path) -> None:
    command = [*toolchain.compiler()[:-1], "c++", "-std=gnu++17", *STRICT.split(), "-Wno-unused-const-variable"]
    run(*command, *(f"-I{each}" for each in include), "-c", source, "-o", output)


@pytest.mark.parametrize("name", NAMES)
def test_sketches_compile_as_cpp(exports: dict[str, Exported], name: str, tmp_path: Path) -> None:
    library = exports[name]["arduino"]
    compile_cpp(sketch_as_cpp(library, name, tmp_path), [library / "src", STUBS / "arduino"], tmp_path / "sketch.o")


def test_platformio_example_compiles_as_cpp(exports: dict[str, Exported], tmp_path: Path) -> None:
    library = exports["toaster"]["platformio"]
    main = library / "examples" / "toaster" / "src" / "main.cpp"
    compile_cpp(main, [library / "include", STUBS / "arduino"], tmp_path / "main.o")
