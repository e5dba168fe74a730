import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from sqlalchemy import select, update

from access.tokens import public_keys
from auth.tokens import keys as key_module
from auth.tokens.key_files import read_key_files
from auth.tokens.keys import KeyRing, Keys, KeysError, base64url, thumbprint
from auth.tokens.sealing import SealError, seal, unseal
from auth.tokens.stored_keys import StoredKeys, new_key
from database.connection import Database, open_database
from database.tables import signing_keys
from runtime.times import now_ms

SECRET = "one secret of the tests"


async def load(url: str, secret: str = SECRET) -> KeyRing:
    async with open_database(url, connections=2, timeout_s=2.5) as database:
        return KeyRing(await StoredKeys(database, secret).load())


async def test_the_first_start_makes_a_key_and_the_next_uses_it(database_url: str) -> None:
    first = await load(database_url)
    second = await load(database_url)
    assert first.current.kid == second.current.kid
    assert first.current.private_key.private_bytes_raw() == second.current.private_key.private_bytes_raw()
    assert await first.jwks() == await second.jwks()


async def test_replicas_that_start_together_agree_on_one_key(database_url: str) -> None:
    rings = await asyncio.gather(*(load(database_url) for _ in range(5)))
    assert len({ring.current.kid for ring in rings}) == 1
    for ring in rings:
        assert len((await ring.jwks())["keys"]) == 1


async def test_the_jwks_has_the_public_part_only(database_url: str) -> None:
    ring = await load(database_url)
    (jwk,) = (await ring.jwks())["keys"]
    assert set(jwk) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (jwk["kty"], jwk["crv"], jwk["alg"], jwk["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    key = public_keys(await ring.jwks())[ring.current.kid]
    assert isinstance(key, Ed25519PublicKey)
    key.verify(ring.current.private_key.sign(b"message"), b"message")


async def test_the_private_key_cannot_be_read_without_the_secret(database_url: str) -> None:
    ring = await load(database_url)
    raw = ring.current.private_key.private_bytes_raw()
    async with open_database(database_url, connections=1, timeout_s=2) as database:
        row = await stored(database)
    assert raw not in base64.b64decode(row)
    assert raw.hex() not in row
    with pytest.raises(KeysError, match="SIGNING_KEY_SECRET does not open"):
        await load(database_url, "another secret of the tests")


async def stored(database: Database) -> str:
    async with database.connect() as connection:
        return str(await connection.scalar(select(signing_keys.c.sealed_private_key)))


async def test_a_damaged_key_stops_the_start(database_url: str) -> None:
    await load(database_url)
    async with open_database(database_url, connections=1, timeout_s=2) as database:
        async with database.begin() as connection:
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


# A ring that reads again


def test_no_kid_looks_like_an_option_of_a_command() -> None:
    assert not [kid for _, _, kid in (new_key() for _ in range(700)) if kid.startswith("-")]


def new_keys() -> Keys:
    private_key = Ed25519PrivateKey.generate()
    x = base64url(private_key.public_key().public_bytes_raw())
    return Keys(thumbprint(x), private_key, {thumbprint(x): x})


class Stored:
    """Returns keys like a database, and counts the reads."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.asked = 0
        self.failure: Exception | None = None

    async def reread(self, _: Keys) -> Keys:
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.failure is not None:
            raise self.failure
        return self.keys

    def rotate(self) -> None:
        new = new_keys()
        self.keys = replace(new, public=self.keys.public | new.public)


async def kids(ring: KeyRing) -> list[str]:
    return [key["kid"] for key in (await ring.jwks())["keys"]]


async def test_the_jwks_knows_a_new_key_at_the_next_question_and_many_questions_read_once() -> None:
    stored = Stored(new_keys())
    ring = KeyRing(stored.keys, stored.reread)
    await asyncio.sleep(key_module.JWKS_AGE_S)
    stored.rotate()
    answers = await asyncio.gather(*(kids(ring) for _ in range(50)))
    assert all(answer == list(stored.keys.public) for answer in answers)
    assert stored.asked == 1


async def test_a_new_key_verifies_before_it_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_module, "REREAD_EVERY_S", 0.01)
    stored = Stored(new_keys())
    before = stored.keys.kid
    ring = KeyRing(stored.keys, stored.reread)
    other = KeyRing(stored.keys, stored.reread)
    async with ring.kept_fresh(), asyncio.timeout(5):
        await other.jwks()
        stored.rotate()
        while ring.current.kid == before:
            await asyncio.sleep(0)
        # Whoever gets a token of the new key now, and asks any replica, finds the key there.
        assert stored.keys.kid in await kids(other)
        assert ring.current.private_key is stored.keys.private_key


@pytest.mark.parametrize("failure", [KeysError("there is none"), RuntimeError("a fault of ours")])
async def test_a_ring_keeps_its_keys_while_the_database_is_away_and_goes_on_after(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(key_module, "REREAD_EVERY_S", 0.01)
    stored = Stored(new_keys())
    before = stored.keys.kid
    stored.failure = failure
    ring = KeyRing(stored.keys, stored.reread)
    async with ring.kept_fresh(), asyncio.timeout(5):
        while stored.asked < 3:
            await asyncio.sleep(0.005)
        assert (ring.current.kid, await kids(ring)) == (before, [before])
        stored.rotate()
        stored.failure = None
        while ring.current.kid == before:
            await asyncio.sleep(0.005)


async def test_nobody_waits_for_a_database_that_was_away_when_it_was_last_asked() -> None:
    hangs = asyncio.Event()
    stored = Stored(new_keys())
    stored.failure = KeysError("away")

    async def reread(before: Keys) -> Keys:
        if stored.asked:
            await hangs.wait()
        return await stored.reread(before)

    ring = KeyRing(stored.keys, reread)
    await asyncio.sleep(key_module.JWKS_AGE_S)
    await ring.jwks()  # learns that it is away
    async with ring.kept_fresh(), asyncio.timeout(5):
        await asyncio.sleep(key_module.REREAD_EVERY_S + 0.1)  # the next look hangs
        assert await asyncio.wait_for(kids(ring), 0.5) == [stored.keys.kid]


async def test_keys_go_when_the_last_token_that_they_signed_has(database_url: str) -> None:
    async with open_database(database_url, connections=2, timeout_s=2.5) as database:
        stored = StoredKeys(database, SECRET)
        old = (await stored.load()).kid
        new = (await stored.rotate(keep_s=3600, publish_s=0)).kid
        (row, state), _ = await stored.listed()
        assert state == "verifying"
        assert row.retires_at_ms is not None
        # Not sooner: a replica may have signed with it a second after the rotation.
        assert row.retires_at_ms >= row.created_at_ms + 3601 * 1000
        assert set((await stored.load()).public) == {old, new}
        async with database.begin() as connection:
            await connection.execute(
                update(signing_keys).where(signing_keys.c.kid == old).values(retires_at_ms=now_ms())
            )
        assert list((await stored.load()).public) == [new]
        assert [state for _, state in await stored.listed()] == ["retired", "signing"]


async def test_a_key_is_unsealed_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(secret: str, name: str, sealed: str) -> bytes:
        opened.append(name)
        return unseal(secret, name, sealed)

    monkeypatch.setattr("auth.tokens.stored_keys.unseal", counted)
    async with open_database(database_url, connections=2, timeout_s=2.5) as database:
        stored = StoredKeys(database, SECRET)
        keys = await stored.load()
        for _ in range(3):
            keys = await stored.reread(keys)
        assert opened == [keys.kid]


# Files


def private_pem(path: Path, key: Any, password: bytes = b"") -> str:
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    return str(path)


def public_pem(path: Path, key: Ed25519PrivateKey) -> str:
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(path)


def test_of_key_files_the_first_signs_and_all_verify(tmp_path: Path) -> None:
    first, second, third = (Ed25519PrivateKey.generate() for _ in range(3))
    keys = read_key_files(
        [private_pem(tmp_path / "1", first), public_pem(tmp_path / "2", second), private_pem(tmp_path / "3", third)]
    )
    assert keys.private_key.private_bytes_raw() == first.private_bytes_raw()
    expected = [base64url(key.public_key().public_bytes_raw()) for key in (first, second, third)]
    assert list(keys.public.values()) == expected
    assert keys.kid == thumbprint(expected[0])


def test_a_key_file_that_does_not_serve_is_named(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "text").write_text("no key")
    for path, why in (
        (public_pem(tmp_path / "public", key), "must hold a private key"),
        (private_pem(tmp_path / "locked", key, b"secret"), "holds no usable key"),
        (private_pem(tmp_path / "curve", generate_private_key(SECP256R1())), "must hold an Ed25519 key"),
        (str(tmp_path / "text"), "holds no usable key"),
        (str(tmp_path / "missing"), "cannot be read"),
    ):
        with pytest.raises(KeysError, match=why) as refused:
            read_key_files([path])
        assert path in str(refused.value)
