"""The same firmware boots on a board of another emulator: same state, same answers, and the same instruction counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor

import microtune as mt
from microtune.targets import qemu, target
from microtune.targets.measure import random_uses
from microtune.targets.report import report

needs_qemu = pytest.mark.skipif(not qemu.available(), reason=f"{qemu.PROGRAM} is not on the PATH")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> mt.Package:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype(np.float32)
    base = MLPRegressor(hidden_layer_sizes=[4], max_iter=5, random_state=0).fit(x, x[:, 0])
    plan = mt.plan(mt.load(base), mt.Full(), optimizer=mt.Adam(lr=0.01), learner=mt.Learner(buffer=8, every=4, folds=2))
    return mt.build(plan, tmp_path_factory.mktemp("qemu") / "lamp", targets=["cortex-m0"])


@needs_qemu
@pytest.mark.parametrize("core", sorted(qemu.BOARDS))
def test_a_board_boots_to_the_same_state_and_counts(package: mt.Package, core: str) -> None:
    uses = random_uses(package, 16)
    found = qemu.boot(package, core, uses)
    known = qemu.lived(package, core if target(core).emulated else "cortex-m4", uses)
    assert (found.state, found.answers) == (known.state, known.answers)
    if target(core).emulated:
        for have, want in ((found.predict, known.predict), (found.observe, known.observe), (found.idle, known.idle)):
            # what the call itself takes, one tick, and the share of a tick in the loop that ticks are measured by
            assert want <= have <= want + 20 + 1e-5 * want
    else:
        assert found.predict < known.predict * 1.5 and found.idle > found.predict


@needs_qemu
def test_a_core_of_qemu_alone_is_reported(package: mt.Package) -> None:
    found = report(package, "cortex-m55", random_uses(package, 16))
    assert [each.machine for each in found.boots] == ["mps3-an547"] and found.cost is None
    assert 0 < found.stack.worst_bound < found.ram and not found.stack.measured


@needs_qemu
def test_a_device_too_large_for_the_board_is_refused(package: mt.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    ram = int(package.manifest["memory"]["ram"])
    monkeypatch.setitem(qemu.BOARDS, "cortex-m0", replace(qemu.BOARDS["cortex-m0"], ram=(0x20000000, ram - 3)))
    with pytest.raises(mt.EmulationError, match=rf"takes {ram} bytes of RAM; microbit.* \(3 too many\)"):
        qemu.boot(package, "cortex-m0", random_uses(package, 4))


@needs_qemu
def test_a_core_without_a_board_says_which_have_one(package: mt.Package) -> None:
    with pytest.raises(mt.EmulationError, match=r"core of riscv32.*cortex-m33"):
        qemu.boot(package, "riscv32", random_uses(package, 4))


def test_without_qemu_it_says_what_is_missing(package: mt.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu.shutil, "which", lambda _: None)
    with pytest.raises(mt.EmulationError, match="qemu-system-arm is not on the PATH"):
        report(package, "cortex-m4", random_uses(package, 16), qemu=True)
