"""`python -m gateway`: serve devices until a signal stops it."""

import sys

from gateway.app import serve
from gateway.settings import GatewaySettings
from runtime.command_line import run_service_command

ABOUT = """Receives readings from devices over Socket.IO and HTTP, verifies their senders, publishes them to the
broker, and acknowledges each once it can no longer be lost."""

if __name__ == "__main__":
    sys.exit(run_service_command(sys.argv[1:], "gateway", ABOUT, GatewaySettings, serve))
