"""A wrong value is described in words, without regular expressions or names of Python types."""

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from runtime.http.fields import Body, convert_body
from runtime.http.problems import Problem
from runtime.http.wording import in_words, patterns, rule
from runtime.settings import Port, Seconds

LETTERS = r"^[a-z']+$(?!\n)"
Word = Annotated[str, Meta(pattern=LETTERS, extra=rule("made of a-z only"), max_length=9, examples=["ada"])]
Bare = Annotated[str, Meta(pattern="^[0-9]+$")]


class Spot(msgspec.Struct):
    north: Annotated[float, Meta(ge=-90, le=90)]
    mark: Word = "x"


WORDS: dict[str, tuple[Any, Any, bool, str]] = {
    "a pattern": ("A", Word, True, "must be made of a-z only"),
    "a pattern in a union": ("A", Word | Spot | None, True, "must be made of a-z only"),
    "a pattern in a struct": ({"north": 1, "mark": "A"}, Spot, True, "must be made of a-z only"),
    "a pattern of a key": ({"A": 1}, dict[Word, int], True, "must be made of a-z only"),
    "a pattern in a list": (["A"], list[Word], True, "must be made of a-z only"),
    "a pattern without words": ("A", Bare, True, "must be of another form"),
    "a wrong choice": ("ajar", Literal["open", "closed"], True, "must be one of closed, open"),
    "a wrong choice among numbers": (3, Literal[1, 2] | None, True, "must be one of 1, 2"),
    "too long": ("abcdefghij", Word, True, "must have at most 9 characters"),
    "too short": ("", Annotated[str, Meta(min_length=1)], True, "must have at least 1 character"),
    "too many": ([1, 2], Annotated[list[int], Meta(max_length=1)], True, "must have at most 1 item"),
    "too large": ({"north": 91}, str | Spot, True, "must be at most 90"),
    "too small": ({"north": -90.5}, str | Spot, True, "must be at least -90"),
    "not more": (0, Seconds, True, "must be more than 0"),
    "another type": (7, str | Spot | None, True, "must be text or an object or null, not a whole number"),
    "text for a number": ("ten", Port, False, "must be a whole number"),
    "text for a switch": ("maybe", bool, False, "must be true or false"),
    "a number that is too large": ("65536", Port, False, "must be at most 65535"),
}


@pytest.mark.parametrize(("value", "kind", "strict", "words"), WORDS.values(), ids=WORDS)
def test_what_is_wrong_is_said_in_words(value: Any, kind: Any, strict: bool, words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(value, kind, strict=strict)
    assert in_words(str(refused.value).partition(" - at `")[0], kind, from_text=not strict) == words


def test_what_has_no_words_yet_keeps_those_of_the_library() -> None:
    assert in_words("Timezone is odd", int) == "is not accepted: timezone is odd"


def test_the_patterns_of_a_type_are_found_however_deep() -> None:
    assert patterns(dict[str, list[Word | Spot]]) == {LETTERS: "made of a-z only"}
    assert patterns(Bare) == {"^[0-9]+$": ""}


class Two(Body):
    word: Word
    spot: Word | Spot


def test_a_body_is_answered_in_sentences() -> None:
    with pytest.raises(Problem) as refused:
        convert_body({"word": "A\n", "spot": {"north": 91}}, Two)
    assert [(error.field, error.code, error.message) for error in refused.value.errors] == [
        ("word", "invalid", "This must be made of a-z only."),
        ("spot.north", "invalid", "This must be at most 90."),
    ]
    with pytest.raises(Problem) as refused:
        convert_body([{"word": "A"}], list[Two])
    assert [error.message for error in refused.value.errors] == ["This must be made of a-z only."]
