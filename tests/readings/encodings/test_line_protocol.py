"""Line protocol as InfluxDB documents it: what each line becomes, and that no text can bring lines of its own."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readings.encodings.line_protocol import LineProtocol, Precision
from readings.encodings.sent import BodyRefused, SentReading
from readings.reading import GENERATED_SEQ_START, ReadingError
from tests.readings.cases import FACE, NOW
from tests.readings.encodings.packs import stored, taken

NS = NOW * 10**6
lines = LineProtocol()


def sent(body: str, decode: LineProtocol = lines) -> list[SentReading]:
    """Return the readings of a body of which nothing is wrong."""
    found = list(decode(body.encode()))
    assert not any(isinstance(one, ReadingError) for one in found), found
    return [one for one in found if isinstance(one, SentReading)]


def named(body: str) -> list[tuple[str, Any]]:
    return [(one.name, one.value) for one in sent(body)]


def test_each_field_of_a_line_is_a_reading_with_its_tags_and_its_time() -> None:
    body = (
        f"air,room=cellar,floor=-1 temperature=18.5,humidity=61i {NS + 42}\nair,room=attic temperature=24 {NS + 43}\n"
    )
    documents, rejected = taken(lines, body.encode())
    assert rejected == []
    found = [(one["_id"]["sensorType"], int(one["_id"]["ts"]), one["_id"]["seq"], one["value"]) for one in documents]
    assert found == [
        ("air.temperature", NOW, 42, 18.5),
        ("air.humidity", NOW, 42, 61),
        ("air.temperature", NOW, 43, 24.0),
    ]
    assert [one["tags"] for one in documents] == [{"room": "cellar", "floor": "-1"}] * 2 + [{"room": "attic"}]


VALUES: list[tuple[str, Any]] = [
    *((text, float(text)) for text in ("1", "1.5", "-0.25", "+2", ".5", "5.", "1e3", "1E-3", "-1.25e+78", "0", "-0")),
    *((f"{text}i", int(text)) for text in ("0", "-7", "+7", "9223372036854775807", "-9223372036854775808")),
    *((f"{text}u", int(text)) for text in ("0", "7", "9223372036854775807")),
    *((text, True) for text in ("t", "T", "true", "True", "TRUE")),
    *((text, False) for text in ("f", "F", "false", "False", "FALSE")),
    ('""', ""),
    ('"on"', "on"),
    ('"a b,c=d"', "a b,c=d"),
    (r'"say \"hi\""', 'say "hi"'),
    (r'"C:\\dir\\"', "C:\\dir\\"),
    (r'"C:\dir\n"', "C:\\dir\\n"),
    (r'"\\\""', '\\"'),
    ('"# no comment"', "# no comment"),
    (f'"{FACE}"', FACE),
]


@pytest.mark.parametrize(("text", "value"), VALUES, ids=[text for text, _ in VALUES])
def test_a_value_has_the_kind_that_its_spelling_gives_it(text: str, value: Any) -> None:
    for body in (f"m v={text}", f"m v={text} {NS}", f"m a=1,v={text},b=2 {NS}"):
        (found,) = [one.value for one in sent(body) if one.name == "m.v"]
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    ["1.5i", "1e3i", "-1u", "i", "u", "1_0", "1x", "0x10", "1i2", "tru", "tRUE", "yes", "NaN", "nan", "Inf", "-inf",
     "+Infinity", "1e999", "9223372036854775808i", "18446744073709551615u", "1" * 401, "1" * 401 + "i", "٣", "1e", "."],
)  # fmt: skip
def test_what_is_no_value_rejects_its_field_alone(text: str) -> None:
    documents, rejected = taken(lines, f"m a=1,v={text},b=2 {NS}".encode())
    assert ([one["value"] for one in documents], rejected) == ([1, 2], [(1, "invalid_value")])


@pytest.mark.parametrize(
    ("line", "name", "tags"),
    [
        (r"my\ station v=1", "my station.v", {}),
        (r"my\,station v=1", "my,station.v", {}),
        (r"a\=b v=1", r"a\=b.v", {}),  # in a measurement `=` needs no backslash
        (r"a=b v=1", "a=b.v", {}),
        (r"m a\ b=1", "m.a b", {}),
        (r"m a\,b\=c=1", "m.a,b=c", {}),
        (r'm a"b=1', 'm.a"b', {}),
        (r'"m",k=it"s v=1', '"m".v', {"k": 'it"s'}),
        (r"m,k\ 1=v\ 1,k\,2=v\,2,k\=3=v\=3 v=1", "m.v", {"k 1": "v 1", "k,2": "v,2", "k=3": "v=3"}),
        (r"m,path=C:\dir\sub v=1", "m.v", {"path": r"C:\dir\sub"}),
        (r"m\\ x v=1", r"m\ x.v", {}),
        (r"m,k=\\ x v=1", r"m.v", {"k": "\\ x"}),
        ("м,к=з п=1", "м.п", {"к": "з"}),
        ("m,k=v  v=1  ", "m.v", {"k": "v"}),
    ],
)
def test_backslashes_escape_what_separates_and_nothing_else(line: str, name: str, tags: dict[str, str]) -> None:
    (found,) = sent(line)
    assert (found.name, found.tags or {}) == (name, tags)


def test_comments_blank_lines_and_ends_of_lines_are_no_readings() -> None:
    body = '# a comment\n\n  \t\r\nm v=1\r\n  # "another\nm v=2 #3\n#m v=4\n \n  m v=5\n#'
    documents, rejected = taken(lines, body.encode())
    assert ([one["value"] for one in documents], rejected) == ([1, 5], [(1, "invalid_reading")])
    assert list(lines(b"")) == list(lines(b"\n# only\n")) == []


def test_a_rejection_names_its_line_and_its_field() -> None:
    found = list(lines(b'# first\nm v=1\nm v=x,w=2\nm t="a\nb"\nbroken\n\nm v=y'))
    assert [one.detail.split(":")[0] for one in found if isinstance(one, ReadingError)] == [
        "line 3, v",
        "line 6",
        "line 8, v",
    ]
    assert [one.place for one in found if isinstance(one, SentReading)] == ["line 2, v", "line 3, w", "lines 4 to 5, t"]


BROKEN = [
    "m", "m ", ",k=v v=1", "m,k v=1", "m,k= v=1", "m,=v v=1", "m,k=v,k=w v=1", "m,k=a=b v=1", "m,k=v, v=1",
    "m v", "m v=", "m =1", "m v=1,", "m v=1,,w=2", "m v=1,v=2", 'm v="a"b', 'm v=a"b"', "m v=1 x", "m v=1 1.5",
    "m v=1 1750000000i", "m v=1 17 18", "m v=1 \u0663", "m v=1 -", f"m v=1 {10**19}", "m  w x=1",
]  # fmt: skip


@pytest.mark.parametrize("line", BROKEN)
def test_what_is_no_line_is_rejected_as_one_and_its_neighbours_are_taken(line: str) -> None:
    documents, rejected = taken(lines, f"m v=1 {NS}\n{line}\nm v=2 {NS + 1}\n".encode())
    assert ([one["value"] for one in documents], rejected) == ([1, 2], [(1, "invalid_reading")])


def test_a_text_that_does_not_end_takes_what_follows_it() -> None:
    documents, rejected = taken(lines, b'm v=1\nm v="a\nm v=2\n')
    assert ([one["value"] for one in documents], rejected) == ([1], [(1, "invalid_reading")])


@pytest.mark.parametrize(
    ("precision", "time", "ns"),
    [
        ("ns", NS + 123_456, NS + 123_456),
        ("n", NS + 1, NS + 1),
        ("us", NS // 10**3 + 7, NS + 7000),
        ("u", NS // 10**3 + 7, NS + 7000),
        ("ms", NOW + 7, NS + 7_000_000),
        ("s", NOW // 1000, NS),
        ("m", 29_166_666, 29_166_666 * 60 * 10**9),
        ("h", 486_111, 486_111 * 3600 * 10**9),
    ],
)
def test_times_of_every_precision_become_millisecond_and_seq(precision: Precision, time: int, ns: int) -> None:
    assert stored(LineProtocol(precision), f"m v=1 {time}".encode()) == [("m.v", 1.0, ns // 10**6, ns % 10**6)]


def test_a_repeat_in_another_precision_is_the_same_reading() -> None:
    times: list[tuple[Precision, int]] = [("ns", NS), ("us", NOW * 1000), ("ms", NOW), ("s", NOW // 1000)]
    bodies = [(LineProtocol(precision), f"m v=1 {time}") for precision, time in times]
    assert len({tuple(stored(decode, body.encode())) for decode, body in bodies}) == 1


def test_without_a_time_a_reading_is_of_now_and_never_a_repeat() -> None:
    rows = stored(lines, b"m a=1,b=2\nm a=1")
    assert [row[2] for row in rows] == [NOW] * 3
    assert all(row[3] >= GENERATED_SEQ_START for row in rows)
    assert len({row[3] for row in rows}) == 3


@pytest.mark.parametrize("time", [-1, 0, 946_684_799_999_999_999, NS + 86_400_001_000_000, 9_223_372_036_854_775_807])
def test_a_time_too_far_away_rejects_each_field(time: int) -> None:
    assert taken(lines, f"m a=1,b=2 {time}".encode()) == ([], [(0, "invalid_ts"), (1, "invalid_ts")])


@pytest.mark.parametrize(
    "tags",
    [
        ",".join(f"k{n}=v" for n in range(17)),
        r"a\ b=v",
        "é=v",
        "k" * 65 + "=v",
        "k=" + "v" * 257,
        "k=a\x7f",
    ],
    ids=["17 of them", "a space in a key", "a letter in a key", "a long key", "a long value", "a control character"],
)
def test_tags_have_the_limits_of_every_reading(tags: str) -> None:
    body = f"m,{tags} v=1 {NS}\nm,{','.join(f'k{n}=v' for n in range(16))} v=2 {NS + 1}"
    documents, rejected = taken(lines, body.encode())
    assert ([one["value"] for one in documents], rejected) == ([2], [(0, "invalid_field")])


def test_a_text_longer_than_a_value_may_be_or_of_several_lines_rejects_its_field_alone() -> None:
    body = f'm a=1,t="{"x" * 257}",u="two\nlines",v="{"x" * 256}" {NS}'
    documents, rejected = taken(lines, body.encode())
    assert len(documents) == 2
    assert rejected == [(1, "invalid_value"), (2, "invalid_value")]


def test_series_tags_stand_between_measurement_and_field_where_a_line_has_them() -> None:
    body = f"cpu,cpu=cpu0,host=a idle=1 {NS}\ncpu,host=a,cpu=cpu1 idle=2 {NS}\nmem,host=a free=3 {NS}"
    assert [row[0] for row in stored(LineProtocol(series_tags=("cpu", "core")), body.encode())] == [
        "cpu.cpu0.idle",
        "cpu.cpu1.idle",
        "mem.free",
    ]
    assert stored(LineProtocol(series_tags=("host", "cpu")), body.encode())[0][0] == "cpu.a.cpu0.idle"


def test_a_body_that_is_not_utf8_or_has_too_many_readings_is_refused() -> None:
    for body, reason in (
        (b"m v=1\nm,k=\xff v=2", "malformed"),
        (b"m v=1\n" * 1001, "batch_size"),
        (b"x\n" * 1001, "batch_size"),
        (b"m " + b",".join(b"f%d=1" % n for n in range(1001)), "batch_size"),
        (b"m a=1,b=1\n" * 501, "batch_size"),
    ):
        with pytest.raises(BodyRefused) as raised:
            taken(lines, body)
        assert raised.value.reason == reason
    assert len(taken(lines, b"m a=1,b=1\n" * 500)[0]) == 1000


# Any input

# No backslash at an end: before a separator it would escape that.
names = st.text(min_size=1, max_size=8).filter(lambda text: not text.endswith("\\") and "\n" not in text)
spelled = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: (repr(value), value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: (f"{value}i", value)),
    st.booleans().map(lambda value: (str(value), value)),
    st.text(max_size=10).map(lambda text: ('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"', text)),
)


def escaped(text: str, separators: str = ",= ") -> str:
    return "".join(f"\\{char}" if char in separators else char for char in text)


@given(
    names.filter(lambda name: name.strip(" \t\r") and name[0] not in "# \t\r"),
    st.dictionaries(names, names, max_size=3),
    st.dictionaries(names, spelled, min_size=1, max_size=3),
    st.none() | st.integers(-(10**18), 10**19 - 1),
)
@example("m", {}, {"v": ('"a\nm v=1\n"', "a\nm v=1\n")}, None)
def test_what_is_written_by_the_rules_is_read_back(
    measurement: str, tags: dict[str, str], fields: dict[str, tuple[str, Any]], time: int | None
) -> None:
    line = escaped(measurement, ", ") + "".join(f",{escaped(key)}={escaped(tags[key])}" for key in tags)
    line += " " + ",".join(f"{escaped(key)}={fields[key][0]}" for key in fields)
    line += "" if time is None else f" {time}"
    found = sent(f"{line}\n{line}")
    assert [(one.name, one.value, one.ts_ns, one.tags or {}) for one in found] == [
        (f"{measurement}.{key}", fields[key][1], time, tags) for key in fields
    ] * 2


pieces = st.sampled_from(["m", "v", "k", "=", ",", " ", "\n", '"', "\\", "#", "1", "i", "t", "\r", "\x00", "é", "1.5"])


@given(st.lists(pieces, max_size=40).map("".join))
def test_of_any_text_every_reading_and_every_error_has_its_place(body: str) -> None:
    documents, rejected = taken(lines, body.encode())
    items = list(lines(body.encode()))
    assert len(documents) + len(rejected) == len(items)
    used = [one.place if isinstance(one, SentReading) else one.detail.split(":")[0] for one in items]
    numbers = [int(place.split(",")[0].split()[1]) for place in used]
    assert numbers == sorted(numbers)
    assert all(1 <= number <= body.count("\n") + 1 for number in numbers)


@given(st.text(max_size=40))
@example('"\nm v=1\n')
@example("\\\nm v=1\n")
def test_no_text_that_is_quoted_by_the_rules_brings_a_reading_of_its_own(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    for body in (f'm a=1,t="{quoted}"\nm b=2', f'm oops,t="{quoted}"\nm b=2', f'm a==,t="{quoted}"\nm b=2'):
        found = [one.name for one in lines(body.encode()) if isinstance(one, SentReading)]
        assert found in (["m.a", "m.t", "m.b"], ["m.t", "m.b"], ["m.b"])
