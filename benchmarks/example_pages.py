"""The pages of the reference devices, examples/*/README.md: their tables from ``results.json``."""

from __future__ import annotations

from typing import Any

from benchmarks.tables import row_of, table_of

COUNTS = ("0", "5", "10", "20", "50")

HEART_ROWS = (
    ("illnesses noticed, %", "detected", 100),
    ("within three mornings, %", "detected_within_3", 100),
    ("mornings of false alarm, a person and year", "false_alarms_per_year", 1),
    ("people without a false alarm in half a year, %", "people_without", 100),
    ("error of the baseline, in spreads of a morning", "error", 1),
)
THERMOSTAT_ROWS = {
    "consistent": "consistent",
    "noisy": "noisy",
    "drifting": "drifting",
    "abrupt": "abrupt change at use 40",
    "two_people": "two people",
    "guests": "guests, one use in ten",
    "easygoing": "leaves good suggestions alone",
    "prankster": "prankster",
    "dying_sensor": "a sensor dies",
}
SPEAKER_ROWS = {
    "accuracy": "the new person, % right",
    "worst_person": "the worst of six, %",
    "harmed": "people harmed by more than a point, %",
    "others": "the other five with this device, %",
}
REMEMBERED = {
    "the newest 50": "the newest 50 (`buffer=50, pull=0`)",
    "and 50 kept of the older": "and 50 kept of the older (`replay=50`)",
    "and elastic weights": "and elastic weights (`ewc=15`)",
}


def heart_table(results: dict[str, Any]) -> str:
    """The illnesses noticed, with a baseline of one's own and with everybody's."""
    found = results["heart"]
    return table_of(
        row_of("", "their own baseline", "everybody's (the base alone)"),
        *(
            row_of(label, *(f"{scale * found[who][key]:.1f}" for who in ("own", "base")))
            for label, key, scale in HEART_ROWS
        ),
    )


def thermostat_table(results: dict[str, Any]) -> str:
    """Suggestions accepted by each of the simulated people."""
    found = results["thermostat"]

    def shares(person: str) -> list[str]:
        each = (found[question][person] for question in ("temperature", "occupancy"))
        return [f"{100 * row[key]:.1f}" for row in each for key in ("base", "week 1", "week 8")]

    table = table_of(
        row_of("person", "temperature: base alone", "week 1", "week 8", "occupancy: base alone", "week 1", "week 8"),
        *(row_of(label, *shares(person)) for person, label in THERMOSTAT_ROWS.items()),
    )
    harmed = 100 * max(row["harmed"] for people in found.values() for row in people.values())
    said = f"At most {harmed:.1f} % of devices are harmed: accepted less often than the base by more than a point."
    return f"{table}\n{said}\n"


def camera_table(results: dict[str, Any]) -> str:
    """Accuracy over the images, and RAM."""
    found = results["camera"]
    counts = ("0", "600", "1200", "2400")
    rows = [
        row_of(name, *(f"{each['accuracy'][count]:.1f}" for count in counts), f"{each['ram']:,}")
        for name, each in found["schemes"].items()
    ]
    table = table_of(row_of("scheme", *counts, f"RAM, bytes, limit {found['limit']:,}"), *rows)
    full = found["full"]
    return (
        f"{table}\nFull, all {found['full_parameters']:,} parameters, would take {full['ram']:,} bytes of RAM "
        f"(an arena of {full['arena']:,}).\n"
    )


def speaker_tables(results: dict[str, Any]) -> str:
    """What the new person and the others get, in any order and digit after digit; what it costs."""
    found = results["speaker"]
    reached = table_of(
        row_of("samples learnt", *COUNTS),
        *(
            row_of(label, *(f"{found[key][count]:.{0 if key == 'harmed' else 1}f}" for count in COUNTS))
            for key, label in SPEAKER_ROWS.items()
        ),
    )
    kept = table_of(
        row_of("digit after digit, 100 samples; remembers", "the person, % right", "the others, %"),
        *(
            row_of(label, *(f"{found['sorted'][name][who]['100']:.1f}" for who in ("own", "others")))
            for name, label in REMEMBERED.items()
        ),
    )
    core = found["core"]
    cost = (
        f"On a Cortex-M4: {core['flash']:,} bytes of flash, {core['ram']:,} bytes of RAM; one prediction takes "
        f"{core['predict'] / 1e6:.1f} million\ninstructions, an update on 50 samples, judgement included, "
        f"{core['update'] / 1e6:.0f} million.\n"
    )
    return "\n".join((reached, cost, kept))
