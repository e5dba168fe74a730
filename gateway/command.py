"""The gateway's command line."""

from collections.abc import Sequence

from gateway.app import serve
from gateway.settings import GatewaySettings
from runtime.command_line import run_service_command

ABOUT = """Receives readings from devices over Socket.IO and HTTP, verifies their senders, publishes them to the
broker, and acknowledges each once it can no longer be lost."""


def main(arguments: Sequence[str]) -> int:
    """Run the service and return its exit code."""
    return run_service_command(arguments, "gateway", ABOUT, GatewaySettings, serve)
