"""Names with stars, against a regular expression that says the same of short ones."""

import re
import time

from hypothesis import example, given
from hypothesis import strategies as st

from alarms.rules.name_pattern import NamePattern

PATTERNS = st.text("ab*", max_size=8)
NAMES = st.text("ab", max_size=8)


def matches(pattern: str, name: str) -> bool:
    return NamePattern.of(pattern).matches(name)


@given(PATTERNS, NAMES)
@example("a*a", "a")
@example("ab*ba", "aba")
@example("*", "")
@example("**", "a")
def test_it_matches_what_a_regular_expression_does(pattern: str, name: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
    assert matches(pattern, name) is expected


def test_whole_names_match_and_nothing_but_its_stars_is_special() -> None:
    assert matches("press-*", "press-1.2:x")
    assert not matches("press-*", "the-press-1")
    assert not matches("a.c", "abc")
    assert matches("*" * 60 + "x", "y" * 63 + "x")


def test_many_stars_take_no_time() -> None:
    began = time.process_time()
    for _ in range(100):
        assert not matches("*a" * 31 + "*b", "a" * 100)
    assert time.process_time() - began < 1
