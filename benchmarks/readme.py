"""The figures in README.md, written from ``results.json`` so that they cannot differ from what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.results import FILE

README = Path(__file__).parent.parent / "README.md"
START, END = "## What it reaches\n", "## Quickstart\n"

TEMPLATE = """## What it reaches

All by the generated C; `make bench` measures every figure again, keeps it in
[benchmarks/results.json](benchmarks/results.json) and fails when a promised limit is missed. Machine: 2-core x86-64;
cores are emulated, their instructions counted exactly.

**The toaster** (`examples/toaster`): share of suggestions within 10 % of what the household wants, over 30 simulated
households and a base network that were not used while tuning. The folklore recipe is a buffer of 100 and, every
20 uses, 3 epochs of SGD at 0.001.

| % accepted | folklore recipe | microtune |
|---|---|---|
| consistent person, after 5 / 20 uses | {rc5} / {rc20} | **{c5} / {c20}** |
| the worst tenth of them, after 20 | {rw20} | **{w20}** |
| 5 / 10 uses after an abrupt change of habit | {ra5} / {ra10} | **{a5} / {a10}** |
| two people at one toaster, after 20 | {rt20} | **{t20}** |
| drifting taste, after 20 / 100 | {rd20} / {rd100} | **{d20} / {d100}** |
| contexts not visited since a local change, 5 / 15 / 60 uses on | {rl5} / {rl15} / {rl60} | **{l5} / {l15} / {l60}** |
| careless person, after 20 (against the true preference) | {rn20} | **{n20}** |

| the toaster on | flash | RAM, stack included | a prediction | a whole update |
|---|---|---|---|---|
| Cortex-M4F | {flash} bytes | {ram} bytes | {p4} instructions | {u4} instructions |
| Cortex-M0 (no floating-point unit) | | | {p0} | {u0} |

**The wearer** (`examples/wearer`): activity recognition on WISDM, 36 people, each new to the base network; of a
person's windows a random half is learnt from, the other half tests.

| samples learnt | 0 | 5 | 10 | 20 | 50 |
|---|---|---|---|---|---|
| accuracy, % | {wa0} | {wa5} | {wa10} | {wa20} | {wa50} |
| people harmed by more than a point, % | | {wh5} | {wh10} | {wh20} | {wh50} |

**One training step** of a 4-16-1 ReLU net on one sample:

| | Cortex-M4F, instructions | RAM beyond the parameters, bytes | x86-64, relative time |
|---|---|---|---|
| microtune | **{si}** | **{sr}** | **1** |
| plain C loop, compiled alike | | | {xp} |
| River | | | {xr} |
| PyTorch eager | | | {xt} |
| scikit-learn `partial_fit` | | | {xs} |

"""


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _toaster(results: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for prefix, learner in (("", "default"), ("r", "recipe")):
        people = results["toaster"]["acceptance"][learner]
        rows = {
            "c5": people["consistent"]["5"],
            "c20": people["consistent"]["20"],
            "w20": people["consistent"]["worst_tenth"]["20"],
            "a5": people["abrupt"]["after_change"]["5"],
            "a10": people["abrupt"]["after_change"]["10"],
            "t20": people["two_people"]["20"],
            "d20": people["drifting"]["20"],
            "d100": people["drifting"]["100"],
            "l5": people["narrow"]["after_change"]["5"],
            "l15": people["narrow"]["after_change"]["15"],
            "l60": people["narrow"]["100"],
            "n20": people["noisy"]["20"],
        }
        found.update({prefix + key: _percent(value) for key, value in rows.items()})
    counts = results["toaster"]["instructions"]
    for key, core in (("4", "cortex-m4"), ("0", "cortex-m0")):
        found[f"p{key}"] = f"{counts[core]['predict']:,}"
        found[f"u{key}"] = f"{counts[core]['update']:,}"
    found.update(flash=f"{results['toaster']['flash']:,}", ram=f"{results['toaster']['ram']:,}")
    return found


def section(results: dict[str, Any]) -> str:
    """The text of the section for these results."""
    wearer, step, ratios = results["wearer"], results["step on cortex-m4"], results["step on the host"]["ratios"]
    found = _toaster(results)
    for count in ("0", "5", "10", "20", "50"):
        found[f"wa{count}"] = f"{wearer['accuracy'][count]:.1f}"
        found[f"wh{count}"] = f"{wearer['harmed'][count]:.0f}"
    return TEMPLATE.format(
        **found,
        si=f"{step['instructions']:,}",
        sr=step["ram"],
        xp=f"{ratios['plain C loop']:.1f}",
        xr=f"{ratios['River linear regression']:,.0f}",
        xt=f"{ratios['PyTorch eager']:,.0f}",
        xs=f"{ratios['scikit-learn partial_fit']:,.0f}",
    )


def rewritten(readme: str, results: dict[str, Any]) -> str:
    """README with its section of figures replaced."""
    head, _, rest = readme.partition(START)
    _, _, tail = rest.partition(END)
    return head + section(results) + END + tail


def rewrite() -> None:
    """Bring README up to date."""
    README.write_text(rewritten(README.read_text(), json.loads(FILE.read_text())))
