"""The learner's policy on small hand-written devices: what is refused, learnt, rolled back, undone and kept."""

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microtune.toolchain
from microtune.targets import targets
from microtune.toolchain import compile_library, compile_objects, compile_program

HERE = Path(__file__).parent
RUNTIME = Path(microtune.toolchain.__file__).parent / "runtime"
SOURCES = [RUNTIME / f"mt_{name}.c" for name in ("store", "gradient", "learner")]
OK, INVALID, NOT_FINITE, OUT_OF_RANGE, BAD_TARGET, NO_PREDICTION, STORAGE_FAILED = range(7)
CORRUPT, FOREIGN = 7, 8
REGRESSION, BINARY, MULTICLASS = range(3)
OUTPUTS = {REGRESSION: 1, BINARY: 2, MULTICLASS: 3}


def structure(name: str, **fields: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


U8, U16, U32, F32, POINTER = (
    ctypes.c_uint8,
    ctypes.c_uint16,
    ctypes.c_uint32,
    ctypes.c_float,
    ctypes.c_void_p,
)
COUNTS = "predictions fallbacks observations overrides refused accepted rolled_back forgets resets saves recoveries"
Metrics = structure("Metrics", **dict.fromkeys(COUNTS.split(), U32), mean_error=F32)
State = structure(
    "State", random=U32, **dict.fromkeys(["count", "next", "fresh", "undo", "since", "reserved"], U16),
    uses=U32, hits=U32, recent=U32, confidence=F32, error=F32, metrics=Metrics,
)  # fmt: skip
Saved = structure(
    "Saved", state=State, parameters=F32 * 12, previous=F32 * 12, optimizer=F32 * 12, samples=F32 * 100
)
Ram = structure(
    "Ram", saved=Saved, sequence=U32, pending_cut=F32 * 3, pending_output=F32 * 3, candidate=F32 * 12,
    candidate_optimizer=F32 * 12, output=F32 * 3, pending=U8,
)  # fmt: skip
Model = structure(
    "Model", rule=POINTER, identity=U32, task=ctypes.c_int,
    **dict.fromkeys(["inputs", "cut", "outputs", "targets", "parameters", "optimizer"], U16),
    **dict.fromkeys(["base", "low", "high", "target_low", "target_high", "backbone", "head", "loss", "step", "begin"], POINTER),
)  # fmt: skip
Settings = structure(
    "Settings", **dict.fromkeys(["buffer", "every", "epochs", "folds"], U16), restart=U8, sequential=U8,
    pull=F32, tolerance=F32, threshold=F32, fallback=POINTER,
)  # fmt: skip
Port = structure("Port", context=POINTER, read=POINTER, write=POINTER, erase=POINTER, size=U32, sector=U32)
Little = structure(
    "Little", ram=Ram, model=Model, settings=Settings, port=Port, has_port=U32, broken=U32,
    fallback=F32 * 3, storage=U8 * 8192,
)  # fmt: skip
Prediction = structure("Prediction", confidence=F32, fallback=U8, best=U16)
Update = structure("Update", ran=U8, accepted=U8, loss_before=F32, loss_after=F32, steps=U32)
Report = structure("Report", learnt=F32, sure=F32, uses=U32, samples=U16, waiting=U16)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    output = tmp_path_factory.mktemp("learner") / "little.so"
    built = ctypes.CDLL(
        str(compile_library([*SOURCES, HERE / "little_device.c"], [RUNTIME], output, strict=True))
    )
    assert built.little_size() == ctypes.sizeof(Little)
    return built


class Device:
    """A little device with a port over memory."""

    def __init__(self, library: ctypes.CDLL, task: int = REGRESSION, **chosen: float) -> None:
        self.library, self.task, self.little = library, task, Little()
        library.little_create(ctypes.byref(self.little), task, 1)
        for name, value in chosen.items():
            setattr(self.little.settings, name, value)
        assert self.call("init") == OK

    def call(self, name: str, *arguments: Any) -> int:
        return int(self.library[f"little_{name}"](ctypes.byref(self.little), *arguments))

    def predict(self, x: Sequence[float]) -> tuple[int, list[float], Any]:
        output, prediction = (F32 * 3)(), Prediction()
        status = self.call("predict", (F32 * 3)(*x), output, ctypes.byref(prediction))
        return status, list(output)[: OUTPUTS[self.task]], prediction

    def observe(self, *y: float) -> int:
        return self.call("observe", (F32 * 3)(*y))

    def idle(self, expected: int = OK) -> Any:
        update = Update()
        assert self.call("idle", ctypes.byref(update)) == expected
        return update

    def use(self, x: Sequence[float], *y: float) -> Any:
        assert self.predict(x)[0] == OK
        assert self.observe(*y) == OK
        return self.idle()

    @property
    def state(self) -> Any:
        return self.little.ram.saved.state

    @property
    def metrics(self) -> Any:
        return self.state.metrics

    @property
    def parameters(self) -> list[float]:
        return list(self.little.ram.saved.parameters)[: self.little.model.parameters]

    def memory(self) -> bytes:
        """All RAM but the count of refusals."""
        kept = Ram.from_buffer_copy(self.little.ram)
        kept.saved.state.metrics.refused = 0
        return bytes(kept)

    def report(self) -> Any:
        report = Report()
        self.call("report", ctypes.byref(report))
        return report


def life(seed: int, uses: int, offset: float = 1.0, noise: float = 0.05) -> list[tuple[list[float], float]]:
    """Contexts and what a person sets: the base plus an offset that depends on the first input."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1, 1, (uses, 3))
    y = (
        x @ [0.5, -0.25, 0.125]
        + 0.25
        + offset * (1 + 0.5 * x[:, 0])
        + noise * generator.standard_normal(uses)
    )
    return [(list(map(float, row)), float(value)) for row, value in zip(x, y, strict=True)]


# What is refused


@pytest.mark.parametrize("value, status", [
    (np.nan, NOT_FINITE), (np.inf, NOT_FINITE), (-np.inf, NOT_FINITE),
    (2.001, OUT_OF_RANGE), (-3e38, OUT_OF_RANGE),
])  # fmt: skip
@pytest.mark.parametrize("place", range(3))
def test_refused_input_changes_nothing(library: ctypes.CDLL, value: float, status: int, place: int) -> None:
    device = Device(library)
    device.use([0.1, 0.2, 0.3], 1.0)
    device.predict([0.3, 0.2, 0.1])
    before, x = device.memory(), [0.5, 0.5, 0.5]
    x[place] = value
    assert device.predict(x)[0] == status
    assert device.memory() == before
    assert device.metrics.refused == 1
    loss = F32()
    assert device.call("step", (F32 * 3)(*x), (F32 * 3)(1.0), ctypes.byref(loss)) == status
    assert device.memory() == before
    assert device.observe(1.0) == OK  # the prediction before still waits


@pytest.mark.parametrize("task, values", [
    (REGRESSION, [(np.nan,), (np.inf,)]),
    (BINARY, [(np.nan, 0), (0, 1.001), (-0.001, 1), (1, np.inf)]),
    (MULTICLASS, [(np.nan,), (3,), (-1,), (0.5,), (np.inf,), (1e30,)]),
])  # fmt: skip
def test_refused_target_changes_nothing(
    library: ctypes.CDLL, task: int, values: list[tuple[float, ...]]
) -> None:
    device = Device(library, task)
    device.predict([0.1, 0.2, 0.3])
    before = device.memory()
    for number, target in enumerate(values, 1):
        assert device.observe(*target) == BAD_TARGET
        assert device.memory() == before
        assert device.metrics.refused == number
    assert device.observe(1, 1) == OK


def test_target_outside_its_declared_range_is_refused(library: ctypes.CDLL) -> None:
    device = Device(library)
    low, high = (F32 * 1)(-1.0), (F32 * 1)(2.0)
    device.little.model.target_low = ctypes.addressof(low)
    device.little.model.target_high = ctypes.addressof(high)
    device.predict([0.1, 0.2, 0.3])
    assert (device.observe(-1.01), device.observe(2.01)) == (BAD_TARGET, BAD_TARGET)
    assert device.observe(2.0) == OK


def test_observation_pairs_with_one_prediction_once(library: ctypes.CDLL) -> None:
    device = Device(library)
    before = device.memory()
    assert device.observe(1.0) == NO_PREDICTION
    assert device.memory() == before
    device.predict([0.1, 0.2, 0.3])
    assert device.observe(1.0) == OK
    before = device.memory()
    assert device.observe(1.0) == NO_PREDICTION
    assert device.memory() == before
    assert (device.state.count, device.metrics.observations) == (1, 1)


def test_null_pointers_are_refused(library: ctypes.CDLL) -> None:
    device = Device(library)
    assert device.call("predict", None, (F32 * 3)(), ctypes.byref(Prediction())) == INVALID
    assert device.call("observe", None) == INVALID
    assert device.call("idle", None) == INVALID


# Predictions


def test_predictions_are_the_base_models_and_probabilities(library: ctypes.CDLL) -> None:
    x = np.array([0.3, -0.4, 1.5])
    base = np.array([0.5, -0.25, 0.125, 0.25, 0.5, -0.5, -0.5, 0.25, 0.5, 0, 0, 0])
    for task, outputs in OUTPUTS.items():
        y = base[: 3 * outputs].reshape(outputs, 3) @ x + base[3 * outputs : 4 * outputs]
        status, value, prediction = Device(library, task).predict(list(x))
        assert status == OK
        if task == REGRESSION:
            assert value == pytest.approx(y, abs=1e-6)
            # before any use the standard deviation is taken for the tolerance: P(|z| <= 1) = 0.6827
            assert prediction.confidence == pytest.approx(0.6827, abs=0.01)
        elif task == BINARY:
            p = 1 / (1 + np.exp(-y))
            assert value == pytest.approx(p, abs=1e-6)
            assert prediction.confidence == pytest.approx(np.maximum(p, 1 - p).min(), abs=1e-6)
        else:
            p = np.exp(y) / np.exp(y).sum()
            assert value == pytest.approx(p, abs=1e-6)
            assert prediction.confidence == pytest.approx(p.max(), abs=1e-6)
            assert prediction.best == p.argmax()


def test_confidence_of_a_value_follows_its_errors(library: ctypes.CDLL) -> None:
    """Normal errors of known spread: confidence is the share of them within the tolerance."""
    for spread in (0.1, 0.25, 0.5):
        device, shares = Device(library, every=10_000), []
        generator = np.random.default_rng(5)
        for _ in range(2000):
            _, value, prediction = device.predict([0.1, 0.2, 0.3])
            shares.append(prediction.confidence)
            assert device.observe(value[0] + spread * generator.standard_normal()) == OK
        from statistics import NormalDist

        truth = 2 * NormalDist().cdf(0.25 / spread) - 1
        # 0.01 is the approximation of the normal distribution; a mean square over 34 errors varies by 24 %
        assert np.mean(shares[100:]) == pytest.approx(truth, abs=0.03)


def test_below_the_threshold_the_safe_default_is_given(library: ctypes.CDLL) -> None:
    device = Device(library, threshold=0.99)
    base = device.predict([1.0, 1.0, 1.0])[1]
    device.little.ram.saved.parameters[3] = 7.0  # somewhere else than the base
    _, value, prediction = device.predict([1.0, 1.0, 1.0])
    assert prediction.fallback == 1
    assert value == base
    device.little.fallback[0] = -5.0
    device.little.settings.fallback = ctypes.addressof(device.little) + Little.fallback.offset
    assert device.predict([1.0, 1.0, 1.0])[1] == [-5.0]
    assert device.metrics.fallbacks == 3
    # accepted: the person left the default as it was; but the model's own answer was wrong
    assert device.observe(-5.0) == OK
    assert (device.metrics.overrides, device.state.hits & 1) == (0, 0)


def test_parameters_gone_bad_give_the_base_with_no_confidence(library: ctypes.CDLL) -> None:
    device = Device(library, threshold=0.1)
    base = device.predict([1.0, 1.0, 1.0])[1]
    device.little.ram.saved.parameters[0] = np.nan
    _, value, prediction = device.predict([1.0, 1.0, 1.0])
    assert (value, prediction.confidence, prediction.fallback) == (base, 0.0, 1)


# Updates


@pytest.mark.parametrize("restart", [0, 1])
@pytest.mark.parametrize("sequential", [0, 1])
def test_learns_a_person(library: ctypes.CDLL, restart: int, sequential: int) -> None:
    device = Device(library, restart=restart, sequential=sequential, epochs=30)
    updates = [device.use(x, y) for x, y in life(1, 60)]
    ran = [update for update in updates if update.ran]
    assert len(ran) == 12
    assert device.metrics.accepted == 12
    assert all(update.loss_after < update.loss_before for update in ran[2:])
    errors = [abs(device.predict(x)[1][0] - y) for x, y in life(2, 100, noise=0.0)]
    assert np.mean(np.array(errors) < 0.25) > 0.9
    assert device.report().learnt > 0.6


@pytest.mark.parametrize("task", [BINARY, MULTICLASS])
def test_learns_classes(library: ctypes.CDLL, task: int) -> None:
    device = Device(library, task, epochs=30)
    generator = np.random.default_rng(9)
    right = []
    for _ in range(100):
        x = list(generator.uniform(-1, 1, 3))
        label = int(np.argmax([x[0], x[1], x[2]]))
        target = [float(label)] if task == MULTICLASS else [float(x[0] > 0), float(x[1] > x[2])]
        _, value, prediction = device.predict(x)
        right.append(prediction.best == label if task == MULTICLASS else [p > 0.5 for p in value] == target)
        assert device.observe(*target) == OK
        device.idle()
    assert np.mean(right[50:]) > 0.85
    assert device.metrics.overrides == right.count(False)
    assert device.metrics.mean_error == pytest.approx(right.count(False) / 100, abs=1e-5)


def test_update_waits_for_enough_new_samples(library: ctypes.CDLL) -> None:
    device = Device(library, every=7)
    ran = [device.use(x, y).ran for x, y in life(3, 21)]
    assert [number for number, it in enumerate(ran, 1) if it] == [7, 14, 21]
    assert not device.idle().ran


def test_update_that_does_not_help_on_samples_left_out_is_rolled_back(library: ctypes.CDLL) -> None:
    """A person at the base model who sets at random: nothing to learn, so what is learnt does harm."""
    verdicts = []
    for seed in range(10):
        device = Device(library, epochs=50)
        before = device.parameters
        for x, y in life(seed, 20, offset=0.0, noise=1.0):
            update = device.use(x, y)
            if update.ran and not update.accepted and device.metrics.accepted == 0:
                assert device.parameters == before
            verdicts += [update.accepted] if update.ran else []
        assert device.metrics.accepted + device.metrics.rolled_back == 4
    assert np.mean(verdicts) < 0.5


def test_diverged_candidate_is_never_taken(library: ctypes.CDLL) -> None:
    for folds in (0, 4):
        device = Device(library, folds=folds, every=1, epochs=1)
        low = device.little.model.low = None
        device.little.model.high = low
        before = device.parameters
        assert device.predict([1e18, 1e18, 1e18])[0] == OK
        assert device.observe(-1e30) == OK
        update = device.idle()
        assert (update.ran, update.accepted) == (1, 0)
        assert device.parameters == before
        assert device.metrics.rolled_back == 1


def test_base_is_taken_back_when_it_beats_what_was_learnt(library: ctypes.CDLL) -> None:
    device = Device(library, restart=0, epochs=0)  # no epochs: the candidate is the parameters in use
    base = device.parameters
    device.little.ram.saved.parameters[3] = 5.0
    for x, y in life(4, 5, offset=0.0):
        update = device.use(x, y)
    assert (update.ran, update.accepted) == (1, 0)
    assert device.parameters == base
    assert list(device.little.ram.saved.previous)[:4] == base


@pytest.mark.parametrize("wild", [50.0, 1e15, -1e38])
def test_one_wild_sample_does_not_decide_an_update(library: ctypes.CDLL, wild: float) -> None:
    """Judged with and without the wild sample in the measure, the verdict on a good candidate stays."""
    device = Device(library, epochs=20, every=20)
    samples = life(5, 20)
    samples[7] = (samples[7][0], wild)
    # Huber-like: keep training itself from following the wild sample by learning nothing from it
    device.little.settings.epochs = 0
    device.little.settings.restart = 0
    for x, y in samples[:19]:
        device.use(x, y)
    device.little.ram.saved.parameters[:4] = (1.0, -0.25, 0.125, 1.25)  # what the person prefers
    update = device.use(*samples[19])
    assert (update.ran, update.accepted) == (1, 1)
    assert device.state.error <= (10 * 0.25) ** 2


def test_unjudged_update_is_always_taken(library: ctypes.CDLL) -> None:
    device = Device(library, folds=0)
    updates = [device.use(x, y) for x, y in life(6, 20, offset=0.0, noise=1.0)]
    assert [update.accepted for update in updates if update.ran] == [1] * 4
    assert [update.steps for update in updates if update.ran] == [25, 50, 75, 100]


def test_steps_are_those_of_the_folds_and_the_final_training(library: ctypes.CDLL) -> None:
    device = Device(library, epochs=2, folds=4)
    steps = [update.steps for update in (device.use(x, y) for x, y in life(7, 20)) if update.ran]
    # 5 samples are fewer than 2 a fold: one fold per sample; then 4 folds
    assert steps == [2 * n * ((n if n < 8 else 4) - 1) + 2 * n for n in (5, 10, 15, 20)]


def test_every_epoch_learns_every_sample_once(library: ctypes.CDLL) -> None:
    """Steps of one epoch counted exactly for each number of samples: the order is a permutation."""
    for count in range(1, 21):
        device = Device(library, every=count, epochs=3, folds=0)
        for x, y in life(8, count):
            update = device.use(x, y)
        assert update.steps == 3 * count


def test_pull_keeps_parameters_near_the_base(library: ctypes.CDLL) -> None:
    distances = []
    for pull in (0.0, 0.05, 1.0):
        device = Device(library, pull=pull, folds=0, epochs=20)
        base = np.array(device.parameters)
        for x, y in life(9, 20):
            device.use(x, y)
        distances.append(float(np.linalg.norm(np.array(device.parameters) - base)))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-6


def test_sequential_learns_each_sample_once_in_order(library: ctypes.CDLL) -> None:
    device, twin = Device(library, sequential=1, restart=0, folds=0), Device(library)
    for x, y in life(10, 40):
        device.use(x, y)
        loss = F32()
        assert twin.call("step", (F32 * 3)(*x), (F32 * 3)(y), ctypes.byref(loss)) == OK
    assert device.parameters == twin.parameters


# Forget, reset, report


def test_forget_undoes_the_last_update_and_its_samples(library: ctypes.CDLL) -> None:
    device = Device(library, epochs=20)
    people = life(11, 10) + life(12, 8, offset=-2.0)
    for x, y in people[:10]:
        device.use(x, y)
    after_ten = device.parameters
    samples = list(device.little.ram.saved.samples)[:40]
    for x, y in people[10:]:
        device.use(x, y)
    assert device.metrics.accepted == 3
    assert (device.state.undo, device.state.count) == (8, 18)
    assert device.parameters != after_ten
    assert device.call("forget") == OK
    assert device.parameters == after_ten
    assert (device.state.undo, device.state.count, device.state.next, device.state.fresh) == (0, 10, 10, 0)
    assert list(device.little.ram.saved.samples)[:40] == samples
    assert device.metrics.forgets == 1
    assert device.call("forget") == OK
    assert device.parameters == after_ten


def test_forget_drops_the_samples_of_updates_rolled_back_in_between(library: ctypes.CDLL) -> None:
    device = Device(library, epochs=20)
    for x, y in life(13, 5):
        device.use(x, y)
    assert (device.state.undo, device.state.since) == (5, 0)
    good = device.parameters
    device.little.settings.epochs = 0
    device.little.model.parameters, kept = 4, device.parameters
    device.little.settings.restart = 0
    device.little.ram.saved.parameters[3] = -9.0
    for x, y in life(14, 5):
        device.use(x, y)
    assert device.metrics.rolled_back == 1
    assert (device.state.undo, device.state.since) == (10, 5)
    device.little.settings.epochs, device.little.settings.restart = 20, 1
    for x, y in life(15, 5):
        device.use(x, y)
    assert device.metrics.accepted == 2
    assert (device.state.undo, device.state.since) == (10, 0)
    assert good == kept


def test_forget_works_when_the_buffer_has_gone_round(library: ctypes.CDLL) -> None:
    device = Device(library, epochs=5, every=4)
    for x, y in life(16, 34):
        device.use(x, y)
    assert (device.state.count, device.state.next, device.state.undo) == (20, 14, 6)
    assert device.call("forget") == OK
    assert (device.state.count, device.state.next) == (14, 8)
    for x, y in life(17, 30):
        device.use(x, y)
    assert (device.state.count, device.state.next) == (20, 18)


def test_reset_is_the_factory_but_for_the_metrics(library: ctypes.CDLL) -> None:
    device, fresh = Device(library), Device(library)
    for x, y in life(18, 33):
        device.use(x, y)
    assert device.call("reset") == OK
    metrics = Metrics.from_buffer_copy(device.metrics)
    assert (metrics.resets, metrics.observations) == (1, 33)
    ctypes.memmove(ctypes.addressof(device.metrics), bytes(fresh.metrics), ctypes.sizeof(Metrics))
    assert bytes(device.little.ram.saved) == bytes(fresh.little.ram.saved)
    assert device.report().uses == 0
    assert device.observe(1.0) == NO_PREDICTION


def test_report_counts_uses_and_what_was_right(library: ctypes.CDLL) -> None:
    device = Device(library, every=3)
    for use in range(40):
        _, value, _ = device.predict([0.1, 0.2, 0.3])
        assert device.observe(value[0] + (1.0 if use < 16 else 0.0)) == OK
        report = device.report()
        assert (report.uses, report.samples, report.waiting) == (use + 1, min(use + 1, 20), min(use + 1, 20))
        assert report.learnt == sum(past >= 16 for past in range(max(0, use - 31), use + 1)) / 32
    assert 0 < report.sure <= 1


# Storage


def restarted(device: Device) -> tuple[int, Device]:
    again = Device(device.library, device.task)
    again.little.settings = device.little.settings
    ctypes.memmove(again.little.storage, device.little.storage, 8192)
    return again.call("init"), again


@pytest.mark.parametrize("task", OUTPUTS)
def test_state_survives_a_restart(library: ctypes.CDLL, task: int) -> None:
    device = Device(library, task)
    for x, _ in life(19, 23):
        device.use(x, 1.0, 0.0)
    assert device.call("save") == OK
    status, again = restarted(device)
    assert status == OK
    assert bytes(again.little.ram.saved) == bytes(device.little.ram.saved)
    assert again.little.ram.pending == 0
    for x, _ in life(20, 23):
        device.use(x, 0.0, 0.0)
        again.use(x, 0.0, 0.0)
    assert bytes(again.little.ram.saved) == bytes(device.little.ram.saved)


def test_saved_after_update_forget_and_reset(library: ctypes.CDLL) -> None:
    device = Device(library)
    for x, y in life(21, 10):
        device.use(x, y)
    assert device.metrics.saves == 2
    for call in ("forget", "reset"):
        assert device.call(call) == OK
        assert bytes(restarted(device)[1].little.ram.saved) == bytes(device.little.ram.saved)
    assert device.metrics.saves == 4


def test_failing_storage_is_said_and_the_device_goes_on(library: ctypes.CDLL) -> None:
    device, healthy = Device(library), Device(library)
    device.little.broken = 1
    for x, y in life(22, 5):
        healthy.use(x, y)
        device.predict(x)
        device.observe(y)
    device.idle(expected=STORAGE_FAILED)
    assert (device.metrics.saves, device.metrics.accepted) == (0, 1)
    assert device.parameters == healthy.parameters
    assert device.call("forget") == STORAGE_FAILED
    device.little.broken = 0
    assert device.call("save") == OK


def test_damaged_and_foreign_states_give_the_base_and_say_so(library: ctypes.CDLL) -> None:
    device = Device(library)
    base = device.parameters
    for x, y in life(23, 10):
        device.use(x, y)
    damaged = Device(library)
    ctypes.memmove(damaged.little.storage, bytes(byte ^ 1 for byte in device.little.storage), 8192)
    assert damaged.call("init") == CORRUPT
    foreign = Device(library)
    ctypes.memmove(foreign.little.storage, device.little.storage, 8192)
    foreign.little.model.identity += 1
    assert foreign.call("init") == FOREIGN
    for found in (damaged, foreign):
        assert found.parameters == base
        assert (found.state.count, found.metrics.recoveries) == (0, 1)
        for x, y in life(24, 5):
            found.use(x, y)
        assert restarted(damaged)[0] == OK


# The same everywhere


def test_long_lives_under_sanitizers_give_the_same_bits_as_without(tmp_path: Path) -> None:
    """Random lives under every setting with nonsense, restarts and failing storage (lives.c checks invariants)."""
    sources = [HERE / "lives.c", HERE / "little_device.c", *SOURCES]
    outcomes = []
    for sanitize in (False, True):
        program = compile_program(sources, [RUNTIME], tmp_path / f"lives{sanitize}", sanitize=sanitize)
        result = subprocess.run([program], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        outcomes.append(result.stdout)
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0].strip()) == 8


@pytest.mark.parametrize("name", [target.name for target in targets()])
def test_compiles_without_a_warning(name: str) -> None:
    port = RUNTIME.parent / "targets" / "memory_port.c"
    assert len(compile_objects([*SOURCES, port], [RUNTIME], name, strict=True)) == 4
