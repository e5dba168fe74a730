"""What SMTP_URL and EMAIL_FROM say: the server that takes mail, and whose mail it is."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote, urlsplit

SUBMISSION_PORT = 587
TLS_PORT = 465

_ADDRESS = (
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_DOT_ATOM = re.compile(r"[^.@]+(?:\.[^.@]+)*@.*")
_ONE_ADDRESS = re.compile(_ADDRESS)
_SENDER = re.compile(rf"""(?:(?P<name>[^<>"\x00-\x1f\x7f-\x9f]+?) *<(?P<named>{_ADDRESS})>|(?P<alone>{_ADDRESS}))""")


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A server that takes mail. With neither kind of TLS, mail and password are sent in the clear."""

    host: str
    port: int
    # From the first byte.
    is_tls: bool
    # The connection begins in the clear and goes on in TLS, or not at all.
    is_starttls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose mail it is; the name may be empty."""

    address: str
    name: str = ""

    @property
    def domain(self) -> str:
        """The domain of the address."""
        return self.address.partition("@")[2]


def is_address(text: str) -> bool:
    """Return whether a text is one address, in ASCII and without quotes, as accounts have them."""
    return _ONE_ADDRESS.fullmatch(text) is not None


def parse_smtp_url(url: str) -> SmtpServer:
    """Return the server of `smtp://[user:password@]host[:port][?starttls=off]` or `smtps://…`.

    ValueError for everything else; it never repeats the URL, which holds a password.
    """
    try:
        return _parsed(url)
    except ValueError as error:
        raise ValueError(f"SMTP_URL=(hidden): {error}") from None


def parse_sender(text: str) -> Sender:
    """Return the sender of `alarms@example.org` or `Tidegate <alarms@example.org>`; ValueError for everything else."""
    found = _SENDER.fullmatch(text.strip(" "))
    address = "" if found is None else found["named"] or found["alone"]
    # `a..b@example.org` is an address of many an account, but none that `email.message` writes as a sender.
    if found is None or not _DOT_ATOM.fullmatch(address) or not text.isprintable() or "=?" in text:
        raise ValueError(
            f"EMAIL_FROM={text!r}: must be an address like alarms@example.org or Name <alarms@example.org>"
        )
    return Sender(address, found["name"] or "")


def _parsed(url: str) -> SmtpServer:
    if not url.isascii() or any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("must be ASCII without spaces; percent-encode what is special in user and password")
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("must be smtp://[user:password@]host[:port] or smtps://…")
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError("takes neither a path nor a fragment")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    starttls = options.pop("starttls", None)
    if options or starttls not in (None, "required", "off"):
        raise ValueError("the only option is starttls, which is required or off")
    is_tls = parts.scheme == "smtps"
    if is_tls and starttls is not None:
        raise ValueError("smtps:// is TLS from the start; starttls is for smtp://")
    is_starttls = not is_tls and starttls != "off" and (starttls == "required" or not _is_loopback(parts.hostname))
    user, password = _credentials(parts.username, parts.password)
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port must be a number up to 65535") from None
    if port == 0:
        raise ValueError("the port must not be 0")
    return SmtpServer(
        parts.hostname, port or (TLS_PORT if is_tls else SUBMISSION_PORT), is_tls, is_starttls, user, password
    )


def _credentials(user: str | None, password: str | None) -> tuple[str | None, str | None]:
    if (user is None) != (password is None) or user == "":
        raise ValueError("a user needs a password, and a password a user")
    return (None, None) if user is None or password is None else (unquote(user), unquote(password))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
