"""``distill``: a small net learns what a large one answers, and not only what is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from microtune.errors import TrainingError
from microtune.progress import Progress
from microtune.training import require
from microtune.training.settings import number, pair_of
from microtune.tuning.losses import Loss

if TYPE_CHECKING:
    from torch import nn

    from microtune.training.fit import Epoch


def distill(
    student: Any,
    teacher: Any,
    data: Any,
    *,
    temperature: float = 4.0,
    weight: float = 0.5,
    hidden: Mapping[str, str] | None = None,
    hidden_weight: float = 1.0,
    loss: str | Loss = "cross_entropy",
    epochs: int = 20,
    lr: float = 1e-3,
    batch: int = 32,
    seed: int = 0,
    progress: Progress[Epoch] | None = None,
) -> nn.Module:
    """A copy of the student, trained to answer as the teacher does (Hinton, Vinyals and Dean 2015).

    teacher: a module, or any callable from inputs (samples, *input shape) to logits (samples, outputs), such as
    ``classifier.predict_log_proba`` of scikit-learn. data: (x, y); y may be None where ``weight`` is 1, as then nothing
    but the teacher is listened to.

    What is made small is ``(1 - weight)`` times the loss, plus ``weight`` times how far the student is from the
    teacher: for "cross_entropy" and "binary_cross_entropy" the Kullback-Leibler divergence of the probabilities of both
    at ``temperature``, times its square, so that gradients keep their size; for "mse" and "huber" that loss between
    both outputs, where temperature plays no part.

    hidden: names of layers of the student and, for each, of the teacher, whose outputs it shall be able to imitate
    (Romero et al. 2015, "FitNets"). Where widths differ, a linear regressor between them learns too, and is dropped
    afterwards; maps of different size are averaged to the smaller one. Their mean squared differences, in units of the
    teacher's mean square, count ``hidden_weight``.

    Student and teacher are left as they are. To go on in several steps, distil the result again. Raises
    TrainingError for data, teachers or layers that do not fit, and when training fails.
    """
    number("temperature", temperature, lambda given: given > 0, "above 0; 2 to 8 is usual")
    number("weight", weight, lambda given: 0 <= given <= 1, "from 0, the data alone, to 1, the teacher alone")
    number("hidden_weight", hidden_weight, lambda given: given >= 0, "0 or more")
    if hidden is not None and not isinstance(hidden, Mapping):
        raise TrainingError(f"hidden={hidden!r}: a dictionary, layers of the student to layers of the teacher")
    require("distillation")
    from microtune.training.fit import check_settings, descend
    from microtune.training.modules import own_copy, samples_for, seeded
    from microtune.training.teaching import Teaching, teacher_of

    check_settings(epochs, lr, batch, seed)
    module, taught = own_copy(student), teacher_of(teacher)
    x, y = pair_of(data)
    if y is None and weight < 1:
        raise TrainingError(f"weight={weight} listens to y as well, which is None; give y, or weight=1")
    samples = samples_for(module, (x, y), loss, unlabelled=weight == 1)
    with seeded(seed):
        teaching = Teaching(module, taught, samples, loss, temperature, weight, dict(hidden or {}), hidden_weight)
    with teaching:
        descend(
            module, samples.x, teaching.objective, epochs=epochs, lr=lr, batch=batch, seed=seed, progress=progress,
            also=teaching.parameters,
        )  # fmt: skip
    return module
