"""Handing mail over to real SMTP servers on loopback."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from alarms.mail.server import SmtpServer
from alarms.mail.smtp_client import MailFailedError, SmtpClient
from testing.servers.ports import free_port
from tests.alarms.mail.mail_server import PASSWORD, USER, MailServer

MAIL = b"Subject: x\r\n\r\nhello\r\n.\r\n..two\r\n"


def server(port: int, *, host: str = "localhost", tls: bool = False, starttls: bool = False) -> SmtpServer:
    return SmtpServer(host, port, is_tls=tls, is_starttls=starttls)


async def sent(to: SmtpServer, recipient: str = "ada@example.org", *, timeout_s: float = 30) -> str | MailFailedError:
    """Return the code of the reply, or why there was none."""
    try:
        return await SmtpClient(to, name="example.org", timeout_s=timeout_s).send("a@example.org", recipient, MAIL)
    except MailFailedError as error:
        return error


async def failed(to: SmtpServer, *, timeout_s: float = 30) -> tuple[str, bool, bool]:
    """Return why a mail was not handed over, whether that is final, and whether the server knows whom it was for."""
    error = await sent(to, timeout_s=timeout_s)
    assert isinstance(error, MailFailedError)
    assert str(error) == error.status, "and nothing of what the server said"
    return error.status, error.is_final, error.is_answered


@asynccontextmanager
async def speaking(say: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve what is no SMTP server on loopback; yields the port."""
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await say(reader, writer)
            await reader.read()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS for `localhost`, whose certificate this process trusts."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_mail_arrives_as_it_was_sent() -> None:
    async with MailServer.listening() as mail:
        assert await sent(server(mail.port)) == "250"
    (taken,) = mail.taken
    assert (taken.sender, taken.recipients, taken.raw) == ("a@example.org", ["ada@example.org"], MAIL)


async def test_in_tls_from_the_start_or_after_starttls(certified: ssl.SSLContext) -> None:
    async with MailServer.listening(starttls=certified) as mail:
        assert await sent(server(mail.port, starttls=True)) == "250"
        assert await failed(server(mail.port)) == ("530", True, True), "the server wants it"
    async with MailServer.listening(tls=certified) as mail:
        assert await sent(server(mail.port, tls=True)) == "250"


async def test_what_is_not_encrypted_as_asked_for_gets_no_mail(
    certified: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with MailServer.listening() as mail:
        assert await failed(server(mail.port, starttls=True)) == ("not_supported", False, False)
        assert mail.connections == 0
    async with MailServer.listening(tls=certified) as mail:
        assert await failed(server(mail.port, tls=True, host="127.0.0.1")) == ("certificate", False, False)
        monkeypatch.delenv("SSL_CERT_FILE")
        assert await failed(server(mail.port, tls=True)) == ("certificate", False, False)
    async with MailServer.listening(starttls=certified) as mail:
        assert await failed(server(mail.port, starttls=True)) == ("certificate", False, False)
        assert mail.connections == 0


async def test_with_a_password(certified: ssl.SSLContext) -> None:
    async with MailServer.listening(starttls=certified, wants_login=True) as mail:
        assert await sent(with_password(mail.port, PASSWORD)) == "250"
        refused = await failed(with_password(mail.port, "another"))
        assert refused == ("535", False, False), "the operator's mistake is not the message's"
        assert await failed(server(mail.port, starttls=True)) == ("530", True, True)
    async with MailServer.listening() as mail:
        assert await failed(with_password(mail.port, PASSWORD, starttls=False)) == ("not_supported", False, False)


def with_password(port: int, password: str, *, starttls: bool = True) -> SmtpServer:
    return SmtpServer("localhost", port, is_tls=False, is_starttls=starttls, user=USER, password=password)


@pytest.mark.parametrize(
    ("reply", "is_final"), [("550 no such user, but I know your name", True), ("554 5.7.1 no", True),
                            ("451 greylisted", False), ("421 closing", False), ("999 what", False)],
)  # fmt: skip
@pytest.mark.parametrize("at", ["to_recipient", "to_data"])
async def test_replies_are_codes_and_5yz_is_final(reply: str, at: str, *, is_final: bool) -> None:
    async with MailServer.listening() as mail:
        setattr(mail, at, [reply])
        code = reply[:3] if reply[:3] != "999" else "invalid_reply"
        assert await failed(server(mail.port)) == (code, is_final, True)
        assert mail.taken == []
        assert await sent(server(mail.port)) == "250", "the next one is another"


async def test_a_server_that_hangs_is_given_up_in_time() -> None:
    async with MailServer.listening() as mail:
        mail.hangs = True
        assert await failed(server(mail.port), timeout_s=0.3) == ("timeout", False, True)

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with speaking(says_nothing) as port:
        assert await failed(server(port, host="127.0.0.1"), timeout_s=0.3) == ("timeout", False, False)


async def test_a_server_that_hangs_up_or_is_away() -> None:
    async with MailServer.listening() as mail:
        mail.drops = True
        assert await failed(server(mail.port)) == ("connection", False, True)
    assert await failed(server(free_port())) == ("connection", False, False)
    assert await failed(server(25, host="mail.invalid")) == ("name_not_found", False, False)


async def test_a_server_that_says_no_at_once_or_nonsense() -> None:
    for greeting, status in (
        (b"554 no service\r\n", "554"),
        (b"hello\r\n", "invalid_reply"),
        (b"x" * 99_999 + b"\n", None),
    ):

        async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes = greeting) -> None:
            writer.write(line)

        async with speaking(greets) as port:
            found = await failed(server(port, host="127.0.0.1"))
            assert found[1:] == (False, False)
            assert found[0] == (status or "invalid_reply")


async def test_a_server_that_refuses_this_host_refuses_no_message() -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while await reader.readline():
            writer.write(b"550 who are you?\r\n")

    async with speaking(refuses) as port:
        assert await failed(server(port, host="127.0.0.1")) == ("550", False, False)


async def test_it_is_taken_also_if_the_server_does_not_say_good_bye() -> None:
    async def takes_and_hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        for reply in (b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await reader.readline()
            writer.write(reply)
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 taken\r\n")

    async with speaking(takes_and_hangs) as port:
        assert await sent(server(port, host="127.0.0.1")) == "250"


@pytest.mark.parametrize(
    "recipient", ["a@b.org\r\nRCPT TO:<c@d.org>", "a@b.org> NOTIFY=NEVER", "a b@c.org", "kü@b.org"]
)
async def test_what_is_no_address_gets_no_mail(recipient: str) -> None:
    async with MailServer.listening() as mail:
        assert isinstance(await sent(server(mail.port), recipient), MailFailedError)
    assert mail.taken == []
