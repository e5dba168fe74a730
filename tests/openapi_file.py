"""The one description of every service's calls: `python -m tests.openapi_file` (`make openapi`) writes it."""

import asyncio
import tempfile
from pathlib import Path

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from auth.app import auth_service
from auth.migrate import migrate
from auth.settings import AuthSettings
from gateway.from_http import readings_call
from runtime.calls import Call
from runtime.docs import document

FILE = Path(__file__).parent.parent / "docs" / "protocol" / "openapi.json"


async def calls_of_all_services() -> list[Call]:
    """Return what each service declares, in the order of the pages."""
    return [*await auth_calls(), *gateway_calls()]


async def auth_calls() -> list[Call]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/users.db"
        await migrate(url)
        settings = AuthSettings(auth_database_url=url, signing_key_secret="only to describe the calls")
        async with auth_service(settings, registry=CollectorRegistry()) as auth:
            return auth.calls


def gateway_calls() -> list[Call]:
    async def unserved(_: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    return [readings_call(unserved)]


async def rendered() -> str:
    """Return the document as it stands in the file."""
    described = msgspec.json.encode(document(await calls_of_all_services()))
    return msgspec.json.format(described, indent=2).decode() + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(asyncio.run(rendered()))
