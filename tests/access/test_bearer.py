"""The bearer header: which values hold a token, and that it may occur only once."""

import pytest
from multidict import CIMultiDict

from access.bearer import RepeatedHeaderError, bearer_token, header_once


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("  BEARER   abc  ", "abc"),
        ("Bearer a b", "a b"),  # the verifier refuses it
        ("Bearer", ""),
        ("Basic YTpi", None),
        ("abc", None),
        ("", None),
    ],
)
def test_a_token_is_read_from_the_bearer_scheme_in_any_case(value: str, token: str | None) -> None:
    assert bearer_token(CIMultiDict(authorization=value)) == token


def test_without_the_header_there_is_no_token() -> None:
    assert bearer_token(CIMultiDict()) is None
    assert header_once(CIMultiDict(), "X-Device-Id") is None


@pytest.mark.parametrize("other", ["Bearer abc", "Bearer def", ""])
def test_a_repeated_header_is_an_error_whatever_it_holds(other: str) -> None:
    headers = CIMultiDict([("Authorization", "Bearer abc"), ("authorization", other)])
    with pytest.raises(RepeatedHeaderError, match="Authorization may occur only once"):
        bearer_token(headers)
    with pytest.raises(RepeatedHeaderError):
        header_once(headers, "AUTHORIZATION")
