"""The one description of every service's calls, for programs and as a page: `make openapi` writes both.

`python -m tools.openapi_file`. The proxy serves them as `/openapi.json` and `/docs`.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.revocations import RevocationList
from access.tokens import KeySet
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


async def calls_of_all_services() -> list[Operation]:
    """Return what each service declares, in the order of the pages."""
    return [*await auth_calls(), *gateway_calls(), *await reader_calls()]


async def auth_calls() -> list[Operation]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/users.db"
        await migrate(url)
        settings = AuthSettings(auth_database_url=url, signing_key_secret="only to describe the calls")
        async with auth_service(settings, registry=CollectorRegistry()) as auth:
            return auth.calls


async def reader_calls() -> list[Operation]:
    """Return the calls of a reader that is asked nothing: it needs no MongoDB."""

    async def none() -> dict[str, Any]:
        return {"keys": []}

    async def no_devices(_: str, __: str, ___: str | None) -> bytes:
        return b'{"items":[]}'

    async def nothing(_: str | None) -> bytes:
        return b'{"items":[],"cursor":"0"}'

    with tempfile.TemporaryDirectory() as folder:
        settings = ReaderSettings(broker_url="embedded://", readings_url="mongodb://unasked", auth_url="http://unasked")
        async with (
            EmbeddedBroker.open_at(Path(folder, "queue")) as broker,
            reader_service(
                settings,
                broker=broker,
                keys=KeySet(none),
                revocations=RevocationList(nothing),
                devices=no_devices,
                registry=CollectorRegistry(),
            ) as reader,
        ):
            return reader.calls


def gateway_calls() -> list[Operation]:
    async def unserved(_: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    return [readings_call(unserved)]


async def rendered() -> tuple[str, str]:
    """Return the document as it stands in the file, and its page."""
    described = document(await calls_of_all_services())
    text = msgspec.json.format(msgspec.json.encode(described), indent=2).decode()
    return text + "\n", page(described)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    for file, text in zip((FILE, PAGE), asyncio.run(rendered()), strict=True):
        file.write_text(text)
