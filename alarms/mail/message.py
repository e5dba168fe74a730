"""What is mailed: notifications, digests and codes, as plain text in UTF-8, encoded for any server (7 bits).

What owners and devices have written is one line wherever it is shown, and makes no header. `email.message` refuses line
ends in a header, but it decodes what has the form of an encoded word (RFC 2047). So no header is given one.
"""

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

import msgspec

from alarms.mail.server import Sender
from runtime.times import parse_rfc3339

_POLICY = SMTP.clone(cte_type="7bit")
_NOT_IN_A_LINE = ("Cc", "Cs", "Zl", "Zp")


class _Rule(msgspec.Struct):
    id: str
    name: str
    severity: str


class _Change(msgspec.Struct, rename="camel"):
    alarm: str
    state: str
    rule: _Rule
    device: str
    sensor_type: str
    ts: str
    value: Any
    unit: str | None
    message: str | None


class _Digest(msgspec.Struct):
    rule: _Rule
    until: str
    changes: dict[str, int]


class _Body(msgspec.Struct):
    type: str
    timestamp: str
    data: msgspec.Raw


def device_in(body: str) -> str | None:
    """Return the id of the device that a ledger's body is about; None for a digest."""
    read = msgspec.json.decode(body, type=_Body)
    return None if read.type == "alarm.digest" else msgspec.json.decode(read.data, type=_Change).device


def notification(
    delivery_id: str, body: str, sender: Sender, recipient: str, *, device_name: str | None = None
) -> bytes:
    """Return the mail of a row of the ledger, the same for the same row; `device_name`: if it has one."""
    read = msgspec.json.decode(body, type=_Body)
    if read.type == "alarm.digest":
        subject, lines = _digest(msgspec.json.decode(read.data, type=_Digest))
    else:
        subject, lines = _change(msgspec.json.decode(read.data, type=_Change), device_name)
    lines += [f"Notification: {delivery_id}", "", "You get this mail from a rule of your account that has e-mail among"]
    lines += ["those it notifies. Change the rule, and it ends."]
    return _mail(delivery_id, parse_rfc3339(read.timestamp), sender, recipient, subject, lines)


def code_mail(message_id: str, at_ms: int, sender: Sender, recipient: str, code: str, valid_hours: int) -> bytes:
    """Return the mail with the code that confirms an address."""
    lines = [
        "Somebody, probably you, asked for notifications of alarms to this address.",
        "To confirm that it is yours, enter this code where you asked for it:",
        "",
        code,
        "",
        f"It is valid for {valid_hours} hours. If it was not you, do nothing: without the code, this",
        "address gets no notifications.",
    ]
    return _mail(message_id, at_ms, sender, recipient, "Confirm your e-mail address for alarms", lines)


def one_line(text: str) -> str:
    """Return a text with spaces in place of control characters, of all that ends a line, and of lone surrogates."""
    return "".join(" " if unicodedata.category(char) in _NOT_IN_A_LINE else char for char in text)


def _change(data: _Change, device_name: str | None) -> tuple[str, list[str]]:
    device = data.device if device_name is None else f"{device_name} ({data.device})"
    subject = f"[{data.rule.severity}] {data.rule.name}: {data.state} ({device_name or data.device})"
    lines = [] if data.message is None else [one_line(data.message), ""]
    fields = {
        "Rule": data.rule.name,
        "Severity": data.rule.severity,
        "State": data.state,
        "Device": device,
        "Sensor type": data.sensor_type,
        "Value": _value(data),
        "Time": data.ts,
    }
    lines += [f"{name}: {one_line(text)}" for name, text in fields.items() if text]
    return subject, [*lines, "", f"Alarm: {data.alarm}", f"Rule id: {data.rule.id}"]


def _value(data: _Change) -> str:
    if data.value is None:
        return ""
    value = data.value if isinstance(data.value, str) else msgspec.json.encode(data.value).decode()
    return f"{value} {data.unit}" if data.unit else value


def _digest(data: _Digest) -> tuple[str, list[str]]:
    total = sum(data.changes.values())
    lines = [
        "So many changes of its alarms were beyond the rule's bound of notifications an hour:",
        "",
        f"Rule: {one_line(data.rule.name)}",
        f"Severity: {one_line(data.rule.severity)}",
        *(f"Changes to {one_line(state)}: {count}" for state, count in data.changes.items()),
        f"Until: {one_line(data.until)}",
        "",
        f"Rule id: {data.rule.id}",
    ]
    return f"[{data.rule.severity}] {data.rule.name}: {total} more changes", lines


def _mail(message_id: str, at_ms: int, sender: Sender, recipient: str, subject: str, lines: Sequence[str]) -> bytes:
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = Address(sender.name, addr_spec=sender.address)
    # An address may have the form of an encoded word, too. Where the mail goes, the envelope says.
    mail["To"] = "undisclosed-recipients:;" if "=?" in recipient else recipient
    mail["Subject"] = one_line(subject).replace("=?", "= ?")
    mail["Date"] = format_datetime(datetime.fromtimestamp(at_ms / 1000, UTC))
    mail["Message-ID"] = f"<{message_id}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n".join(lines) + "\n", charset="utf-8")
    return mail.as_bytes()
