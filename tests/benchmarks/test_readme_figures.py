"""README and the pages of ``benchmarks/pages.py`` claim what was measured: their figures are those of results.json."""

import json
from pathlib import Path

import pytest
from benchmarks.change import CHANGING, PEOPLE, STAYING, WRONG, change_tables
from benchmarks.forgetting import JUDGED, LONGER, MEANS, MEMORIES, text
from benchmarks.heads import HEADS as COMPARED
from benchmarks.heads import PLACES, YES_OR_NO
from benchmarks.heads_fixed import CORES, PER_PLACE, WITHIN
from benchmarks.integer_accuracy import integers_tables
from benchmarks.pages import (
    CHANGE,
    MEMORY,
    PAGES,
    SENSORS,
    forgetting_tables,
    heads_tables,
    rewritten_page,
    sensors_tables,
)
from benchmarks.readme import MEANS as KEEPS
from benchmarks.readme import README, rewritten, section
from benchmarks.results import FILE
from benchmarks.sensors import APART, CLOSE, FACTORY, JUMPS, WORLDS
from benchmarks.stack import AT_MOST

from microtune import gallery
from microtune.targets import targets


def test_readme_shows_the_measured_figures() -> None:
    results = json.loads(FILE.read_text())
    assert README.read_text() == rewritten(README.read_text(), results), "run make bench, or benchmarks.readme.rewrite"


def test_another_result_is_another_readme() -> None:
    results = json.loads(FILE.read_text())
    before = section(results)
    results["toaster"]["flash"] += 1
    assert section(results) != before


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_page_shows_the_measured_figures(path: Path) -> None:
    page, results = path.read_text(), json.loads(FILE.read_text())
    assert page == rewritten_page(path, page, results), "run make bench, or benchmarks.readme.rewrite"


def test_integers_are_shown_at_each_count_in_order() -> None:
    results = json.loads(FILE.read_text())
    rows = [line.split(" | ")[:2] for line in integers_tables(results).splitlines() if "samples |" in line]
    assert [int(count.split()[0]) for name, count in rows if name == "| wearer"] == [5, 10, 20, 50]


def test_another_plan_is_another_page() -> None:
    results = json.loads(FILE.read_text())
    before = rewritten_page(MEMORY, MEMORY.read_text(), results)
    results["training memory"]["schemes"][0]["total"] += 1
    assert rewritten_page(MEMORY, before, results) != before


def test_the_stack_is_bounded_and_closely() -> None:
    results = json.loads(FILE.read_text())
    assert len(results["stack"]) == 3
    for cores in results["stack"].values():
        assert set(cores) == {each.name for each in targets() if each.emulated}
        assert all(row["measured"] <= row["bound"] <= AT_MOST * row["measured"] for row in cores.values())


def test_the_power_page_has_every_core() -> None:
    results = json.loads(FILE.read_text())
    assert set(results["power"]) == {each.name for each in targets() if each.power is not None}
    for core, row in results["power"].items():
        assert 0 < row["slice"]["instructions"] < row["update"]["instructions"] / 4, core
        assert row["update"]["joules"] == pytest.approx(row["update"]["instructions"] * row["energy"], rel=1e-3)


def test_the_page_of_the_heads_shows_the_measured_figures_of_each() -> None:
    results = json.loads(FILE.read_text())
    found = results["heads"]
    assert set(found) == set(PLACES) and set(found["wearer"]) == set(COMPARED) and set(found["likes"]) == set(YES_OR_NO)
    assert {key.partition(": ")[2] for key in found["speaker"]} == set(COMPARED)
    before = heads_tables(results)
    for figures in (found["speaker"]["digit by digit: MAP"]["others"], found["wearer"]["SLDA"]["own"]):
        figures["100" if "100" in figures else "20"] = 12.3
        assert heads_tables(results).count("12.3") == before.count("12.3") + 1
        before = heads_tables(results)
    found["likes"]["Logistic"]["changing"]["100"] = 45.6
    assert "| tastes that change, 100 answers" in before and "45.6 |\n" in heads_tables(results)
    fixed = results["heads in integers"]
    assert fixed["apart"] <= WITHIN
    assert set(fixed["places"]) == set(PER_PLACE) and set(fixed["instructions"]) == set(CORES)
    fixed["places"]["wearer"]["SLDA, integers"]["own"]["50"] = 65.4
    fixed["instructions"]["cortex-m0"]["RLS"]["integers"] = 23456
    changed = heads_tables(results)
    assert "| 65.4 |\n" in changed and "| 23,456 |" in changed and "| 65.4 |\n" not in before


def test_the_page_of_changes_shows_the_measured_figures() -> None:
    page, results = CHANGE.read_text(), json.loads(FILE.read_text())
    found = results["change"]
    assert all(set(row) == set(STAYING) for order in found["false alarms"].values() for row in order.values())
    assert len(found["swaps"]) == len(WRONG) and all(set(row) == set(CHANGING) for row in found["swaps"].values())
    assert all(set(lived) == set(PEOPLE) for lived in found["lamps"].values())
    found["false alarms"]["blocks"]["10%"]["three"] = 12.34
    found["swaps"]["20%"]["three"].update(median=None, never=98.0)
    found["swaps"]["0%"]["six, reservoir"].update({"overtaken dropped": 76.0, "others dropped": 54.0})
    found["lamps"]["switch"]["narrow"]["harmed"] = [65.4, 32.1]
    found["cost"].update(code=98765, stack=4321)
    found["cost"]["instructions"]["64"]["contradiction"] = 87654
    changed = change_tables(results)
    for claim in ("| 12.34 |", "over 100; 98 %", "(76 %, 54 %)", "65.4 to 32.1", "98,765 bytes", "4321", "| 87,654 |"):
        assert claim in changed and claim not in page, claim


def test_the_page_of_sensors_shows_the_measured_figures() -> None:
    page, results = SENSORS.read_text(), json.loads(FILE.read_text())
    found = results["sensors"]
    assert set(found["healthy"]) == set(WORLDS) and set(found["wearers"]) == set(map(str, FACTORY))
    assert set(found["recognised"]["hours"]) == {*APART, *CLOSE} and set(found["jumps"]) == set(map(str, JUMPS))
    found["healthy"]["heart"].update(uses=76543, flagged=2109)
    found["wearers"]["100"]["flagged"] = 1234
    found["dying"]["other"].update(found=121, latest=77)
    found["jumps"]["6"]["5000"] = [65, 178, None]
    found["recognised"]["hours"]["7, 9"] = 12.3
    found["recognised"]["thermostat"] = 45.6
    found["cost"]["instructions"]["cortex-m0"]["check"] = 87654
    found["cost"]["code"]["recognition"] = 98765
    changed = sensors_tables(results)
    for claim in (
        "| 76,543 | 2,109 |", "| 1,234 |", "| 121 | use 77 of ", "| 65 | 178 | over 200 |", "| 12.3 % |", "| 45.6 % |",
        "| 87,654 |", "98,765",
    ):  # fmt: skip
        assert claim in changed and claim not in page, claim


def test_the_page_of_forgetting_shows_the_measured_figures_of_each_means() -> None:
    results = json.loads(FILE.read_text())
    speaker, wearer = results["forgetting"]["speaker"], results["forgetting"]["wearer"]
    assert set(speaker["once"]) == set(map(text, MEANS)) and set(wearer) == set(map(text, JUDGED))
    assert all(set(speaker[stream]) == set(map(text, MEMORIES)) for stream in LONGER)
    for figures, key in (
        (speaker["once"]["buffer=100, ewc=10"]["others"], "50"),
        (speaker["long runs"]["buffer=50, replay=50, ewc=10"]["own"], "200"),
        (speaker["twice over"]["buffer=100, ewc=10"]["others"], "200"),
        (wearer["caution=0"]["harmed"], "50"),
    ):
        before = forgetting_tables(results)
        figures[key] = 12.3
        assert forgetting_tables(results).count("12.3") == before.count("12.3") + 1


def test_what_the_page_of_forgetting_says_in_words_is_what_was_measured() -> None:
    found = json.loads(FILE.read_text())["forgetting"]
    once, wearer = found["speaker"]["once"], found["wearer"]

    def at_the_end(stream: str, who: str) -> dict[str, float]:
        return {name: reached[who]["200"] for name, reached in found["speaker"][stream].items()}

    own, others = ({name: each[who]["100"] for name, each in once.items()} for who in ("own", "others"))
    assert own["buffer=20"] < own["buffer=20, replay=30"] - 10 and max(own, key=lambda name: own[name]) == "buffer=100"
    assert others["buffer=100"] + 2 < others["buffer=100, pull=0.001"] < others["buffer=100, ewc=10"]
    assert abs(others["buffer=100, ewc=30"] - others["buffer=100, pull=0.005"]) < 1
    assert own["buffer=100, ewc=30"] > own["buffer=100, pull=0.005"]
    few = "buffer=10, restart=False, ewc=10"
    assert abs(own[few] - own[f"{few}, ewc_memory=100"]) < 1 and own[few] < own["buffer=20, replay=30"] - 5
    shared, newest = "buffer=50, replay=50, ewc=10", "buffer=100, ewc=10"
    runs, twice = at_the_end("long runs", "own"), at_the_end("twice over", "own")
    assert runs[shared] > runs[newest] + 5 and abs(twice[shared] - twice[newest]) < 3
    for count in ("20", "50"):
        gains = [wearer[text(each)]["gain"][count] for each in JUDGED]
        assert gains == sorted(gains, reverse=True)
        assert wearer["caution=0.5"]["harmed"][count] < min(wearer[text(each)]["harmed"][count] for each in JUDGED[:2])
    misled = [wearer[text(each)]["harmed"]["5"] for each in JUDGED]
    assert misled == sorted(misled, reverse=True) and misled[0] > 2 * misled[1]
    lost = [wearer[text(each)]["others_lose"]["50"] for each in JUDGED]
    assert lost == sorted(lost, reverse=True)


def test_readme_says_what_years_do_to_each() -> None:
    results = json.loads(FILE.read_text())
    results["toaster"]["absence"].update(same_at_first=0.5432, successor_known_after=None)
    results["toaster"]["acceptance"]["default"]["prankster"]["50"] = 0.5
    results["toaster"]["acceptance"]["default"]["consistent"]["50"] = 0.5678
    results["toaster"]["device_years_a_minute"] = 6543
    results["forgetting"]["wearer"]["caution=0.5"]["harmed"]["20"] = 77.7
    found = section(results)
    for claim in ("**54.3 %**", "**more than 10**", "**6.8**", "**6,543 device-years", "**78 %** of the people"):
        assert claim in found, claim
    assert list(gallery.load_example("speaker").MEMORIES)[-1] == KEEPS
    if "speaker" in results:
        results["speaker"]["sorted"][KEEPS]["others"]["100"] = 12.3
        assert "the others **12.3 %**" in section(results)


@pytest.mark.parametrize("part", ["speaker", "camera", "inference"])
def test_what_was_not_measured_is_not_claimed(part: str) -> None:
    results = json.loads(FILE.read_text())
    if part not in results:
        pytest.skip(f"{part} has not been measured yet")
    before = section(results)
    del results[part]
    assert len(section(results)) < len(before)
