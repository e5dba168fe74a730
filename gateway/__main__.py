"""`python -m gateway`: serve devices until a signal ends it."""

import sys

from gateway.app import serve
from gateway.settings import GatewaySettings
from runtime.process import run_service

if __name__ == "__main__":
    sys.exit(run_service(GatewaySettings, serve))
