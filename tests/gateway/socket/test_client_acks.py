"""What a gateway makes of acknowledgements that its clients send."""

from gateway.socket.client_acks import MAX_LATE, ClientAcks


def test_a_client_that_has_hung_may_answer_everything_at_once() -> None:
    """However much was given up meanwhile: packets that are no part of the protocol would end its connection."""
    acks = ClientAcks()
    got: list[bytes | None] = []
    numbers = [acks.expect(got.append) for _ in range(5 * MAX_LATE)]
    waiting = numbers.pop(7)
    for number in numbers:
        acks.give_up(number)
    assert all(acks.receive(f'43{number}[{{"status":"done"}}]') for number in numbers)
    assert got == []
    assert acks.receive(f"43{waiting}[1]")
    assert got == [b"[1]"]


def test_an_answer_to_nothing_and_a_second_one_are_malformed() -> None:
    acks = ClientAcks()
    got: list[bytes | None] = []
    late, prompt = acks.expect(got.append), acks.expect(got.append)
    acks.give_up(late)
    assert acks.receive(f"43{late}[]")
    assert acks.receive(f"43{prompt}[]")
    assert not any(acks.receive(f"43{number}[]") for number in (0, late, prompt, prompt + 1))
