"""Writes the description of every service's HTTP operations, for programs and as a page: `make openapi`.

`python -m tools.openapi_file`. The proxy serves the two files as `/openapi.json` and `/docs`.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.public_api import PUBLIC_API
from access.revocations import RevocationList
from access.tokens import KeySet
from alarms.app import alarms_service
from alarms.settings import AlarmsSettings
from auth.app import auth_service
from auth.migrate import migrate
from auth.settings import AuthSettings
from broker.embedded.broker import EmbeddedBroker
from gateway.from_http import readings_call
from reader.app import reader_service
from reader.settings import ReaderSettings
from runtime.http.docs import document
from runtime.http.docs_page import page
from runtime.http.operation import Operation

FILE = Path(__file__).parent.parent / "docs" / "protocol" / "openapi.json"
PAGE = FILE.with_name("index.html")


async def operations_of_all_services() -> list[Operation]:
    """Return the operations of all services, in the order of the page."""
    return [
        *await auth_operations(),
        *gateway_operations(),
        *await reader_operations(),
        *await alarms_operations(),
    ]


async def auth_operations() -> list[Operation]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/users.db"
        await migrate(url)
        settings = AuthSettings(auth_database_url=url, signing_key_secret="only to describe the operations")
        async with auth_service(settings, registry=CollectorRegistry()) as auth:
            return auth.calls


async def reader_operations() -> list[Operation]:
    """Return the operations of a reader that serves no request and so needs no MongoDB."""

    async def no_devices(_: str, __: str, ___: str | None) -> bytes:
        return b'{"items":[]}'

    with tempfile.TemporaryDirectory() as folder:
        settings = ReaderSettings(
            broker_url="embedded://unused", readings_url="mongodb://unused", auth_url="http://unused"
        )
        async with (
            EmbeddedBroker.open_at(Path(folder, "queue")) as broker,
            reader_service(
                settings,
                broker=broker,
                keys=KeySet(_no_keys),
                revocations=RevocationList(_no_revocations),
                devices=no_devices,
                registry=CollectorRegistry(),
            ) as reader,
        ):
            return reader.calls


async def alarms_operations() -> list[Operation]:
    """Return the operations of an alarms service that serves no request."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/users.db"
        await migrate(url)
        settings = AlarmsSettings(
            auth_database_url=url,
            broker_url="embedded://unused",
            auth_url="http://unused",
            alarm_secret="only to describe the operations",
        )
        async with (
            EmbeddedBroker.open_at(Path(folder, "queue")) as broker,
            alarms_service(
                settings,
                broker=broker,
                keys=KeySet(_no_keys),
                revocations=RevocationList(_no_revocations),
                registry=CollectorRegistry(),
            ) as alarms,
        ):
            return alarms.calls


async def _no_keys() -> dict[str, Any]:
    return {"keys": []}


async def _no_revocations(_: str | None) -> bytes:
    return b'{"items":[],"cursor":"0"}'


def gateway_operations() -> list[Operation]:
    async def not_served(_: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    return [readings_call(not_served)]


async def rendered() -> tuple[str, str]:
    """Return the text of the document and of its page."""
    described = document(PUBLIC_API, await operations_of_all_services())
    text = msgspec.json.format(msgspec.json.encode(described), indent=2).decode()
    return text + "\n", page(described)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    for file, text in zip((FILE, PAGE), asyncio.run(rendered()), strict=True):
        file.write_text(text)
