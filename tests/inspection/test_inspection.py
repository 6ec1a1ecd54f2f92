"""A device's storage is read without its build, whatever state it is in (SPEC C11, issue 4)."""

import json
import struct
import xml.dom.minidom
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from microtune.cli import app
from microtune.errors import MicrotuneError
from microtune.inspection import Image, inspect_bytes, log_picture, read_image
from microtune.inspection.image import KINDS, METRICS
from microtune.inspection.picture import unwrapped

BUILD, OTHER = 0x1234ABCD, 0x0DDBA11D
PERSON = struct.pack("<I12x4HIII I2H2f", 7, 1, 2, 3, 0, 50, 0b1110_1111, 8, 0, 0, 0, 0.75, 0.5)


def counters(version: int, start: int = 100) -> bytes:
    names = METRICS[version]
    # as counters are: no fewer predictions than observations, and so on
    values = {"predictions": 900, "observations": 800, "overrides": 90, "fallbacks": 10}
    return struct.pack(
        f"<{len(names) - 1}If", *(values.get(name, start + i) for i, name in enumerate(names[:-1])), 0.125
    )


def payload(profiles: int = 2, contexts: int = 1, profile: int = 1, tail: int = 300) -> bytes:
    """A state of version 1; behind it samples: what must never be told."""
    size = len(PERSON) + 40
    people = 36 + 4 * len(METRICS[1]) + 8
    head = struct.pack("<4H5I2HI", 1, profiles, contexts, 0, people, size, len(PERSON), 10, 0xABC, profile, 0, 6)
    return (head + counters(1)).ljust(people, b"\0") + (PERSON + b"\x77" * 40) * profiles * contexts + b"\x55" * tail


def first_payload() -> bytes:
    """A state from before states had versions."""
    head = struct.pack("<I6H4I", 0xDEADBEEF, 30, 3, 2, 5, 1, 0, 700, 0b101, 3, 0)
    return head[:28] + struct.pack("<ff", 0.9, 0.25) + counters(0) + b"\x55" * 200


def slot(form: int, identity: int, sequence: int, content: bytes) -> bytes:
    words = struct.pack("<4sIII", f"MTS{form}".encode(), identity, sequence, len(content))
    checksum = struct.pack("<I", zlib.crc32(words + content))
    header = words + checksum + b"\x5a\xa5\xa5\x5a" if form == 1 else (words + checksum).ljust(32, b"\0") + b"\x5a" * 32
    return header + content


def record(number: int, kind: int = 9, uses: int | None = None, version: bytes = b"1", taken: int = 0) -> bytes:
    uses = 100 + 4 * number if uses is None else uses
    words = struct.pack(
        "<cc2B3I4Bf2H", b"L", version, kind, 2, number, 60 * number % 2**32, uses, 1, 24, 32, 204, 0.5, taken % 65536, 3
    )
    return words + struct.pack("<I", zlib.crc32(words))


def storage(
    saves: int = 3, records: int = 30, sector: int = 256, sectors: int = 2, form: int = 2, content: bytes = b""
) -> bytearray:
    """A port's storage: two slots, then the log, as the C leaves it after so many saves and records."""
    content = content or payload()
    stride = -(-(64 + len(content)) // sector) * sector
    log_at = 2 * stride
    memory = bytearray(b"\xff" * (log_at + sectors * sector))
    for number in range(1, saves + 1):
        at = number % 2 * stride
        memory[at : at + stride] = slot(form, BUILD, number, content).ljust(stride, b"\xff")
    units = sectors * sector // 32
    for number in range(records):
        at = log_at + number % units * 32
        if at % sector == 0:
            memory[at : at + sector] = b"\xff" * sector
        memory[at : at + 32] = record(number, 1 + number % 11, taken=65530 + number)
    return memory


def test_all_that_is_in_a_storage() -> None:
    found = inspect_bytes(bytes(storage()))
    assert found.notes == ()
    assert [(each.sequence, each.whole, each.format, each.identity) for each in found.slots] == [
        (2, True, "MTS2", "0x1234ABCD"),
        (3, True, "MTS2", "0x1234ABCD"),
    ]
    assert found.newest == 1
    assert found.state is not None and found.wear is not None and found.log is not None
    assert (found.state.version, found.state.sequence, found.state.profile, found.state.teaching) == (1, 3, 1, 6)
    assert found.state.metrics is not None
    assert tuple(found.state.metrics) == METRICS[1]
    assert found.state.metrics["observations"] == 800
    assert found.state.metrics["changes"] == 112
    assert found.state.metrics["mean_error"] == 0.125
    assert [(each.profile, each.context, each.uses, each.recent) for each in found.state.people] == [
        (0, 0, 50, 8),
        (1, 0, 50, 8),
    ]
    assert (found.state.people[0].right, found.state.people[0].confidence) == (7 / 8, 0.75)
    assert asdict(found.wear) == {"slots": 2, "saves": 3, "erases": 2}
    # sector 0 was entered with 16, which erased 0 to 7; 24 to 29 are in sector 1, which lost 8 to 15
    assert [each.number for each in found.log.records] == list(range(16, 30))
    assert (found.log.missing, found.log.unknown, found.log.erases) == (0, 0, 2)
    newest = found.log.records[-1]
    assert (newest.kind, newest.detail, newest.uses, newest.time) == (KINDS[8][0], 2, 216, 29 * 60)
    assert (newest.right, newest.confidence, newest.error, newest.profile) == (0.75, 0.8, 0.5, 1)


@pytest.mark.parametrize("saves", range(1, 6))
@pytest.mark.parametrize("form", [1, 2])
def test_states_of_every_format(form: int, saves: int) -> None:
    found = inspect_bytes(bytes(storage(saves, 0, form=form)))
    assert found.state is not None and found.state.sequence == saves and found.log is None
    assert found.wear is not None and found.wear.erases == (saves + 1) // 2


def test_states_from_before_there_were_versions() -> None:
    for form in (1, 2):
        found = inspect_bytes(bytes(storage(form=form, content=first_payload())))
        assert found.state is not None and found.state.version == 0
        assert found.state.metrics is not None
        assert tuple(found.state.metrics) == METRICS[0]
        assert (found.state.metrics["predictions"], found.state.metrics["recoveries"]) == (900, 110)
        (person,) = found.state.people
        assert (person.uses, person.recent, person.right, person.confidence) == (700, 3, 2 / 3, 0.9)


def test_states_of_a_later_version_are_told_of_by_their_header() -> None:
    later = b"\x02\0" + payload()[2:]
    found = inspect_bytes(bytes(storage(content=later)))
    assert found.state is not None and found.state.version is None and found.state.metrics is None
    assert "not known" in found.notes[0]
    assert found.wear is not None and found.log is not None


def test_whose_profile_is_recognised() -> None:
    found = inspect_bytes(bytes(storage(content=payload(profile=0xFFFF))))
    assert found.state is not None and found.state.profile is None


def test_the_newest_of_several_builds() -> None:
    memory = storage(3, 0)
    older = slot(1, OTHER, 2, first_payload())
    memory[: len(older)] = older
    found = inspect_bytes(bytes(memory))
    assert {each.identity for each in found.slots} == {"0x1234ABCD", "0x0DDBA11D"}
    assert found.state is not None and found.state.identity == "0x1234ABCD"


def test_numbers_that_wrap_around() -> None:
    content = payload()
    stride = 1024
    memory = slot(2, BUILD, 1, content).ljust(stride, b"\xff") + slot(2, BUILD, 0xFFFFFFFF, content).ljust(stride)
    found = inspect_bytes(memory)
    assert found.state is not None and found.state.sequence == 1
    log = inspect_bytes(
        b"".join(record(number % 2**32, uses=1) for number in (2**32, 2**32 + 1, 2**32 - 2, 2**32 - 1))
    ).log
    assert log is not None
    assert [each.number for each in log.records] == [0xFFFFFFFE, 0xFFFFFFFF, 0, 1]
    assert log.missing == 0


def test_a_log_alone_gaps_and_later_records() -> None:
    memory = bytearray(storage())[-512:]
    found = inspect_bytes(bytes(memory)).log
    assert found is not None and len(found.records) == 14
    memory[32:64] = b"\xff" * 20 + b"\0" * 12
    found = inspect_bytes(bytes(memory)).log
    assert found is not None and (len(found.records), found.missing) == (13, 1)
    memory[64:96] = record(18, version=b"2")
    image = inspect_bytes(bytes(memory))
    assert image.log is not None and (len(image.log.records), image.log.unknown) == (12, 1)
    assert "not known" in image.notes[0]
    memory[:] = memory[16:] + memory[:16]  # no record stands at a multiple of 32 any more
    assert inspect_bytes(bytes(memory)).log is None


@pytest.mark.parametrize("records, sectors", [(1, 2), (9, 4), (40, 2), (41, 2), (100, 3), (32, 2), (997, 5)])
def test_how_worn_the_log_is(records: int, sectors: int) -> None:
    log = inspect_bytes(bytes(storage(0, records, sectors=sectors))).log
    assert log is not None
    assert log.erases == -(-records // (8 * sectors))


def test_no_input_and_no_label_is_told() -> None:
    """A sample's bytes may change as they like: nothing that is told does."""
    plain, other = payload(), bytearray(payload())
    other[-300:] = b"\x99" * 300
    told = [asdict(inspect_bytes(bytes(storage(content=bytes(each))))) for each in (plain, other)]
    assert told[0] == told[1]


## Damage ##


WHOLE = bytes(storage())


def check(found: Image) -> None:
    """Whatever was found can be shown, and is what was written."""
    json.dumps(asdict(found), allow_nan=False)
    if found.log is not None:
        for each in found.log.records:
            assert each.number in range(30)
    if found.state is not None:
        assert found.state.sequence in (2, 3)
        assert found.state.metrics is not None and found.state.metrics["observations"] == 800


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 8 * len(WHOLE) - 1), min_size=1, max_size=12, unique=True))
def test_flipped_bits(bits: list[int]) -> None:
    memory = bytearray(WHOLE)
    for bit in bits:
        memory[bit // 8] ^= 1 << bit % 8
    found = inspect_bytes(bytes(memory))
    check(found)
    assert found.log is not None
    hit = {bit // 256 for bit in bits}
    kept = [number for number in range(16, 30) if (len(WHOLE) - 512) // 32 + number % 16 not in hit]
    assert [each.number for each in found.log.records] == kept


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(WHOLE)), st.integers(0, 40))
def test_a_part_of_a_storage(kept: int, left_out: int) -> None:
    check(inspect_bytes(WHOLE[:kept]))
    check(inspect_bytes(WHOLE[8 * left_out :]))


HEADERS = st.builds(
    lambda kind, words, rest: kind + struct.pack("<4I", *words) + rest,
    st.sampled_from([b"MTS1", b"MTS2", b"L1", b"L2"]),
    st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 100), min_size=4, max_size=4),
    st.binary(max_size=100),
)
STATES = st.builds(lambda form, words: slot(form, BUILD, 1, words), st.sampled_from([1, 2]), st.binary(max_size=300))
RECORDS = st.builds(
    lambda words: words + struct.pack("<I", zlib.crc32(words)),
    st.builds(lambda rest: b"L1" + rest, st.binary(min_size=26, max_size=26)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(HEADERS, STATES, RECORDS, st.binary(max_size=200)), max_size=6), st.sampled_from([1, 32]))
def test_any_bytes(parts: list[bytes], apart: int) -> None:
    """Also those that have the right checksums and no meaning."""
    found = inspect_bytes(b"".join(part.ljust(-(-len(part) // apart) * apart, b"\xff") for part in parts))
    json.dumps(asdict(found), allow_nan=False)
    if found.log is not None and found.log.records:
        xml.dom.minidom.parseString(log_picture(found.log, "any"))


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=92, max_size=400), st.sampled_from([b"", b"\1\0", b"\1\0\1\0\1\0\0\0"]))
def test_any_whole_payload(content: bytes, start: bytes) -> None:
    found = inspect_bytes(slot(2, BUILD, 1, start + content[len(start) :]))
    json.dumps(asdict(found), allow_nan=False)
    assert found.state is not None


## The command ##


@pytest.fixture
def inspect(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def run(content: bytes | None, *options: str) -> tuple[int, str]:
        file = tmp_path / "toaster.state"
        if content is not None:
            file.write_bytes(content)
        result = CliRunner(env={"COLUMNS": "150"}).invoke(app, ["inspect", str(file), *options])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


def test_tables_and_figures(inspect: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, shown = inspect(WHOLE, "--picture", str(tmp_path / "pictures" / "log.svg"))
    assert code == 0
    for word in (
        "newest",
        "0x1234ABCD",
        "3 saves; erases of the most worn of 2 slots: 2",
        "observations",
        "800",
        "change of habits",
        "75 %",
        "0.125",
    ):
        assert word in shown, word
    drawing = (tmp_path / "pictures" / "log.svg").read_text()
    assert xml.dom.minidom.parseString(drawing).getElementsByTagName("polyline").length == 5
    assert "change of habits" in drawing
    code, shown = inspect(WHOLE, "--json")
    assert code == 0
    found = json.loads(shown)
    assert found["state"]["metrics"]["observations"] == 800
    assert [each["number"] for each in found["log"]["records"]] == list(range(16, 30))


def test_what_is_no_storage(inspect: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    for content, said in (
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"PK\3\4" * 1000, "not the storage of a device"),
        ((Path(__file__).parent / "../../src/microtune/runtime/mt_store.c").read_bytes(), "not the storage"),
    ):
        code, shown = inspect(content)
        assert code == 1 and said in shown.replace("\n", " "), shown
    with pytest.raises(MicrotuneError, match="cannot be read"):
        read_image(tmp_path)  # a directory that is no package
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(MicrotuneError, match="no device's storage"):
        read_image(huge)


def test_what_holds_nothing_or_nothing_whole(inspect: Callable[..., tuple[int, str]]) -> None:
    for erased in (b"\xff", b"\0"):
        code, shown = inspect(erased * 4096)
        assert code == 0 and "nothing was saved" in shown
    code, shown = inspect(bytes(storage(1, 0)).replace(b"\x55" * 300, b"\x55" * 299 + b"\x54"))
    assert code == 0 and "not whole" in shown
    code, shown = inspect(bytes(storage(2, 0)), "--picture", "log.svg")
    assert code == 1 and "no log" in shown


def test_counters_of_sixteen_bits_go_on() -> None:
    assert unwrapped([65534, 65535, 0, 1, 1, 5]) == [65534, 65535, 65536, 65537, 65537, 65541]
    assert unwrapped([500, 3, 4]) == [500, 3, 4]  # a state was lost
    assert unwrapped([]) == []
