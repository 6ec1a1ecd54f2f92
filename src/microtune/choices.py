"""What people write on a command line, as update schemes, optimisers and settings of the learner: ``head:2``,
``sparse:3=0.5,biases=4``, ``replay=40,profiles=2``; and schemes and optimisers as people write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from microtune.errors import PlanError
from microtune.tuning.bayes import Bayes
from microtune.tuning.heads import MAP, RLS, SLDA, Leaves, Logistic, Mahalanobis
from microtune.tuning.learner import Context, Learner
from microtune.tuning.optimizers import SGD, Adam, RMSProp
from microtune.tuning.schemes import Adapter, Bias, Full, Head, LayerName, LoRA, NormAffine, Outputs, Scheme, Sparse


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"{text!r} is not a number") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise PlanError(f"{text!r} is not a whole number") from None


def _plain(make: Callable[[], Any]) -> Callable[[str], Any]:
    """For what takes no number."""

    def choose(text: str) -> Any:
        if text:
            raise PlanError(f"{make.__name__} takes no number, not {text!r}")
        return make()

    return choose


def _layer(text: str) -> LayerName:
    return int(text) if text.isdigit() else text


def _part(text: str) -> float | slice | Outputs:
    """A fraction of a layer's input channels, or those from one to before another: ``0.5``, ``8:16``; with ``out``
    before it, of its output channels."""
    if text.startswith("out"):
        part = _part(text.removeprefix("out"))
        return part if isinstance(part, Outputs) else Outputs(part)
    begin, colon, end = text.partition(":")
    return slice(_whole(begin), _whole(end)) if colon else _number(text)


def _sparse(text: str) -> Sparse:
    """``24=0.25,27=8:16,biases=20``: layers, by weight, name or number, with the fraction of their input channels that
    learns, or these channels; and how many of the last layers' biases, or the first layer whose bias learns."""
    chosen: dict[LayerName, float | slice | Outputs] = {}
    biases: LayerName | None = None
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not name or not equals:
            raise PlanError(f"{part!r} is no choice of sparse: write LAYER=FRACTION, as in sparse:24=0.25,biases=20")
        if name == "biases":
            biases = _layer(value)
        else:
            chosen[_layer(name)] = _part(value)
    return Sparse(chosen, biases_from=biases)


def _layers(text: str) -> tuple[LayerName, ...]:
    return tuple(_layer(part) for part in text.split("+"))


def _numbered(make: Callable[..., Any], default: str, **options: Callable[[str], Any]) -> Callable[[str], Any]:
    """For what takes a number, and may take options by name: ``4``, ``4,alpha=8,layers=2``."""

    def choose(text: str) -> Any:
        first, *rest = text.split(",")
        named = {}
        for part in rest:
            name, equals, value = part.partition("=")
            if name not in options or not equals:
                known = ", ".join(f"{option}=..." for option in options) or "no options"
                raise PlanError(f"{part!r} is no option of {make.__name__}: it takes {known}")
            named[name] = options[name](value)
        return make(_whole(first or default), **named)

    return choose


# name -> how its argument becomes a scheme
SCHEMES: dict[str, Callable[[str], Any]] = {
    "full": _plain(Full),
    "head": _numbered(Head, "1"),
    "bias": _plain(Bias),
    "normaffine": _plain(NormAffine),
    "adapter": _numbered(Adapter, "8", layers=_whole),
    "lora": _numbered(LoRA, "4", alpha=_number, layers=_whole, tensors=_layers),
    "sparse": _sparse,
}
OPTIMIZERS: dict[str, Callable[[str], Any]] = {
    "sgd": lambda text: SGD(lr=_number(text or "0.05")),
    "momentum": lambda text: SGD(lr=_number(text or "0.02"), momentum=0.9),
    "adam": lambda text: Adam(lr=_number(text or "0.001")),
    "rmsprop": lambda text: RMSProp(lr=_number(text or "0.001")),
    "rls": lambda text: RLS(forgetting=_number(text or "1")),
    "map": lambda text: MAP(worth=_number(text)) if text else MAP(),
    "slda": lambda text: SLDA(worth=_number(text)) if text else SLDA(),
    "leaves": lambda text: Leaves(worth=_number(text)) if text else Leaves(),
    "logistic": lambda text: Logistic(worth=_number(text)) if text else Logistic(),
    "mahalanobis": lambda text: Mahalanobis(worth=_number(text)) if text else Mahalanobis(),
    "bayes": _plain(Bayes),
}


def _choose(text: str, known: dict[str, Callable[[str], Any]], what: str) -> Any:
    """``head:2`` -> known["head"]("2")."""
    name, _, argument = text.partition(":")
    if name not in known:
        raise PlanError(
            f"unknown {what} {text!r}. Known: {', '.join(known)}; with a number as in '{next(iter(known))}:1'"
        )
    return known[name](argument)


def scheme(text: str) -> Any:
    """The update scheme a text such as ``lora:4`` names. Raises PlanError for another text."""
    return _choose(text, SCHEMES, "update scheme")


def optimizer(text: str) -> Any:
    """The optimiser a text such as ``sgd:0.05`` names. Raises PlanError for another text."""
    return _choose(text, OPTIMIZERS, "optimiser")


def _context(text: str) -> Context:
    """``weekend:0.5``, ``hour:6/12/18``."""
    name, _, edges = text.partition(":")
    if not name or not edges:
        raise PlanError("write an input, by its name or place, and edges: 0:6/12/18, or 0:12+1:0.5 for two")
    return Context(int(name) if name.isdigit() else name, tuple(_number(edge) for edge in edges.split("/")))


def _setting(name: str, value: str | None) -> Any:
    """The value of a setting of the learner; without one, a switch is on."""
    default = {each.name: each.default for each in fields(Learner)}[name]
    if isinstance(default, bool) or name == "sensors":
        if value not in (None, "yes", "no"):
            raise PlanError(f"{name}={value}: write {name}, {name}=yes or {name}=no")
        return value != "no"
    if not value:
        raise PlanError(f"{name} takes a value: {name}=...")
    try:
        if name == "contexts":
            return tuple(_context(each) for each in value.split("+"))
        if name == "fallback":
            return tuple(_number(each) for each in value.split("/"))
        return _whole(value) if isinstance(default, int) else _number(value)
    except PlanError as error:
        raise PlanError(f"{name}={value}: {error}") from None


def learner(text: str, **given: Any) -> Learner:
    """Settings of the learner that a text such as ``replay=40,profiles=2,contexts=weekend:0.5,in_place`` names, over
    those ``given``. Raises PlanError for another text."""
    known = [each.name for each in fields(Learner)]
    chosen = dict(given)
    for part in filter(None, text.split(",")):
        name, equals, value = (each.strip() for each in part.partition("="))
        if name not in known:
            raise PlanError(f"unknown setting {name!r} of the learner. Known: {', '.join(known)}")
        chosen[name] = _setting(name, value if equals else None)
    return Learner(**chosen)


def _option(name: str, value: Any) -> str:
    return f",{name}={'+'.join(map(str, value)) if isinstance(value, tuple) else value}"


def _part_text(part: float | slice | Outputs) -> str:
    if isinstance(part, Outputs):
        return f"out{_part_text(part.part)}"
    return f"{part.start or 0}:{part.stop}" if isinstance(part, slice) else f"{part}"


def scheme_text(chosen: Scheme) -> str:
    """A scheme as on a command line: ``scheme(scheme_text(s)) == s``."""
    name = type(chosen).__name__.lower()
    if isinstance(chosen, Sparse):
        parts = [f"{layer}={_part_text(part)}" for layer, part in chosen.tensors.items()]
        parts += [] if chosen.biases_from is None else [f"biases={chosen.biases_from}"]
        return f"{name}:{','.join(parts)}"
    first, *rest = [(each.name, getattr(chosen, each.name)) for each in fields(chosen)] or [("", None)]
    return name + (f":{first[1]}" if first[0] else "") + "".join(_option(*each) for each in rest if each[1] is not None)


def optimizer_text(chosen: SGD | RMSProp | Adam) -> str:
    """An optimiser as on a command line; what of it a command line cannot say is left out."""
    momentum = isinstance(chosen, SGD) and chosen.momentum > 0
    return f"{'momentum' if momentum else type(chosen).__name__.lower()}:{chosen.lr:g}"


def _python_value(value: Any) -> str:
    if isinstance(value, slice):
        return f"slice({value.start}, {value.stop})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_python_value(each)}" for key, each in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else repr(value)


def python_text(chosen: Any) -> str:
    """A scheme or optimiser as in Python, without what is default anyway: ``mt.Sparse({2: slice(0, 8)}, ...)``."""
    named = [
        f"{each.name}={_python_value(getattr(chosen, each.name))}"
        for each in fields(chosen)
        if getattr(chosen, each.name) != each.default or each.name in ("lr", "layers", "rank")
        if getattr(chosen, each.name) is not None
    ]
    return f"mt.{type(chosen).__name__}({', '.join(named)})"
