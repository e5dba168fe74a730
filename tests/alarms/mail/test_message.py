"""What is mailed, and that nothing that anybody has written makes a header of its own."""

from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from alarms.deliveries.notification import Recorded, body_of, digest_of
from alarms.mail.message import code_mail, notification
from alarms.mail.server import Sender, parse_sender
from alarms.rules.definition import RuleDefinition
from alarms.rules.rule import Rule
from tests.alarms.making import START_MS, definition, make_rule

SENDER = Sender("alarms@example.org", "Tidegate")
HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"]
OF_THE_BODY = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
# Of an account: auth/http/bodies.py.
ADDRESS = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]{1,30}(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?){0,2}"
# What has the form of an encoded word is not decoded, whatever it encodes.
INJECTIONS = (
    "x\r\nBcc: mallory@example.org",
    "x\n\nbody",
    "=?utf-8?q?caf=C3=A9?=",
    "=?utf-8?b?Y2Fmw6k=?=",
    "a =?utf-8?q?caf=C3=A9?= b",
    "x\u2028Bcc: y",
    "x\x0bBcc: y\x85z",
    "==??utf-8?q?caf=C3=A9?=",
    "\ud800",
)


def change(rule: Rule | None = None, **changes: Any) -> Recorded:
    given: dict[str, Any] = {
        "rule": rule or make_rule(name="press too hot", severity="critical"),
        "alarm_id": "alarm-1",
    }
    given |= {"number": 1, "state": "firing", "cause": "reading", "device": "device-1", "sensor_type": "temperature"}
    given |= {"ts_ms": START_MS, "seq": 1, "recorded_at_ms": START_MS + 450, "value": 81, "unit": "Cel"}
    return Recorded(**given | {"is_notified": True} | changes)


def parsed(raw: bytes) -> EmailMessage:
    """Return a mail that has the headers it should have, and no others, in lines as SMTP has them."""
    assert raw.isascii()
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    assert b"\n" not in raw.replace(b"\r\n", b"")
    mail = BytesParser(_class=EmailMessage, policy=default).parsebytes(raw)
    assert sorted(mail.keys()) == sorted(HEADERS + OF_THE_BODY)
    assert not mail.defects
    return mail


def text_of(mail: EmailMessage) -> str:
    return str(mail.get_content()).replace("\r\n", "\n")


def test_what_a_notification_says() -> None:
    rule = make_rule(name="Presse zu heiß", severity="critical", message="{device} has {value} {unit}")
    mail = parsed(notification("delivery-1", body_of(change(rule)), SENDER, "ada@example.org", device_name="press-1"))
    assert mail["Subject"] == "[critical] Presse zu heiß: firing (press-1)"
    assert (mail["From"], mail["To"]) == ("Tidegate <alarms@example.org>", "ada@example.org")
    assert mail["Message-ID"] == "<delivery-1@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert parsedate_to_datetime(mail["Date"]).timestamp() == START_MS // 1000
    assert (mail.get_content_type(), mail.get_content_charset()) == ("text/plain", "utf-8")
    lines = text_of(mail).split("\n")
    assert lines[0] == "device-1 has 81 Cel"
    for line in (
        "Rule: Presse zu heiß", "Severity: critical", "State: firing", "Device: press-1 (device-1)",
        "Sensor type: temperature", "Value: 81 Cel", "Time: 2023-11-14T22:13:20.000Z", "Notification: delivery-1",
    ):  # fmt: skip
        assert line in lines


def test_the_same_row_is_the_same_mail() -> None:
    body = body_of(change())
    first, second = (notification("delivery-1", body, SENDER, "ada@example.org") for _ in range(2))
    assert first == second


def test_without_a_value_and_a_name_there_is_no_line_for_them() -> None:
    mail = parsed(notification("d", body_of(change(value=None, unit=None)), SENDER, "ada@example.org"))
    assert mail["Subject"] == "[critical] press too hot: firing (device-1)"
    assert "Value:" not in text_of(mail)
    assert "Device: device-1\n" in text_of(mail)


def test_a_digest_says_how_many() -> None:
    mail = parsed(notification("d", digest_of(change(), START_MS, {"firing": 3, "ok": 2}), SENDER, "ada@example.org"))
    assert mail["Subject"] == "[critical] press too hot: 5 more changes"
    assert "Changes to firing: 3\n" in text_of(mail)


def test_a_code_stands_on_a_line_of_its_own() -> None:
    mail = parsed(code_mail("id-1", START_MS, SENDER, "ada@example.org", "ABCDE23456", 24))
    assert "\n\nABCDE23456\n\n" in text_of(mail)
    assert mail["Message-ID"] == "<id-1@example.org>"


@pytest.mark.parametrize("recipient", ["=?utf-8?q?caf=C3=A9?=@y.org", "!#$%&'*+/=?^_`{|}~-@x.org", "a..b@x"])
def test_an_address_makes_no_header_either(recipient: str) -> None:
    mail = parsed(code_mail("id-1", START_MS, SENDER, recipient, "ABCDE23456", 24))
    assert mail["To"] in (recipient, "undisclosed-recipients:;")
    assert "café" not in str(mail)


@given(some.from_regex(ADDRESS, fullmatch=True), some.text("aÜ,;:()<>\\. ", max_size=40))
@example("a..b@x", "x, y")
def test_every_address_of_an_account_can_be_mailed_to(recipient: str, name: str) -> None:
    try:
        sender = parse_sender(f"{name} <a@b.org>")
    except ValueError:
        sender = Sender("a@b.org")
    mail = parsed(code_mail("id-1", START_MS, sender, recipient, "ABCDE23456", 24))
    assert mail["To"] == ("undisclosed-recipients:;" if "=?" in recipient else recipient)
    assert [one.addr_spec for one in mail["From"].addresses] == [sender.address]


def forged(name: str, text: str) -> RuleDefinition:
    """Return a definition that no decoder has checked."""
    return msgspec.structs.replace(definition(), name=name, message=text)


@given(some.text(min_size=1, max_size=120), some.text(max_size=300), some.text(max_size=60))
@example("plain", "plain", "plain")
def test_no_text_makes_a_header_or_another_line(name: str, text: str, device: str) -> None:
    check(name, text, device)


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_was_made_to_inject_injects_nothing(text: str) -> None:
    check(text, text, text)
    check("x" * 70 + text, text * 20, text)


def check(name: str, text: str, device: str) -> None:
    rule = make_rule()
    object.__setattr__(rule, "definition", forged(clean(name), clean(text)))
    for body in (
        body_of(change(rule, value=clean(text), device=clean(device))),
        digest_of(change(rule), START_MS, {"ok": 1}),
    ):
        raw = notification("delivery-1", body, SENDER, "ada@example.org", device_name=device)
        mail = parsed(raw)
        assert mail["To"] == "ada@example.org"
        assert "café" not in f"{mail['Subject']}{text_of(mail)}", "an encoded word is not decoded"
        assert len(text_of(mail).split("\n")) <= 18, "each text is one line"


def clean(text: str) -> str:
    """JSON of a database has no lone surrogates."""
    return text.encode("utf-8", "replace").decode()
