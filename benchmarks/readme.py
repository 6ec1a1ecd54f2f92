"""The figures in README.md, written from ``results.json`` so that they cannot differ from what was measured;
``pages.py`` does the same for docs/."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.pages import anchor, rewrite_pages
from benchmarks.readme_devices import devices
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

| the toaster, for years | |
|---|---|
| 90 days away, then the same person: accepted at the first use back | **{back} %** |
| 90 days away, then somebody else: uses until 90 % is accepted | **{known}** |
| one use in ten set to a wild value, as by children: points lost after 50 | **{lost}** |
| simulated on this machine, at 3 uses a day | **{years} device-years a minute** |

| the toaster on | flash | RAM, stack included | a prediction | a whole update |
|---|---|---|---|---|
| Cortex-M4F | {flash} bytes | {ram} bytes | {p4} instructions | {u4} instructions |
| Cortex-M0 (no floating-point unit) | | | {p0} | {u0} |

**The wearer** (`examples/wearer`): activity recognition on WISDM, 36 people, each new to the base network; of a
person's windows a random half is learnt from, the other half tests. After 20 samples **{wh20} %** of the people are
harmed: served worse than without learning, by more than a point (mean of seeds 11 to 15; accuracy is of seed 11).

| samples learnt | 0 | 5 | 10 | 20 | 50 |
|---|---|---|---|---|---|
| accuracy, % | {wa0} | {wa5} | {wa10} | {wa20} | {wa50} |
| people harmed by more than a point, % | | {wh5} | {wh10} | {wh20} | {wh50} |

{speaker}{camera}{devices}{networks}**One training step** of a 4-16-1 ReLU net on one sample:

| | Cortex-M4F, instructions | RAM beyond the parameters, bytes | x86-64, relative time |
|---|---|---|---|
| microtune | **{si}** | **{sr}** | **1** |
| plain C loop, compiled alike | | | {xp} |
| River | | | {xr} |
| PyTorch eager | | | {xt} |
| scikit-learn `partial_fit` | | | {xs} |

{chip}"""

SPEAKER = """\
**The speaker** (`examples/speaker`): on MLPerf Tiny's int8 keyword net, frozen, a head learns the spoken digits of
{people} people, each new to it.

| samples learnt | 0 | 5 | 10 | 20 | 50 |
|---|---|---|---|---|---|
| accuracy, % | {accuracy} |
| the other people with this device, % | {others} |

After 100 samples said digit after digit, all zeros first (`buffer=50, replay=50, ewc=15`): the person **{own_kept} %**,
the others **{others_kept} %**.

"""

CAMERA = """\
**The camera** (`examples/camera`): MobileNetV2 of {full} parameters (width 0.35, int8, 128 x 128) learns handwritten
digits in {images} steps, each on one picture; {test} others test.

| what learns | trained parameters | accuracy, % | all RAM, stack included |
|---|---|---|---|
{rows}

"""

NETWORKS = """\
**Published networks**, int8, one prediction by the generated C (on x86-64 LiteRT's desktop kernels are {slowest} to
{fastest} times as fast; the C here is that of the chip):

| MLPerf Tiny | Cortex-M4F, instructions | RAM, input included | weights in flash |
|---|---|---|---|
{nets}
{packed}{keywords}
**Training in 256 KB**, one image of 128 x 128 at a time, true gradients, int8 weights ([how](docs/memory.md)): a step
of MCUNet-5FPS under its published scheme 49kb takes **{anchor}** bytes of RAM, where the generator published with it
plans {published}; all {schemes} published schemes of three nets fit, within {above} % of the most bytes ever alive at
once.

"""

MEANS = "and elastic weights"
"""The last of ``MEMORIES`` in examples/speaker/run.py: a ring, a reservoir and elastic weights."""
LEARNT = ("0", "5", "10", "20", "50")
NETS = {"keywords": "keywords", "images": "images", "person": "person in the picture", "sounds": "machine sounds"}


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
    absence, people = results["toaster"]["absence"], results["toaster"]["acceptance"]["default"]
    known = absence["successor_known_after"]
    found.update(
        back=_percent(absence["same_at_first"]),
        known=f"more than {len(absence['successor'])}" if known is None else str(known),
        lost=_percent(people["consistent"]["50"] - people["prankster"]["50"]),
        years=f"{results['toaster']['device_years_a_minute']:,}",
    )
    found.update(flash=f"{results['toaster']['flash']:,}", ram=f"{results['toaster']['ram']:,}")
    return found


def _speaker(results: dict[str, Any]) -> str:
    """Nothing where it was not run."""
    found = results.get("speaker")
    if found is None:
        return ""
    rows = {key: " | ".join(f"{found[key][str(count)]:.1f}" for count in LEARNT) for key in ("accuracy", "others")}
    kept = {f"{who}_kept": f"{found['sorted'][MEANS][who]['100']:.1f}" for who in ("own", "others")}
    return SPEAKER.format(people=found["people"], **rows, **kept)


def _camera(results: dict[str, Any]) -> str:
    """Nothing where it was not run."""
    found = results.get("camera")
    if found is None:
        return ""
    rows = [
        f"| {name} | {each['parameters']:,} ({each['times_fewer']:.0f} times fewer) "
        f"| {each['accuracy'][str(found['images'])]:.1f} | {each['ram']:,} bytes |"
        for name, each in found["schemes"].items()
    ]
    return CAMERA.format(
        images=f"{found['images']:,}", test=found["pictures"]["test"], full=f"{found['full_parameters']:,}",
        rows="\n".join(rows),
    )  # fmt: skip


def _largest_excess(rows: list[dict[str, Any]]) -> float:
    """Per cent that a scheme lies above its lower bound, at most."""
    return float(max(100 * (row["total"] / row["total_bound"] - 1) for row in rows))


def _networks(results: dict[str, Any]) -> str:
    """Nothing where the published networks are not at hand."""
    inference, memory = results.get("inference"), results.get("training memory")
    if inference is None or memory is None:
        return ""
    rows = [
        f"| {NETS[name]} | {row['instructions']:,} | {row['arena']:,} bytes | {row['weights']:,} bytes |"
        for name, row in inference["nets"].items()
    ]
    right = inference["keywords_right"]
    heard = "" if right is None else f"\nThe keyword net names {right:.0f} of 100 real clips right.\n"
    ratios = [1 / row["litert_over_ours"] for row in inference["nets"].values()]
    said = (
        "Stored without its zeros, which is the default and `sparse=False` prevents ([how](docs/shrinking.md)), the "
        "net of the {} takes {:,} bytes of weights and {:,} instructions."
    )
    packed = [
        "\n" + fill(said.format(NETS[name], row["packed"]["weights"], row["packed"]["instructions"]), 120) + "\n"
        for name, row in inference["nets"].items()
        if row.get("packed")
    ]
    return NETWORKS.format(
        nets="\n".join(rows),
        packed="".join(packed),
        keywords=heard,
        slowest=f"{min(ratios):.0f}",
        fastest=f"{max(ratios):.0f}",
        anchor=anchor(results),
        published=f"{memory['published']:,}",
        schemes=len(memory["schemes"]),
        above=f"{_largest_excess(memory['schemes']):.1f}",
    )


def _chip(results: dict[str, Any]) -> str:
    """What others take of the chip, as far as it was measured."""
    said = []
    if "dense" in results:
        nets = results["dense"]["tables"]["cortex-m4"]
        times = [nets[net]["AIfES"]["step"] / nets[net]["microtune"]["step"] for net in ("4-16-1", "64-128-10")]
        aifes = "AIfES takes **{:.0f} times** the instructions of this step, {:.0f} times for 64-128-10"
        said.append(aifes.format(*times))
    if "integers" in results:
        fewer = results["integers"]["steps"]["cortex-m0"]["4-16-1"]["times_fewer"]
        said.append(f"on Cortex-M0 soft float takes **{fewer} times** those of integers ([how](docs/integers.md))")
    if "cmsis-nn" in results:
        ratios = [row["ratio"] for row in results["cmsis-nn"].values()]
        said.append(f"the published networks take {min(ratios):.2f} to {max(ratios):.2f} times those of CMSIS-NN")
    text = f"Side by side, with flash and RAM, in [docs/chip.md](docs/chip.md): {'; '.join(said)}."
    return fill(text, 120, break_on_hyphens=False, break_long_words=False) + "\n\n" if said else ""


def section(results: dict[str, Any]) -> str:
    """The text of the section for these results."""
    wearer, step, ratios = results["wearer"], results["step on cortex-m4"], results["step on the host"]["ratios"]
    found = _toaster(results)
    for count in LEARNT:
        found[f"wa{count}"] = f"{wearer['accuracy'][count]:.1f}"
        found[f"wh{count}"] = f"{results['forgetting']['wearer']['caution=0.5']['harmed'][count]:.0f}"
    return TEMPLATE.format(
        **found,
        speaker=_speaker(results),
        camera=_camera(results),
        devices=devices(results),
        networks=_networks(results),
        chip=_chip(results),
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
    """Bring README and the pages up to date."""
    results = json.loads(FILE.read_text())
    README.write_text(rewritten(README.read_text(), results))
    rewrite_pages(results)
