"""README claims what was measured: its figures are those of benchmarks/results.json."""

import json

from benchmarks.readme import README, rewritten, section
from benchmarks.results import FILE


def test_readme_shows_the_measured_figures() -> None:
    results = json.loads(FILE.read_text())
    assert README.read_text() == rewritten(README.read_text(), results), "run make bench, or benchmarks.readme.rewrite"


def test_another_result_is_another_readme() -> None:
    results = json.loads(FILE.read_text())
    before = section(results)
    results["toaster"]["flash"] += 1
    assert section(results) != before
