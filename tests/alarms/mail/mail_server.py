"""An SMTP server on loopback, which keeps what it takes and misbehaves as it is told to."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "ada lovelace", "p@ss/word:%"


@dataclass(frozen=True)
class Mail:
    """What was handed over: the envelope, and the message as it came and parsed."""

    sender: str
    recipients: list[str]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        parsed = message_from_bytes(self.raw, policy=default)
        assert isinstance(parsed, EmailMessage)
        return parsed

    @property
    def text(self) -> str:
        return str(self.message.get_content())


@dataclass
class MailServer:
    """What it does with each recipient and each message: replies of its own, or hangs until the end, or hangs up."""

    to_recipient: list[str] = field(default_factory=list)
    to_data: list[str] = field(default_factory=list)
    hangs: bool = False
    drops: bool = False
    taken: list[Mail] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.connections += 1
        if self.hangs:
            await self._ended.wait()
        if self.drops:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        reply = self.to_recipient.pop(0) if self.to_recipient else "250 OK"
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        reply = self.to_data.pop(0) if self.to_data else "250 taken"
        if reply.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.taken.append(Mail(str(envelope.mail_from), list(map(str, envelope.rcpt_tos)), envelope.content))
        return reply

    @classmethod
    @asynccontextmanager
    async def listening(
        cls, *, port: int = 0, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None,
        wants_login: bool = False,
    ) -> AsyncIterator["MailServer"]:  # fmt: skip
        """Listen on loopback. `tls`: from the first byte. `wants_login`: behind STARTTLS, of USER with PASSWORD."""
        it, transports = cls(), list[asyncio.BaseTransport]()

        class Connection(SMTP):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transports.append(transport)
                super().connection_made(transport)

        def authenticate(_: Any, __: Any, ___: Any, mechanism: str, given: Any) -> AuthResult:
            is_it = isinstance(given, LoginPassword) and given == LoginPassword(USER.encode(), PASSWORD.encode())
            return AuthResult(success=is_it, handled=is_it)

        def protocol() -> SMTP:
            return Connection(
                it,
                hostname="mail.test",
                tls_context=starttls,
                require_starttls=starttls is not None,
                authenticator=authenticate if wants_login else None,
                auth_required=wants_login,
            )

        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port, ssl=tls)
        it.port = server.sockets[0].getsockname()[1]
        try:
            yield it
        finally:
            server.close()
            it._ended.set()
            for transport in transports:
                transport.close()
            await server.wait_closed()
            while not all(transport.is_closing() for transport in transports):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
