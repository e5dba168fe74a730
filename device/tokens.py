"""The device's token: where it comes from, when it is replaced, and when there is no other.

A text is renewed by the device itself, `POST /devices/{id}/token`, and the renewed one kept in the buffer, so that a
device whose configuration holds an old token connects with the newest. A function is called when a token is needed: at
first, before the last one ends, and once after a refusal.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from device.buffer import Buffer
from device.errors import BufferFailed, NotNow
from device.handlers import awaited

Token = str | Callable[[], Awaitable[str]]
# Takes a device's id and token, and returns a new token or raises NotNow.
Renew = Callable[[str, str], Awaitable[str]]

# What a token function may take; then it has failed.
ANSWERS_WITHIN_S = 30.0
# A token that ends sooner is not used for another connect. By the device's clock, which may be wrong: a hint only.
ENDS_SOON_S = 60.0
# A device's own token is renewed in the second half of its life, and not more often than this, whatever its clock says.
RENEW_AT_MOST_EVERY_S = 60.0

_log = logging.getLogger("device")


class Tokens:
    """The present token, and the next."""

    def __init__(self, token: Token, renew: Renew, buffer: Buffer) -> None:
        self._source = None if isinstance(token, str) else token
        self._given = token if isinstance(token, str) else ""
        self._renew = renew
        self._buffer = buffer
        self._present = self._kept() or self._given
        if self._present:
            self._know_series()
        self._refused = False
        self._has_failed = False
        self._renewed_at = -RENEW_AT_MOST_EVERY_S

    @property
    def present(self) -> str:
        """The last token, for HTTP calls."""
        return self._present

    async def for_connect(self) -> str:
        """Return a token to connect with; raises NotNow if there is none at present."""
        if self._source is not None:
            if not self._present or _left_s(self._present) < ENDS_SOON_S:
                await self._fetch()
        elif _is_half_over(self._present) and time.monotonic() - self._renewed_at >= RENEW_AT_MOST_EVERY_S:
            self._renewed_at = time.monotonic()
            try:
                await self.next()
            except NotNow as error:
                _log.info("The token was not renewed, the present one is used: %s", error)
        self._know_series()
        return self._present

    async def next(self) -> str:
        """Return a newer token than the present one; raises NotNow."""
        if self._source is not None:
            return await self._fetch()
        claimed = _claims(self._present).get("device")
        if not isinstance(claimed, str):
            raise NotNow("only a device's token can be renewed")
        self._present = await self._renew(claimed, self._present)
        self._keep()
        return self._present

    def accepted(self) -> None:
        """Note that the present token was accepted: readings without a sensorType have its one from now on."""
        self._refused = False
        if _claims(self._present).get("sensorType"):  # a session keeps its own if a renewed token has none
            self._know_series()

    def another(self) -> bool:
        """After a refusal: return whether there is another token to try."""
        if self._source is not None:
            was_refused, self._refused, self._present = self._refused, True, ""
            return not was_refused
        was, self._present = self._present, self._given
        return was != self._given

    async def _fetch(self) -> str:
        if self._source is None:
            raise NotNow("there is no token function")
        try:
            self._present = await _token_of(self._source)
        except Exception as error:  # whatever the program's function raises, it is asked again later
            if not self._has_failed:
                _log.warning("The token function failed, and is asked again: %r", error)
            self._has_failed = True
            raise NotNow(f"the token function failed: {error!r}") from error
        self._has_failed = False
        return self._present

    def _know_series(self) -> None:
        try:
            self._buffer.default_series(str(_claims(self._present).get("sensorType", "")))
        except BufferFailed as error:
            _log.warning("The device's sensorType could not be kept: %s", error)

    def _keep(self) -> None:
        try:
            self._buffer.note("token", f"{_digest(self._given)} {self._present}")
        except BufferFailed as error:
            _log.warning("The renewed token could not be kept: %s", error)

    def _kept(self) -> str:
        digest, _, token = self._buffer.noted("token").partition(" ")
        return token if self._given and digest == _digest(self._given) else ""


async def _token_of(source: Callable[[], Awaitable[str]]) -> str:
    async with asyncio.timeout(ANSWERS_WITHIN_S):
        token = await awaited(source())
    if not isinstance(token, str):
        raise TypeError(f"it returned {type(token).__name__}, not a text")
    if not token:
        raise ValueError("it returned an empty text")
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _claims(token: str) -> dict[str, Any]:
    """Return what the token says, unverified; nothing if it cannot be read."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


def _left_s(token: str) -> float:
    ends = _claims(token).get("exp")
    return ends - time.time() if isinstance(ends, int | float) else float("inf")


def _is_half_over(token: str) -> bool:
    claims = _claims(token)
    begins, ends = claims.get("iat"), claims.get("exp")
    if not isinstance(begins, int | float) or not isinstance(ends, int | float):
        return False
    return time.time() > (begins + ends) / 2
