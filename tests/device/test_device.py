"""``Device``: the contract of the public API on a real package and a state file (SPEC C1, C8, C10, C11)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune as mt
from microtune.errors import DeviceError
from microtune.ops.evaluate import evaluate

Use = Callable[..., list[mt.Update]]
GOOD = [0.5, 1.0, 3.0]


def refused(device: mt.Device, call: Callable[[], Any], status: str) -> str:
    """The message of a refusal that has this status and leaves what was learnt as it was."""
    before = device.parameters(), device.status()
    with pytest.raises(DeviceError) as caught:
        call()
    assert caught.value.status == status
    after = device.parameters(), device.status()
    for name, values in before[0].items():
        np.testing.assert_array_equal(after[0][name], values)
    assert after[1] == before[1]
    return str(caught.value)


def test_predicts_what_the_model_says(package: mt.Package) -> None:
    from .conftest import make_plan

    device = mt.Device(package)
    plan = make_plan()
    for x in np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32):
        want = evaluate(plan.graph, {"x": x}, np.float64)[plan.graph.outputs[0]]
        found = device.predict(x)
        # 6 units with tanh: each value passes fewer than 32 roundings
        np.testing.assert_allclose(found.value, want, atol=32 * 2.0**-24 * 4)
        assert 0 <= found.confidence <= 1 and found.fallback is False


def test_counts_the_error_of_what_the_model_answers_by_now(package: mt.Package) -> None:
    """Suggested before an update, or before other parameters were loaded, and observed after it."""
    device, other = mt.Device(package), mt.Device(package)
    suggested = float(device.predict(GOOD).value[0])
    device.load_parameters({name: values + 0.5 for name, values in other.parameters().items()})
    device.observe([suggested])
    own = float(mt.Device(package).predict(GOOD).value[0])
    assert suggested == own and device.metrics().overrides == 0
    assert device.metrics().mean_error == pytest.approx(abs(float(device.predict(GOOD).value[0]) - own), rel=1e-5) != 0
    for _ in range(5):
        other.predict(GOOD)
        other.observe([suggested + 1])
    before = other.metrics().mean_error
    assert before == pytest.approx(1)
    other.predict(GOOD)
    assert other.idle().accepted
    other.observe([suggested + 1])
    learnt = abs(float(other.predict(GOOD).value[0]) - suggested - 1)
    assert learnt < 0.9 and other.metrics().mean_error == pytest.approx((5 * before + learnt) / 6)


def test_learns_its_person(package: mt.Package, use: Use) -> None:
    device = mt.Device(package)
    updates = use(device, 60)
    assert len(updates) == 12 and any(update.accepted for update in updates)
    assert updates[-1].loss_after < updates[-1].loss_before / 2
    # later ones may be no better than what is in use; that is good
    x = np.random.default_rng(1).uniform(-1, 1, (50, 3))
    errors = [
        [abs(one.predict(each).value[0] - (2 * each[0] + 1)) for each in x] for one in (device, mt.Device(package))
    ]
    assert np.mean(errors[0]) < np.mean(errors[1]) / 2
    status, metrics = device.status(), device.metrics()
    assert (status.uses, status.samples, status.waiting) == (60, 20, 0)
    assert (metrics.predictions, metrics.observations) == (110, 60)
    assert metrics.accepted + metrics.rolled_back == 12
    assert 0 <= status.learnt <= 1 and 0 <= status.sure <= 1


def test_comes_back_as_it_was_saved(package: mt.Package, use: Use, state: Path) -> None:
    device = mt.Device(package, state)
    assert device.status().origin == "base"
    use(device, 30)
    device.save()
    again = mt.Device(package, state)
    assert again.status().origin == "saved state"
    assert again.state() == device.state()
    assert again.metrics() == device.metrics()
    assert use(again, 30, seed=1) == use(device, 30, seed=1)
    assert again.state() == device.state()


def test_idle_saves_each_update(package: mt.Package, use: Use, state: Path) -> None:
    device = mt.Device(package, state)
    use(device, 5)
    assert mt.Device(package, state).state() == device.state()
    assert device.metrics().saves == 1


def test_the_status_tells_the_wear(package: mt.Package, state: Path) -> None:
    device = mt.Device(package, state)
    assert device.status().erases == 0
    for saves, erases in enumerate((1, 1, 2, 2, 3), start=1):
        device.save()
        assert (device.metrics().saves, device.status().erases) == (saves, erases)
    assert mt.Device(package, state).status().erases == 3
    assert mt.Device(package).status().erases == 0


def test_the_wear_counts_on_through_another_build(package: mt.Package, other: mt.Package, state: Path) -> None:
    device = mt.Device(package, state)
    for _ in range(5):
        device.save()
    newer = mt.Device(other, state)
    assert newer.status().origin == "saved state of another build"
    assert newer.metrics().saves == 5
    newer.save()
    assert newer.status().erases == 3
    assert mt.Device(package, state).state() == device.state()  # and the old build, put back, finds its own


def test_without_a_state_file_nothing_is_kept(package: mt.Package, use: Use) -> None:
    base = mt.Device(package).state()
    use(mt.Device(package), 10)
    assert mt.Device(package).state() == base


def test_a_step_is_one_gradient_step(package: mt.Package) -> None:
    device = mt.Device(package)
    before = device.parameters()
    output = float(device.predict(GOOD).value[0])
    loss = device.step(GOOD, [output + 1.0])
    assert loss == pytest.approx(1.0, rel=1e-5)
    # the gradient of the squared error by the bias is -2, the rate 0.1
    np.testing.assert_allclose(device.parameters()["b1"] - before["b1"], [0.2], rtol=1e-5)
    assert device.status().uses == 0


def test_parameters_go_out_and_in(package: mt.Package) -> None:
    device = mt.Device(package)
    values = device.parameters()
    assert {name: array.shape for name, array in values.items()} == {"w1": (1, 6), "b1": (1,)}
    device.load_parameters({"w1": np.zeros((1, 6)), "b1": [7.0]})
    assert device.predict(GOOD).value == pytest.approx([7.0])
    device.load_parameters(values)
    values["b1"][:] = 99  # copies: the device does not see this
    assert device.parameters()["b1"] != 99


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"w9": [0.0]}, "no parameter 'w9' learns here. Known: w1, b1"),
        ({"b1": [0.0], "w1": [1.0]}, r"parameter 'w1' takes finite values of shape \(1, 6\), not \(1,\)"),
        ({"w1": np.zeros((1, 6)), "b1": [np.nan]}, "takes finite values"),
    ],
)
def test_parameters_that_do_not_fit_change_nothing(package: mt.Package, values: Any, message: str) -> None:
    device = mt.Device(package)
    text = refused(device, lambda: device.load_parameters(values), "MT_INVALID_ARGUMENT")
    assert re.search(message, text)


@pytest.mark.parametrize(
    ("x", "status", "message"),
    [
        ([np.nan, 0, 0], "MT_INPUT_NOT_FINITE", "dial = nan"),
        ([0, 0, np.inf], "MT_INPUT_NOT_FINITE", "free = inf"),
        ([0, 0, -np.inf], "MT_INPUT_NOT_FINITE", "free = -inf"),
        ([0, 0, 1e39], "MT_INPUT_NOT_FINITE", "free = inf"),
        ([0, 2.5, 0], "MT_INPUT_OUT_OF_RANGE", "hour = 2.5, allowed -2 to 2"),
        ([-1.001, 0, 0], "MT_INPUT_OUT_OF_RANGE", "dial = -1.001, allowed -1 to 1"),
        ([0, 0], "MT_INVALID_ARGUMENT", "must have 3 values, not 2"),
        ([[0, 0, 0], [0, 0, 0]], "MT_INVALID_ARGUMENT", "must have 3 values, not 6"),
        (["a", 0, 0], "MT_INVALID_ARGUMENT", "must be numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_bad_inputs_are_refused(package: mt.Package, x: Any, status: str, message: str) -> None:
    device = mt.Device(package)
    assert message in refused(device, lambda: device.predict(x), status)
    assert message in refused(device, lambda: device.step(x, [0.0]), status)
    if status != "MT_INVALID_ARGUMENT":
        assert device.metrics().refused == 2
    device.predict([1.0, -2.0, 1e6])  # the ends of the ranges are inside


@pytest.mark.parametrize("y", [[np.nan], [np.inf], [-np.inf]])
def test_bad_targets_are_refused_and_the_prediction_waits_on(package: mt.Package, y: Any) -> None:
    device = mt.Device(package)
    device.predict(GOOD)
    assert f"value 0 is {y[0]:g}, and must be finite" in refused(device, lambda: device.observe(y), "MT_TARGET_INVALID")
    refused(device, lambda: device.step(GOOD, y), "MT_TARGET_INVALID")
    refused(device, lambda: device.observe([1.0, 2.0]), "MT_INVALID_ARGUMENT")
    device.observe([1.0])


@pytest.mark.parametrize("y", [-1, 4, 0.5, np.nan, np.inf])
def test_a_class_must_exist(classifier: mt.Package, y: float) -> None:
    device = mt.Device(classifier)
    found = device.predict(GOOD)
    assert found.value.sum() == pytest.approx(1, abs=1e-6) and found.confidence == pytest.approx(found.value.max())
    message = refused(device, lambda: device.observe(y), "MT_TARGET_INVALID")
    assert f"{y:g} is no class; they are 0 to 3" in message
    several = refused(device, lambda: device.observe([0, 1, 0, 0]), "MT_INVALID_ARGUMENT")
    assert "must have one class index, not 4" in several
    device.observe(3)


def test_an_observation_pairs_with_one_prediction(package: mt.Package) -> None:
    device = mt.Device(package)
    assert "call predict first" in refused(device, lambda: device.observe([1.0]), "MT_NO_PREDICTION")
    device.predict(GOOD)
    device.predict(GOOD)
    device.observe([1.0])
    refused(device, lambda: device.observe([1.0]), "MT_NO_PREDICTION")
    assert device.status().uses == 1


@pytest.mark.parametrize("forget", ["forget_last", "reset"])
def test_what_is_forgotten_is_in_no_older_state_either(package: mt.Package, use: Use, state: Path, forget: str) -> None:
    device, secret = mt.Device(package, state), np.float32(1.2345678)
    use(device, 20)
    device.predict([0.1, 0.2, 0.3])
    device.observe(secret)
    for _ in range(3):
        device.save()  # into every slot
    assert secret.tobytes() in state.read_bytes()
    if forget == "reset":
        device.reset()
    else:
        device.forget(last=1)
    assert secret.tobytes() not in state.read_bytes()


def test_forget_undoes_the_last_update_and_reset_everything(package: mt.Package, use: Use, state: Path) -> None:
    device = mt.Device(package, state)
    base = device.parameters()
    use(device, 20)
    for seed in range(3, 40):
        kept = device.parameters()
        if use(device, 5, seed=seed)[0].accepted:
            break
    assert not np.array_equal(device.parameters()["w1"], kept["w1"])
    device.forget()
    np.testing.assert_array_equal(device.parameters()["w1"], kept["w1"])
    assert device.status().waiting == 0 and device.metrics().forgets == 1
    device.reset()
    np.testing.assert_array_equal(device.parameters()["w1"], base["w1"])
    assert (device.status().uses, device.status().samples, device.metrics().resets) == (0, 0, 1)
    assert device.metrics().observations == 20 + 5 * (seed - 2)
    assert mt.Device(package, state).state() == device.state()


def damaged(content: bytes) -> dict[str, bytes]:
    """Ways a state file can be wrong."""
    return {
        "empty": b"",
        "cut to a byte": content[:1],
        "all zero": bytes(len(content)),
        "noise": np.random.default_rng(0).bytes(len(content)),
        "every tenth byte": bytes(byte ^ 0x55 if i % 10 == 0 else byte for i, byte in enumerate(content)),
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(300),
        "twice as long noise": np.random.default_rng(1).bytes(2 * len(content)),
    }


@pytest.mark.parametrize("kind", damaged(b"x" * 10))
def test_a_damaged_state_gives_the_base_model(package: mt.Package, use: Use, state: Path, kind: str) -> None:
    device = mt.Device(package, state)
    use(device, 20)
    state.write_bytes(damaged(state.read_bytes())[kind])
    again = mt.Device(package, state)
    base = mt.Device(package)
    for name, values in base.parameters().items():
        np.testing.assert_array_equal(again.parameters()[name], values)
    assert again.status().uses == 0
    assert again.status().origin.startswith("base")
    if kind in ("every tenth byte", "noise"):
        assert again.status().origin == "base: no whole state in the storage"
        assert again.metrics().recoveries == 1
    use(again, 10)
    assert mt.Device(package, state).status().uses == 10


def test_any_truncation_gives_a_whole_state_or_the_base(
    package: mt.Package, use: Use, state: Path, tmp_path: Path
) -> None:
    device = mt.Device(package, state)
    whole = {mt.Device(package).parameters()["w1"].tobytes()}
    for seed in range(4):
        use(device, 5, seed)
        whole.add(device.parameters()["w1"].tobytes())
    content = state.read_bytes()
    cut = tmp_path / "cut.state"
    for size in range(0, len(content), 37):
        cut.write_bytes(content[:size])
        assert mt.Device(package, cut).parameters()["w1"].tobytes() in whole


@pytest.mark.parametrize("smaller", [False, True])
def test_a_newer_build_of_the_same_model_takes_over_what_was_learnt(
    smaller: bool, package: mt.Package, newer: mt.Package, use: Use, state: Path
) -> None:
    package, newer = (newer, package) if smaller else (package, newer)
    assert (package.manifest["layout"]["saved"] > newer.manifest["layout"]["saved"]) == smaller
    older = mt.Device(package, state)
    use(older, 15)  # the third state, in the second slot
    device = mt.Device(newer, state)
    assert device.status().origin == "saved state of another build"
    for name, values in older.parameters().items():
        np.testing.assert_array_equal(device.parameters()[name], values)
    assert device.metrics() == older.metrics()
    assert device.status().samples == 0  # there is another place for them
    use(device, 10)
    assert mt.Device(newer, state).status().origin == "saved state"


def test_what_was_learnt_on_another_base_is_not_taken_over(
    package: mt.Package, other: mt.Package, use: Use, state: Path
) -> None:
    older = mt.Device(other, state)
    use(older, 20)
    device = mt.Device(package, state)
    for name, values in mt.Device(package).parameters().items():
        np.testing.assert_array_equal(device.parameters()[name], values)
    assert device.metrics() == older.metrics()


def test_a_directory_is_no_state_file(package: mt.Package, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be opened"):
        mt.Device(package, tmp_path)
