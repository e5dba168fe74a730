"""The request that asks for a socket: what is wrong with one that can never become one, told in its body.

Clients show little of it by themselves: socket.io-client says "xhr poll error" and keeps the body in
`error.context.responseText`, python-socketio hands it to `connect_error`, browsers show it among their requests.
Engine.IO's own servers put the reason into `message`, so it stands there, too.
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
NO_UPGRADE = "WebSocket only, and this is no upgrade to one: a proxy in front has to hand on Upgrade and Connection."


def refusal(detail: str, code: str = "bad_request") -> Problem:
    """Return the 400 of a request that never becomes a socket."""
    return Problem(400, detail, code=code, extra={"message": detail})


def check_handshake(request: web.Request) -> None:
    """Raise the refusal of a client of another version or transport."""
    version, transport = request.query.get("EIO"), request.query.get("transport")
    if version != ENGINE_IO and (version is not None or transport == WEBSOCKET):
        raise refusal(UNSUPPORTED_VERSION, "unsupported_version")
    if transport != WEBSOCKET:
        raise refusal(WEBSOCKET_ONLY, "websocket_only")
    if request.method == "GET" and request.headers.get("Upgrade", "").lower() != WEBSOCKET:
        raise refusal(NO_UPGRADE, "websocket_only")
