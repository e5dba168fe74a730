"""SMTP_URL and EMAIL_FROM: what they say, and that neither a mistake nor a log repeats the password."""

import pytest

from alarms.mail.server import Sender, SmtpServer, parse_sender, parse_smtp_url
from alarms.settings import AlarmsSettings
from runtime.settings import SettingsError, from_env

REQUIRED = {
    "AUTH_DATABASE_URL": "sqlite+aiosqlite:///x",
    "BROKER_URL": "embedded://x",
    "AUTH_URL": "http://auth",
    "ALARM_SECRET": "a secret only for tests",
}


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.org", SmtpServer("mail.example.org", 587, is_tls=False, is_starttls=True)),
        ("smtp://mail.example.org:25/", SmtpServer("mail.example.org", 25, is_tls=False, is_starttls=True)),
        ("smtp://10.0.0.1?starttls=off", SmtpServer("10.0.0.1", 587, is_tls=False, is_starttls=False)),
        ("smtp://mail?starttls=required", SmtpServer("mail", 587, is_tls=False, is_starttls=True)),
        ("smtp://localhost:25", SmtpServer("localhost", 25, is_tls=False, is_starttls=False)),
        ("smtp://127.0.0.9", SmtpServer("127.0.0.9", 587, is_tls=False, is_starttls=False)),
        ("smtp://[::1]:2525", SmtpServer("::1", 2525, is_tls=False, is_starttls=False)),
        ("smtp://localhost?starttls=required", SmtpServer("localhost", 587, is_tls=False, is_starttls=True)),
        ("smtps://u%40x:p%3A%2F@mail", SmtpServer("mail", 465, True, False, "u@x", "p:/")),
        ("smtps://localhost:4650", SmtpServer("localhost", 4650, is_tls=True, is_starttls=False)),
    ],
)  # fmt: skip
def test_what_an_address_of_a_server_says(url: str, server: SmtpServer) -> None:
    assert parse_smtp_url(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "http://secret@mail", "mail.example.org", "smtp://", "smtp://user@mail", "smtp://:secret@mail",
        "smtp://user:secret@mail/path", "smtp://user:secret@mail#x", "smtp://user:secret@mail:99999",
        "smtp://user:secret@mail:0", "smtp://user:secret@mail?tls=off", "smtp://user:secret@mail?starttls=maybe",
        "smtp://user:secret@mail?starttls=off&x=1", "smtps://user:secret@mail?starttls=off", "smtp://user:se cret@mail",
        "smtp://user:secret@mail\r\n", "smtp://user:secrét@mail", "smtp://[secret",
    ],
)  # fmt: skip
def test_another_form_ends_the_start_without_a_word_of_it(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        from_env(AlarmsSettings, REQUIRED | {"SMTP_URL": url, "EMAIL_FROM": "a@example.org"})
    assert str(raised.value).startswith("SMTP_URL=(hidden): ")
    assert "secret" not in str(raised.value)


def test_a_server_is_shown_without_its_password() -> None:
    settings = from_env(AlarmsSettings, REQUIRED | {"SMTP_URL": "smtp://u:p4ss@mail", "EMAIL_FROM": "a@b.org"})
    assert "p4ss" not in repr(settings)
    assert "p4ss" not in repr(parse_smtp_url(settings.smtp_url))


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ("alarms@example.org", Sender("alarms@example.org")),
        (" Tidegate, hall 2 <alarms@example.org> ", Sender("alarms@example.org", "Tidegate, hall 2")),
        ("Küche <a@b.de>", Sender("a@b.de", "Küche")),
    ],
)
def test_whose_mail_it_is(text: str, sender: Sender) -> None:
    assert parse_sender(text) == sender


@pytest.mark.parametrize(
    "text",
    ["", "x", "a@b@c", "<a@b.org>x", "a@b.org, c@d.org", "a b@c.org", "a@b.org\r\nBcc: x@y.org", "x\n <a@b.org>",
     "=?utf-8?q?caf=C3=A9?= <a@b.org>", "Küche@b.de", "a..b@c.org", "x <.a@b.org>",
     "\ud800 <a@b.org>", "\u2028x <a@b.org>"],
)  # fmt: skip
def test_what_is_no_sender_ends_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="EMAIL_FROM="):
        parse_sender(text)


def test_a_server_needs_a_sender() -> None:
    with pytest.raises(SettingsError, match="EMAIL_FROM is not set"):
        from_env(AlarmsSettings, REQUIRED | {"SMTP_URL": "smtp://mail"})
    assert from_env(AlarmsSettings, REQUIRED | {"EMAIL_FROM": "a@b.org"}).smtp_url == ""
