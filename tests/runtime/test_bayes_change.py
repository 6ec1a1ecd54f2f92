"""When the Bayesian head takes habits for changed, in C against docs/bayes.md done anew in float64 by conditioning
Gaussians one use after the other; and what absence does to it."""

import math

import numpy as np
import pytest

from microtune.targets.machine import Machine

from .bayes_oracle import Array, contexts, head, log_density, phi, prior
from .bayes_probe import BUMPS, RUN, Head, Snapshot, State


def gain_of(device: Head, after: Snapshot, length: int, evidence: Array) -> float:
    """Log evidence of the last `length` uses for somebody unknown, each predicted from those before it."""
    s, r = after.settings, after.state["noise"]
    last = [phi(device, after, x, age) for x, age in zip(after.contexts, after.ages, strict=True)][-length:]
    rows, base = np.array([row for row, _ in last]), np.array([value for _, value in last])
    residuals = after.targets[-length:] - base
    gram = (rows * prior(s)) @ rows.T + r * np.eye(length)
    gain = 0.0
    for i in range(length):
        expected, variance = 0.0, gram[i, i]
        if i:
            along = np.linalg.solve(gram[:i, :i], gram[:i, i])
            expected, variance = along @ residuals[:i], gram[i, i] - along @ gram[:i, i]
        gain += log_density(s, residuals[i] - expected, variance) - evidence[RUN - length + i]
    return gain


def return_of(device: Head, before: Snapshot, after: Snapshot, length: int) -> float:
    """The same for who was known before the last jump, if there was one."""
    if not before.state["jumps"]:
        return -math.inf
    s, gain = after.settings, 0.0
    for i in range(-length, 0):
        row, base = phi(
            device, Snapshot(**{**vars(after), "centres": before.centres}), after.contexts[i], after.ages[i]
        )
        error = after.targets[i] - base - row @ before.former
        gain += log_density(s, error, 2.0 * after.state["noise"]) - after.state["evidence"][i]
    return gain


@pytest.mark.parametrize("kind", ["everywhere", "here", "guests", "wild", "none"])
def test_a_jump_is_found_by_its_evidence(bayes_host: Machine, kind: str) -> None:
    """Every decision of long streams, and what is forgotten for it."""
    found = again = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        device = head(bayes_host, seed)
        for use in range(70):
            x = contexts(rng, 1)[0] if kind != "here" or use < 40 else np.ones(5) + 0.05 * rng.normal(size=5)
            x = x.astype(np.float32).astype(float)
            other = (kind in ("everywhere", "here") and use >= 40) or (kind == "guests" and 40 <= use < 50)
            y = 0.5 + 0.2 * x[0] + 0.05 * rng.normal() + 1.2 * other
            if kind == "wild" and rng.random() < 0.1:
                y = rng.uniform(-2.5, 2.5)
            before = device.snapshot()
            value, variance = device.predict(x)
            device.observe(x, float(np.float32(y)))
            after = device.snapshot()
            z = (float(np.float32(y)) - value) / math.sqrt(variance)
            if before.state["standing"]:
                assert after.state["surprises"][-1] == pytest.approx(z, rel=1e-3, abs=1e-3)
                assert after.state["evidence"][-1] == pytest.approx(
                    log_density(after.settings, z * math.sqrt(variance), variance),
                    abs=2e-3 * (1.0 + abs(z)) ** 2,
                )
            s, surprises = after.settings, after.state["surprises"]
            run = min(before.state["run"] + 1, RUN)
            jumped = after.state["jumps"] > before.state["jumps"]
            gains = {
                length: gain_of(
                    device,
                    Snapshot(**{**vars(after), "centres": before.centres}),
                    length,
                    after.state["evidence"],
                )
                for length in range(2, run + 1)
                if abs(surprises[-length]) > s["surprise"] and abs(surprises[-1]) > s["surprise"]
            }
            returns = {length: return_of(device, before, after, length) for length in gains}
            returned = max(returns.values(), default=-math.inf) > max(gains.values(), default=-math.inf)
            gains = returns if returned else gains
            best = max(gains, key=lambda length: gains[length], default=0)
            evidence = gains.get(best, -math.inf)
            if abs(evidence - s["jump_evidence"]) > 0.02:
                assert jumped == (evidence > s["jump_evidence"])
            if jumped:
                found += 1
                assert after.state["run"] == 0
                cause = after.contexts[-best:]
                assert np.all(after.change_weights[-best:] == 1.0)
                distances = ((after.contexts[:, None] - cause[None]) ** 2).sum(2)
                everywhere = (((cause[:, None] - cause[None]) ** 2).sum(2) > s["apart_squared"]).any()
                hit = everywhere | (distances.min(1) < s["affected_squared"])
                older, were = (
                    after.change_weights[:-best],
                    before.change_weights[-len(after.targets) + 1 :][: -best + 1],
                )
                was = were[: len(older)] > 0.0
                assert np.all((older <= 0.0) == np.where(was, hit[:-best], not returned))
                assert np.all(older[was & hit[:-best]] == -were[: len(older)][was & hit[:-best]])
                assert len(after.centres) == min(BUMPS, len(before.centres) + (not everywhere and not returned))
                again += returned
                np.testing.assert_array_equal(after.former, before.mean)
            elif abs(surprises[-1]) > s["surprise"]:
                assert after.change_weights[-1] == np.float32(s["probation"])
            device.refit()
    assert found >= 5 if kind in ("everywhere", "here", "guests") else found <= 1
    assert kind != "guests" or again >= 3


def test_the_base_takes_over_while_it_is_better(bayes_host: Machine) -> None:
    """A person the base knows exactly: carelessness alone must not put the personal layer in front."""
    rng = np.random.default_rng(1)
    wide = {"bias_variance": 8.0, "hidden_variance": 1.0, "input_variance": 1.0}
    device = head(bayes_host, noise=0.001, noise_floor=0.001, **wide)
    off = 0
    for x in contexts(rng, 60):
        _, base = device.features(x)
        device.observe(x, float(np.float32(base + rng.normal())))
        judgement = device.refit()
        state = device.snapshot().state
        assert state["standing"] or judgement.personal > judgement.base
        if not state["standing"]:
            off += 1
            value, variance = device.predict(x)
            assert value == pytest.approx(base, abs=1e-6)
            assert variance >= judgement.base
    assert off > 5


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_buffer_shorter_than_a_run_is_looked_at_no_farther_than_it_goes(bayes_host: Machine, kept: int) -> None:
    device, rng = head(bayes_host, buffer=kept), np.random.default_rng(4)
    for use, x in enumerate(contexts(rng, 12)):
        device.observe(x, 3.0 * (-1) ** (use // 3))  # each use a surprise
        device.refit()
        state = device.snapshot().state
        assert (state["count"], state["run"] <= state["count"]) == (min(use + 1, kept), True)


def test_a_change_is_believed_sooner_when_it_is_likelier(bayes_host: Machine) -> None:
    found = []
    for evidence in (1.0, 0.5):
        needed = 0
        for seed in range(8):
            rng = np.random.default_rng(seed)
            device = head(bayes_host, seed)
            for use, x in enumerate(contexts(rng, 60)):
                device.settle(evidence=evidence if use >= 40 else 1.0)
                device.observe(x, float(np.float32(0.5 + 0.05 * rng.normal() + 1.0 * (use >= 40))))
                device.refit()
                if use >= 40 and device.snapshot().state["jumps"]:
                    break
                needed += use >= 40
        found.append(needed)
    assert found[1] < found[0]


# Absence.


def test_after_disuse_predictions_are_a_mixture_of_the_two_who_may_have_come(bayes_host: Machine) -> None:
    rng = np.random.default_rng(3)
    device, share = head(bayes_host), 0.3
    for x in contexts(rng, 40):
        device.observe(x, float(np.float32(1.2 + 0.05 * rng.normal())))
        device.refit()
    x = contexts(rng, 1)[0]
    (row, base), (mean, variance) = phi(device, device.snapshot(), x, 0.0), device.predict(x)
    s, noise = device.snapshot().settings, device.snapshot().state["noise"]
    unknown = float((row**2 * prior(s)).sum()) + noise
    before = device.saved()
    device.fade(0.009)
    assert device.saved() == before
    device.fade(share)
    faded_mean, faded_variance = device.predict(x)
    assert faded_mean == pytest.approx((1 - share) * mean + share * base, abs=1e-5)
    # E[second moment] - mean^2 of the mixture
    second = (1 - share) * (variance + (mean - base) ** 2) + share * unknown
    assert faded_variance == pytest.approx(second - ((1 - share) * (mean - base)) ** 2, rel=1e-4)
    assert faded_variance > variance
    # nothing else changed
    at = State.stranger.offset
    assert before[:at] + before[at + 4 :] == device.saved()[:at] + device.saved()[at + 4 :]

    def probability(y: float) -> float:
        """Bayes' rule for one use."""
        own = share * math.exp(log_density(s, y - base, unknown))
        other = (1 - share) * math.exp(log_density(s, y - mean, variance))
        return own / (own + other)

    for y in (float(np.float32(mean)), float(np.float32(base - 0.3))):
        met = head(bayes_host)
        machine_bytes = device.machine.read(device.address, device.size)
        met.machine.write(met.address, machine_bytes)
        met.observe(x, y)
        wanted = probability(y)
        assert met.snapshot().state["stranger"] == pytest.approx(0.0 if wanted < 0.01 else min(wanted, 0.9), rel=1e-3)
        # the same person is back after one use or two; somebody else is not taken for them
        met.refit()
        assert (met.snapshot().state["stranger"] < 0.2) == (y > 0.5)
    device.fade(1.0)
    assert device.snapshot().state["stranger"] == pytest.approx(0.9)
