"""A process that cannot listen says so in one line, and exits with 1."""

import pytest
from aiohttp import web

from runtime.http.listen import listen
from runtime.process import Shutdown, run_until_stopped


@pytest.mark.parametrize(("host", "why"), [("127.0.0.1", "in use"), ("192.0.2.1", "assign")])
def test_a_process_that_cannot_listen_says_so_without_a_traceback(
    host: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def serve(_: Shutdown) -> None:
        async with listen(web.Application(), "127.0.0.1", 0) as taken, listen(web.Application(), host, taken):
            raise AssertionError("it listens")

    assert run_until_stopped(serve, 5) == 1
    said = "".join(capfd.readouterr())
    assert f"cannot listen on {host}:" in said
    assert why in said
    assert "Traceback" not in said
