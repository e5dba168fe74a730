"""Checks of the request that opens a socket; the body of the 400 says why it can never become one.

Clients show little of it by themselves: socket.io-client reports "xhr poll error" and keeps the body in
`error.context.responseText`, python-socketio passes it to `connect_error`, browsers list it among their requests.
Engine.IO's own servers put the reason into `message`, so the body has that field too.
"""

from aiohttp import web

from runtime.http.problems import Problem

WEBSOCKET = "websocket"
ENGINE_IO = "4"

WEBSOCKET_ONLY = "WebSocket only: connect with the client's option transports set to ['websocket']."
UNSUPPORTED_VERSION = (
    "This is not Engine.IO 4, which Socket.IO clients speak from socket.io-client 3 and python-socketio 5 on: "
    "older ones never connect. WebSocket only: set the option transports to ['websocket']."
)
NO_UPGRADE = "WebSocket only, and this is no upgrade to one: a proxy in front must forward Upgrade and Connection."


def refusal(detail: str, code: str = "bad_request") -> Problem:
    """Return the 400 of a request that cannot become a socket."""
    return Problem(400, detail, code=code, extra={"message": detail})


def check_handshake(request: web.Request) -> None:
    """Raise Problem 400 for a client of another Engine.IO version or transport."""
    version, transport = request.query.get("EIO"), request.query.get("transport")
    if version != ENGINE_IO and (version is not None or transport == WEBSOCKET):
        raise refusal(UNSUPPORTED_VERSION, "unsupported_version")
    if transport != WEBSOCKET:
        raise refusal(WEBSOCKET_ONLY, "websocket_only")
    if request.method == "GET" and request.headers.get("Upgrade", "").lower() != WEBSOCKET:
        raise refusal(NO_UPGRADE, "websocket_only")
