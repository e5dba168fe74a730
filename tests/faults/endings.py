"""Faults under which tokens must end, or stay valid: retired keys, clocks that leap."""

import asyncio
import base64
import json
import random
import time
from collections.abc import Awaitable, Callable

import aiohttp
import socketio

from tests.faults.fleet import Fleet, Sender
from tests.faults.scenarios import fault
from tests.faults.stack import Service, Stack
from tests.integration.device import logged_in, new_token, registered_device

# How long it may take from the end of a token to the end of everything that runs under it.
WITHIN_S = 5.0
# How long a clock is wrong: longer than tasks that run once a minute need, and than the life of a user's token.
AHEAD_FOR_S = 62.0
HOUR_S = 3600


def kid_of(token: str) -> str:
    head = token.split(".", maxsplit=1)[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


async def until(holds: Callable[[], Awaitable[bool]], what: str, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.05)


@fault
async def signing_key_retired_under_streaming_devices(stack: Stack, fleet: Fleet, _: random.Random) -> None:
    """Every session of its tokens ends within 5 s, everywhere; a device that gets a new token goes on."""
    old = {kid_of(sender.token) for sender in fleet.senders}
    new = (await stack.auth_keys("rotate", "--now")).strip()

    async def signs() -> bool:
        first = fleet.senders[0]
        assert first.renew is not None
        return kid_of(await first.renew()) == new

    await until(signs, "the new key signs", 10)
    for kid in old:
        await stack.auth_keys("retire", "--", kid)
    retired_at = time.monotonic()

    async def all_notified() -> bool:
        return all(sender.notified_at > retired_at - WITHIN_S for sender in fleet.senders)

    await until(all_notified, "every device is notified that its token has ended", WITHIN_S)

    async def all_renewed() -> bool:
        return all(kid_of(sender.token) == new for sender in fleet.senders)

    await until(all_renewed, "every device has a token of the new key", 10)


@fault
async def gateway_clock_leaps(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    """An hour ahead for a minute, and back; then an hour behind. Revoked tokens stay revoked, and no others end."""
    gateway = stack.gateways[0]
    email = f"clock-{random.randrange(10**9)}@example.com"
    _, device, _ = await registered_device(stack.auth.url, email)
    async with aiohttp.ClientSession(stack.auth.url, raise_for_status=True) as session:
        ended = await logged_in(session, email)
        assert await posted(gateway, ended) == 202
        async with session.post("/user/logout", headers={"Authorization": f"Bearer {ended}"}):
            pass
        await until(answering(gateway, ended, 401), "a token of a session that was logged out is refused", WITHIN_S)
        going_on = await logged_in(session, email)
    expired, client = asyncio.Event(), socketio.AsyncClient(reconnection=False)
    client.on("auth_expired", lambda *_: expired.set())
    try:
        await client.connect(gateway.url, auth={"token": going_on, "device": "clock"}, transports=["websocket"])
        stack.clock.leap(HOUR_S + 120)
        await asyncio.wait_for(expired.wait(), WITHIN_S)
        await until(answering(gateway, going_on, 401), "a token that has expired by this clock is refused", WITHIN_S)
        await asyncio.sleep(AHEAD_FOR_S)
        stack.clock.leap(0)
        await until(answering(gateway, going_on, 202), "the clock is right again", WITHIN_S)
        assert await posted(gateway, ended) == 401, "a revoked token works again"

        stack.clock.leap(-HOUR_S)
        fresh = await new_token(stack.auth.url, email, device)
        await until(
            answering(gateway, fresh, 503), "a good token is refused for now by a clock that is behind", WITHIN_S
        )
        before = {sender: sender.last_accepted_at for sender in fleet.senders}
        await until(lambda: accepted_since(before), "devices that are connected stream on", 10)
    finally:
        stack.clock.leap(0)
        await client.disconnect()
    await until(answering(gateway, fresh, 202), "the good token is taken", WITHIN_S)


async def accepted_since(before: dict[Sender, float]) -> bool:
    return all(sender.last_accepted_at > at for sender, at in before.items())


def answering(gateway: Service, token: str, status: int) -> Callable[[], Awaitable[bool]]:
    async def answers() -> bool:
        return await posted(gateway, token) == status

    return answers


async def posted(gateway: Service, token: str) -> int:
    """Send a reading that is rejected unless its token is: the run has nothing stored to account for."""
    headers = {"Authorization": f"Bearer {token}"} | ({"X-Device-Id": "clock"} if "sid" in claims_of(token) else {})
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.url}/readings", json={"value": None}, headers=headers) as response,
    ):
        return response.status


def claims_of(token: str) -> dict[str, object]:
    body = token.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims
