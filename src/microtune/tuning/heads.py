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
            prior_must_be_above_0=self.prior > 0,
        )


ClosedForm = RLS
