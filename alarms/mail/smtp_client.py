"""Hands mail to the SMTP server: one connection a message, within 15 s, and what became of it as a short word.

A reply of 5yz to MAIL, RCPT or DATA is final (RFC 5321, 4.2.1): the same message would be refused again. One to
anything before, as to AUTH, is about this installation and not about the message: it is sent again later, as after 4yz.
"""

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import aiohappyeyeballs
from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from alarms.mail.server import SmtpServer, is_address

TIMEOUT_S = 15.0
# What became of the message is known by then.
QUIT_TIMEOUT_S = 1.0
# Of one name at a time. Its own: with a name server that does not answer, the loop's few would all be taken.
RESOLVER_THREADS = 4
# Until the next address of the server is tried beside the one before (RFC 8305).
NEXT_ADDRESS_S = 0.25


class MailFailedError(Exception):
    """A message was not handed over. The text is a reply code or a fixed word, never what the server said."""

    def __init__(self, status: str, *, is_final: bool = False, is_answered: bool = False) -> None:
        super().__init__(status)
        self.status = status
        # The message itself was refused for good.
        self.is_final = is_final
        # The server has seen whom it is for.
        self.is_answered = is_answered


class SmtpClient:
    """Sends through one server. Made once, at the start: it reads the system's certificates."""

    def __init__(self, server: SmtpServer, *, name: str, timeout_s: float = TIMEOUT_S) -> None:
        self._server = server
        # What this host calls itself: asking for its own name may take long, and may give one without a domain.
        self._name = name
        self._timeout_s = timeout_s
        self._resolver = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="mail server's name")
        self._context = ssl.create_default_context() if server.is_tls or server.is_starttls else None

    async def send(self, sender: str, recipient: str, message: bytes) -> str:
        """Send a message of ASCII lines to one recipient; return the code of the reply, or raise MailFailedError."""
        if not is_address(recipient):  # of which the library would take a part that looks like one
            raise MailFailedError("no_address", is_final=True, is_answered=True)
        client, is_open = self._client(), False
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.connect(sock=await self._connected())
                if client.is_ehlo_or_helo_needed:
                    await client.ehlo()
                is_open = True
                await client.mail(sender)
                await client.rcpt(recipient)
                reply = await client.data(message)
            with suppress(SMTPException, OSError, TimeoutError):
                await client.quit(timeout=QUIT_TIMEOUT_S)
        except SMTPResponseException as error:
            raise _refused(error.code, is_answered=is_open) from error
        except (SMTPException, OSError, ValueError) as error:
            raise MailFailedError(_word_for(error), is_answered=is_open) from error
        finally:
            client.close()
        return str(reply.code)

    def _client(self) -> SMTP:
        server = self._server
        return SMTP(
            hostname=server.host,
            local_hostname=self._name,
            timeout=self._timeout_s,
            use_tls=server.is_tls,
            start_tls=server.is_starttls,
            username=server.user,
            password=server.password,
            tls_context=self._context,
        )

    async def _connected(self) -> socket.socket:
        """Return a socket that is connected to the server; OSError."""

        def ask() -> list[Any]:
            server = self._server
            return socket.getaddrinfo(server.host, server.port, 0, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)

        addresses = await asyncio.get_running_loop().run_in_executor(self._resolver, ask)
        return await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)


def _refused(code: int, *, is_answered: bool) -> MailFailedError:
    if not 200 <= code <= 599:
        return MailFailedError("invalid_reply", is_answered=is_answered)
    return MailFailedError(str(code), is_final=is_answered and code >= 500, is_answered=is_answered)


def _word_for(error: Exception) -> str:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
        return "certificate"
    if any(isinstance(one, socket.gaierror) for one in causes):
        return "name_not_found"
    if isinstance(error, TimeoutError):
        return "timeout"
    # STARTTLS or AUTH is asked for, and the server has none: the only such errors without a connection's.
    if isinstance(error, SMTPException) and not isinstance(error, ConnectionError):
        return "not_supported"
    return "connection"
