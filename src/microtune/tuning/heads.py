"""Closed-form heads: the last dense layer learns each sample once, by a formula instead of a gradient step."""

from __future__ import annotations

from dataclasses import dataclass

from microtune.tuning.optimizers import check


@dataclass(frozen=True)
class RLS:
    """Recursive least squares on the last dense layer, with forgetting (Plackett 1950; Haykin, ch. 10).

    ``forgetting`` below 1 lets old samples fade; ``prior`` is the variance each weight may have moved from
    the base before anything is seen. Squared error only; each sample is learnt once.
    """

    forgetting: float = 1.0
    prior: float = 1.0
    lr = 0.0
    decay = 0.0
    rule = "rls"

    def __post_init__(self) -> None:
        check(
            self,
            forgetting_must_be_in_0_to_1=0 < self.forgetting <= 1,
            prior_must_be_above_0_and_finite=0 < self.prior < float("inf"),
        )


@dataclass(frozen=True)
class MAP:
    """The softmax layer that is most probable after each sample, the base and its data being the prior.

    The weights' prior covariance is the inverse of the Gram matrix of the factory's samples at the last layer
    (``plan(..., calibration=x)``): what the base learnt from many samples moves little, what they left open moves
    fast. One Newton step a sample with moderated probabilities (Spiegelhalter and Lauritzen 1990; MacKay 1992).

    worth: samples that the prior counts like. More: slower, and others are recognised as before.
    ridge: added to the Gram matrix's diagonal, as a share of its mean. Cross-entropy only.
    """

    worth: float = 5.0
    ridge: float = 0.01
    lr = 0.0
    decay = 0.0
    rule = "map"

    def __post_init__(self) -> None:
        check(
            self,
            worth_must_be_above_0_and_finite=0 < self.worth < float("inf"),
            ridge_must_be_above_0_and_finite=0 < self.ridge < float("inf"),
        )


@dataclass(frozen=True)
class SLDA:
    """Streaming linear discriminant analysis (Hayes and Kanan 2020): the mean of each class moves with its samples.

    Means and the classes' common covariance begin as those of the factory's samples at the last layer
    (``plan(..., calibration=(x, y))``; without y by the base's own answers). The first update puts the discriminants
    in the base's place. For a sensor that sees everything otherwise, such as one mounted the wrong way round.

    worth: samples that each factory mean counts like. shrinkage: how far the covariance goes towards a sphere
    (Ledoit and Wolf 2004). memory: samples a mean is worth at most, so that it follows a slow drift; 0: all.
    Cross-entropy only.
    """

    worth: float = 2.0
    shrinkage: float = 0.2
    memory: float = 0.0
    lr = 0.0
    decay = 0.0
    rule = "slda"

    def __post_init__(self) -> None:
        check(
            self,
            worth_must_be_above_0_and_finite=0 < self.worth < float("inf"),
            shrinkage_must_be_above_0_and_at_most_1=0 < self.shrinkage <= 1,
            memory_must_be_0_or_at_least_1_and_no_less_than_worth=self.memory == 0
            or max(1.0, self.worth) <= self.memory < float("inf"),
        )


@dataclass(frozen=True)
class Logistic:
    """Bayesian logistic regression on the last dense layer, for answers of yes or no (extended Kalman filter).

    The weights' prior covariance is that of ``MAP``, with a ridge that lets everything move: with
    ``plan(..., calibration=x)`` from the Gram matrix of the factory's samples at the last layer, without as if its
    inputs were of size 1 and not correlated. Probabilities are moderated (MacKay 1992).

    worth: samples that the prior counts like. ridge: added to the Gram matrix's diagonal, as a share of its mean.
    walk: share of the prior variance that comes back with each sample, so that new habits are learnt as fast as the
    first; 0: none. Each output is a question of its own. Binary cross-entropy only.

    Where more learns than that layer, the filter runs over all of it, with the gradients of the one logit in place of
    the layer's inputs (Singhal and Wu 1989); up to 512 parameters.
    """

    worth: float = 5.0
    ridge: float = 1.0
    walk: float = 0.005
    lr = 0.0
    decay = 0.0
    rule = "logistic"

    def __post_init__(self) -> None:
        check(
            self,
            worth_must_be_above_0_and_finite=0 < self.worth < float("inf"),
            ridge_must_be_above_0_and_finite=0 < self.ridge < float("inf"),
            walk_must_be_in_0_to_1=0 <= self.walk < 1,
        )

    @property
    def independent_prior(self) -> float:
        """The variance of each weight where inputs are of size 1 and not correlated."""
        return 4 / (self.worth * (1 + self.ridge))


@dataclass(frozen=True)
class Mahalanobis:
    """An anomaly detector: how far a window lies from what is normal here, learnt from windows said to be well.

    Behind any net; ``mt.identity(n)`` for none. The output is the chance that it is a fault. Normal is the mean and the
    covariance of the factory's windows (``plan(..., calibration=(x, y))``); on the device the mean is learnt anew, and
    the covariance from the factory's on. The limit is that of a next window for as few as were seen (Hotelling 1931),
    so that the share of false alarms stays. Labels of the calibration: 0 well, 1 a known fault, 2 well, but elsewhere
    (another mounting, another speed), which only the guard learns from. The guard: what looks like a known fault, by
    Fisher's discriminant, is not learnt as well. Binary cross-entropy only.

    worth: windows that the factory's covariance counts like, at least the inputs + 3; None: twice the inputs, 30 or
    more. false_alarms: share of good windows beyond the limit. shrinkage: how far the covariance goes towards its
    diagonal. memory: windows after which the covariance stays, and the mean follows a slow drift. guard: how far on the
    way from well to the known faults, 0 to 1, a window may lie. residual: of an autoencoder, look at what it does not
    rebuild, its input less its output.
    """

    worth: float | None = None
    false_alarms: float = 0.01
    shrinkage: float = 0.1
    memory: float = 200.0
    guard: float = 0.4
    residual: bool = False
    lr = 0.0
    decay = 0.0
    rule = "mahalanobis"

    def __post_init__(self) -> None:
        check(
            self,
            worth_must_be_above_0_and_at_most_a_million=self.worth is None or 0 < self.worth <= 1e6,
            false_alarms_must_be_above_0_and_below_a_half=0 < self.false_alarms < 0.5,
            shrinkage_must_be_above_0_and_at_most_1=0 < self.shrinkage <= 1,
            memory_must_be_1_to_a_million=1 <= self.memory <= 1e6,
            guard_must_be_above_0_and_at_most_1=0 < self.guard <= 1,
        )


@dataclass(frozen=True)
class Leaves:
    """The leaves of an ensemble of trees, each sample learnt once by a formula: a Gaussian process whose kernel is the
    share of trees in which two samples fall into the same leaf (Davies and Ghahramani 2014), as a Kalman filter over
    the leaves. On squared error exact ridge regression; for classes as ``Logistic`` and ``MAP`` linearise.

    worth: samples that the base's answer counts like. walk: share of the prior variance that comes back with each
    sample, so that new habits are learnt too; 0: none.
    """

    worth: float = 0.1
    walk: float = 0.01
    lr = 0.0
    decay = 0.0
    rule = "leaves"

    def __post_init__(self) -> None:
        check(
            self,
            worth_must_be_above_0_and_finite=0 < self.worth < float("inf"),
            walk_must_be_in_0_to_1=0 <= self.walk < 1,
        )

    def prior(self, loss: str, trees: int) -> float:
        """The variance of a leaf's value before anything is seen: that of a sum over ``trees``, on even shares. Yes or
        no has a curvature of 1/4 at most, where squared error has 1."""
        return (1 if loss == "mse" else 4) / (self.worth * trees)


ClosedForm = RLS | MAP | SLDA | Logistic | Leaves | Mahalanobis
