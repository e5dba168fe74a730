import asyncio
import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select, update

from auth.database import Database, open_database
from auth.keys import KeyRing, KeysError, thumbprint
from auth.sealing import SealError, seal, unseal
from auth.stored_keys import StoredKeys
from auth.tables import signing_keys
from runtime.tokens import public_keys

SECRET = "one secret of the tests"


async def load(url: str, secret: str = SECRET) -> KeyRing:
    async with open_database(url, connections=2, timeout_s=2.5) as database:
        return KeyRing(await StoredKeys(database, secret).load())


async def test_the_first_start_makes_a_key_and_the_next_uses_it(database_url: str) -> None:
    first = await load(database_url)
    second = await load(database_url)
    assert first.kid == second.kid
    assert first.private_key.private_bytes_raw() == second.private_key.private_bytes_raw()
    assert await first.jwks() == await second.jwks()


async def test_replicas_that_start_together_agree_on_one_key(database_url: str) -> None:
    rings = await asyncio.gather(*(load(database_url) for _ in range(5)))
    assert len({ring.kid for ring in rings}) == 1
    for ring in rings:
        assert len((await ring.jwks())["keys"]) == 1


async def test_the_jwks_has_the_public_part_only(database_url: str) -> None:
    ring = await load(database_url)
    (jwk,) = (await ring.jwks())["keys"]
    assert set(jwk) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (jwk["kty"], jwk["crv"], jwk["alg"], jwk["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    key = public_keys(await ring.jwks())[ring.kid]
    assert isinstance(key, Ed25519PublicKey)
    key.verify(ring.private_key.sign(b"message"), b"message")


async def test_the_private_key_cannot_be_read_without_the_secret(database_url: str) -> None:
    ring = await load(database_url)
    raw = ring.private_key.private_bytes_raw()
    async with open_database(database_url, connections=1, timeout_s=2) as database:
        row = await stored(database)
    assert raw not in base64.b64decode(row)
    assert raw.hex() not in row
    with pytest.raises(KeysError, match="SIGNING_KEY_SECRET does not open"):
        await load(database_url, "another secret of the tests")


async def stored(database: Database) -> str:
    async with database.reading() as connection:
        return str(await connection.scalar(select(signing_keys.c.sealed_private_key)))


async def test_a_damaged_key_stops_the_start(database_url: str) -> None:
    await load(database_url)
    async with open_database(database_url, connections=1, timeout_s=2) as database:
        async with database.writing() as connection:
            await connection.execute(update(signing_keys).values(sealed_private_key="AAAA"))
        with pytest.raises(KeysError):
            await StoredKeys(database, SECRET).load()


def test_what_is_sealed_opens_under_its_secret_and_name_only() -> None:
    sealed = seal(SECRET, "name", b"plain")
    assert unseal(SECRET, "name", sealed) == b"plain"
    for secret, name, text in (
        ("another", "name", sealed),
        (SECRET, "another", sealed),
        (SECRET, "name", sealed[:-4]),
        (SECRET, "name", "A" + sealed[1:] if sealed[0] != "A" else "B" + sealed[1:]),
        (SECRET, "name", "no base64!"),
        (SECRET, "name", ""),
    ):
        with pytest.raises(SealError):
            unseal(secret, name, text)


def test_the_same_plain_text_is_sealed_differently_each_time() -> None:
    assert seal(SECRET, "name", b"plain") != seal(SECRET, "name", b"plain")


def test_a_kid_is_the_thumbprint_of_rfc_8037() -> None:
    # RFC 8037, appendix A.3.
    assert thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo") == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
