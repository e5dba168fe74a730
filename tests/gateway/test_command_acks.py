"""What an acknowledgement of a command says that is not plain."""

import pytest

from gateway.commands import outcome_of


@pytest.mark.parametrize(
    "ack",
    [
        '{"status":"failed","status":"done"}',
        '{"status":"done","result":1,"result":2}',
        '{"status":"done","\\u0073tatus":"done"}',
    ],
)
def test_a_name_twice_is_never_done(ack: str) -> None:
    assert outcome_of(f"[{ack}]".encode())[0] == "failed"


def test_a_name_once_in_each_object_is_done() -> None:
    assert outcome_of(b'[{"status":"done","result":[{"a":{"a":1}},{"a":2}]}]')[0] == "done"
