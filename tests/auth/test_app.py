import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from auth.app import auth_service
from runtime.http.listen import listen
from runtime.http.problems import problem_middleware
from tests.auth.service import make_settings


async def test_the_calls_stand_beside_those_of_others_on_one_application(database_url: str) -> None:
    async def readings(_: web.Request) -> web.Response:
        return web.Response(text="another service's")

    app = web.Application(middlewares=[problem_middleware])
    app.router.add_get("/readings", readings)
    async with auth_service(make_settings(database_url), registry=CollectorRegistry()) as auth:
        auth.add_routes(app)
        assert len(app) == 0  # no state that could collide
        async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/readings") as response:
                assert await response.text() == "another service's"
            async with session.get("/.well-known/jwks.json") as response:
                assert await response.json() == await auth.jwks()


async def test_the_service_is_ready_when_its_database_answers(database_url: str) -> None:
    async with auth_service(make_settings(database_url), registry=CollectorRegistry()) as auth:
        await auth.check()
