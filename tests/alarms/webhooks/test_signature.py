"""Signatures, and how the secrets that make them are kept."""

import base64

import pytest

from alarms.webhooks.secrets import SecretError, Secrets
from alarms.webhooks.signature import headers, new_secret

# The example of the specification of Standard Webhooks.
ID, TIME, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_example_of_the_specification() -> None:
    assert headers(ID, TIME, BODY, [SECRET]) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNED,
    }


def test_two_secrets_make_two_signatures() -> None:
    both = headers(ID, TIME, BODY, [other := new_secret(), SECRET])["webhook-signature"].split(" ")
    assert both == [headers(ID, TIME, BODY, [other])["webhook-signature"], SIGNED]


@pytest.mark.parametrize(
    "changed", [(ID + "x", TIME, BODY), (ID, TIME + 1, BODY), (ID, TIME, BODY + b" ")], ids=["id", "time", "body"]
)
def test_everything_is_signed(changed: tuple[str, int, bytes]) -> None:
    assert headers(*changed, [SECRET])["webhook-signature"] != SIGNED


def test_new_secrets_are_long_enough_and_differ() -> None:
    one, other = new_secret(), new_secret()
    assert one != other
    assert 24 <= len(base64.b64decode(one.removeprefix("whsec_"), validate=True)) <= 64


def test_a_sealed_secret_opens_for_its_owner_with_its_key_only() -> None:
    secrets = Secrets("a secret only for tests")
    sealed = secrets.seal("ada", SECRET)
    assert len(sealed) <= 255, "its column"
    assert SECRET not in sealed
    assert sealed != secrets.seal("ada", SECRET)
    assert Secrets("a secret only for tests").open("ada", sealed) == SECRET
    damaged = ("A" if sealed[20] != "A" else "B").join((sealed[:20], sealed[21:]))
    for opening, owner, text in (
        (secrets, "bob", sealed),
        (Secrets("another secret for tests"), "ada", sealed),
        (secrets, "ada", damaged),
        (secrets, "ada", "no base64"),
        (secrets, "ada", ""),
    ):
        with pytest.raises(SecretError):
            opening.open(owner, text)
