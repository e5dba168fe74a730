"""The faults by name. Each is injected while the fleet streams, and returns once it is over."""

import asyncio
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from broker.failpoints import Point
from testing.servers.process import Server
from tests.clients.streaming_clients import JAVASCRIPT, PYTHON, SIMULATOR, streaming_clients, wait_for_event
from tests.faults import dead_letters, poison
from tests.faults.fleet import Fleet
from tests.faults.stack import DIES_WITHIN_S, Service, Stack
from tests.faults.verdict import RECOVERS_WITHIN_S

Fault = Callable[[Stack, Fleet, random.Random], Awaitable[None]]
FAULTS: dict[str, Fault] = {}
# Takes minutes: injected only where it is named, once or as often as the time allows.
LONG_FAULTS: dict[str, Fault] = {}
NEEDS_A_SMALL_DISK = {"mongod_disk_full"}
HOUR_MS = 3_600_000
# RabbitMQ's consumer time-out, in place of 30 minutes; HOLD_SECONDS is less than half of it, as by default.
CONSUMER_TIMEOUT_S = 10.0
SHORT_HOLD = "4"
AUTH_LATE_S = 8.0


def fault(run: Fault) -> Fault:
    FAULTS[run.__name__] = run
    return run


def long_fault(run: Fault) -> Fault:
    LONG_FAULTS[run.__name__] = run
    return run


async def kill(service: Service) -> None:
    service.signal(signal.SIGKILL)
    await asyncio.sleep(0.5)
    await service.ready()


async def kill_in_a_loop(
    services: Sequence[Service], random: random.Random, times: int, least_s: float, most_s: float
) -> None:
    """Kill one of some after the other, with pauses, and return when all of them are ready."""
    for _time in range(times):
        random.choice(services).signal(signal.SIGKILL)
        await asyncio.sleep(random.uniform(least_s, most_s))
    await asyncio.gather(*(service.ready() for service in services))


async def crash(server: Server, away_s: float) -> None:
    """Kill with SIGKILL, and restart on the same data."""
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(away_s)
    await asyncio.to_thread(server.restart)


async def freeze(server: Server, seconds: float) -> None:
    """SIGSTOP for `seconds`: connections stay open, nothing is answered."""
    await asyncio.to_thread(server.pause)
    await asyncio.sleep(seconds)
    server.resume()


async def die_at(
    services: list[Service], point: Point, times: int, fleet: Fleet, within_s: float = DIES_WITHIN_S
) -> None:
    """Make the first of them kill itself at a failpoint."""
    armed = services[0]
    awaited = await armed.arm(point, times)
    dying = asyncio.ensure_future(armed.died(awaited, within_s))
    while not dying.done():
        # All devices went to the other gateway when this one was restarted.
        if armed.name == "gateway":
            fleet.move_half_to(armed.url)
        await asyncio.wait((dying,), timeout=2)
    await dying


@fault
async def gateway_killed_before_publish(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    await die_at(stack.gateways, "gateway.before_publish", random.randint(1, 30), fleet)


@fault
async def gateway_killed_mid_publish(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    await die_at(stack.gateways, "gateway.mid_publish", random.randint(1, 30), fleet)


@fault
async def gateway_killed_between_confirm_and_acknowledgement(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    await die_at(stack.gateways, "gateway.confirmed", random.randint(1, 30), fleet)


@fault
async def persister_killed_before_insert(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    await die_at(stack.persisters, "persister.before_insert", random.randint(1, 30), fleet)


@fault
async def persister_killed_between_insert_and_acknowledgement(
    stack: Stack, fleet: Fleet, random: random.Random
) -> None:
    await die_at(stack.persisters, "persister.inserted", random.randint(1, 30), fleet)


@fault
async def gateways_killed_at_any_time(stack: Stack, _: Fleet, random: random.Random) -> None:
    for _time in range(3):
        await asyncio.sleep(random.random())
        await kill(random.choice(stack.gateways))


@fault
async def persisters_killed_in_a_loop(stack: Stack, _: Fleet, random: random.Random) -> None:
    await kill_in_a_loop(stack.persisters, random, 12, 0.1, 1.5)


@fault
async def rabbitmq_killed(stack: Stack, _: Fleet, random: random.Random) -> None:
    await asyncio.sleep(random.random())
    await crash(stack.rabbitmq, random.random() * 2)


@fault
async def rabbitmq_stopped_past_its_heartbeat(stack: Stack, _: Fleet, random: random.Random) -> None:
    await freeze(stack.rabbitmq, random.uniform(22, 26))


@fault
async def confirms_lost_on_the_way(stack: Stack, _: Fleet, random: random.Random) -> None:
    for _time in range(3):
        stack.to_rabbitmq.hold(answers_only=True)
        await asyncio.sleep(random.uniform(0.2, 1))
        stack.to_rabbitmq.cut()
        stack.to_rabbitmq.release()
        await asyncio.sleep(1)


@fault
async def half_open_connection(stack: Stack, _: Fleet, random: random.Random) -> None:
    stack.to_rabbitmq.hold()
    await asyncio.sleep(random.uniform(6, 9))
    stack.to_rabbitmq.cut()
    stack.to_rabbitmq.release()


@fault
async def memory_alarm(stack: Stack, _: Fleet, random: random.Random) -> None:
    await asyncio.to_thread(stack.rabbitmq.rabbitmqctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    await asyncio.sleep(random.uniform(5, 8))
    await asyncio.to_thread(stack.rabbitmq.rabbitmqctl, "set_vm_memory_high_watermark", "0.4")


@fault
async def disk_alarm(stack: Stack, _: Fleet, random: random.Random) -> None:
    await asyncio.to_thread(stack.rabbitmq.rabbitmqctl, "set_disk_free_limit", "1000000GB")
    await asyncio.sleep(random.uniform(5, 8))
    await asyncio.to_thread(stack.rabbitmq.rabbitmqctl, "set_disk_free_limit", "50MB")


@fault
async def queue_full(stack: Stack, _: Fleet, random: random.Random) -> None:
    policy = {"pattern": "^tidegate.readings$", "definition": {"max-length": 5}, "apply-to": "queues"}
    for service in stack.persisters:
        service.signal(signal.SIGSTOP)
    await asyncio.to_thread(stack.rabbitmq.api, "PUT", "policies/%2F/small", policy)
    await asyncio.sleep(random.uniform(4, 6))
    await asyncio.to_thread(stack.rabbitmq.api, "DELETE", "policies/%2F/small")
    for service in stack.persisters:
        service.signal(signal.SIGCONT)


@fault
async def queue_unbound(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    binding = "bindings/%2F/e/tidegate.readings/q/tidegate.readings"
    await asyncio.to_thread(stack.rabbitmq.api, "DELETE", f"{binding}/readings.*")
    await asyncio.sleep(2)
    before = len(fleet.acknowledged())
    await asyncio.sleep(random.uniform(2, 4))
    assert len(fleet.acknowledged()) == before, "something was acknowledged that no queue took"
    await asyncio.to_thread(stack.rabbitmq.api, "POST", binding, {"routing_key": "readings.*"})


@fault
async def dead_letter_queue_away(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    url = stack.rabbitmq.url
    async with dead_letters.refused(stack):
        # More than both workers together may hold.
        expected = await poison.publish(url, poison.mixed(fleet, messages=300, one_in=1))
        await dead_letters.good_ones_flow(stack, fleet, random.uniform(3, 5), within_s=10)
        assert not await poison.any_arrived(url, expected), "the dead-letter queue took something"
    await poison.arrived(url, expected)


@fault
async def dead_letter_queue_refuses_past_the_consumer_timeout(
    stack: Stack, fleet: Fleet, random: random.Random
) -> None:
    url = stack.rabbitmq.url
    await asyncio.to_thread(stack.rabbitmq.set_consumer_timeout, CONSUMER_TIMEOUT_S)
    try:
        for persister in stack.persisters:
            await persister.restart(HOLD_SECONDS=SHORT_HOLD)
        log_start = len(stack.rabbitmq.log_text())
        async with dead_letters.refused(stack):
            # Many times what is tried at once.
            expected = await poison.publish(url, poison.mixed(fleet, messages=random.randint(60, 120), one_in=1))
            await dead_letters.good_ones_flow(stack, fleet, 2.5 * CONSUMER_TIMEOUT_S, within_s=8)
            assert not await poison.any_arrived(url, expected), "the dead-letter queue took something"
        assert "timed out" not in stack.rabbitmq.log_text()[log_start:], "RabbitMQ has closed a channel"
        await poison.arrived(url, expected)
    finally:
        await asyncio.to_thread(stack.rabbitmq.set_consumer_timeout, None)
        for persister in stack.persisters:
            await persister.restart()


@fault
async def mongod_killed_in_mid_batch(stack: Stack, _: Fleet, random: random.Random) -> None:
    await asyncio.sleep(random.random())
    await crash(stack.mongodb, random.random() * 2)


@fault
async def mongod_stopped_for_30_s(stack: Stack, _: Fleet, random: random.Random) -> None:
    await freeze(stack.mongodb, 30)


@fault
async def mongodb_away_through_many_releases(stack: Stack, _: Fleet, random: random.Random) -> None:
    for persister in stack.persisters:
        await persister.restart(HOLD_SECONDS="0.01", WRITE_TIMEOUT_SECONDS="0.1")
    # First it answers every ping and takes no write, then it is gone. A worker that kept consuming would requeue a
    # message a hundred times and more.
    await asyncio.to_thread(stack.mongodb.step_down, 120)
    await asyncio.sleep(random.uniform(60, 65))
    await crash(stack.mongodb, random.uniform(5, 10))
    for persister in stack.persisters:
        await persister.restart()


@fault
async def mongod_disk_full(stack: Stack, _: Fleet, random: random.Random) -> None:
    await asyncio.to_thread(stack.disk.fill)
    # Flush now what is still to be written: a mongod without room ends.
    assert not await asyncio.to_thread(stack.mongodb.fsync), "mongod goes on although its disk is full"
    await asyncio.sleep(random.uniform(2, 5))
    stack.disk.empty()
    await asyncio.to_thread(stack.mongodb.restart)


@fault
async def mongod_slow(stack: Stack, _: Fleet, random: random.Random) -> None:
    stack.to_mongodb.delay_s = 2
    await asyncio.sleep(random.uniform(8, 12))
    stack.to_mongodb.delay_s = 0


@fault
async def no_primary(stack: Stack, _: Fleet, random: random.Random) -> None:
    await asyncio.to_thread(stack.mongodb.step_down, 8)
    await asyncio.sleep(10)


@fault
async def mariadb_killed(stack: Stack, _: Fleet, random: random.Random) -> None:
    await crash(stack.mariadb, random.uniform(3, 5))


@fault
async def mariadb_stopped(stack: Stack, _: Fleet, random: random.Random) -> None:
    await freeze(stack.mariadb, random.uniform(5, 8))


@fault
async def auth_killed(stack: Stack, _: Fleet, __: random.Random) -> None:
    await kill(stack.auth)


@fault
async def auth_late(stack: Stack, fleet: Fleet, _: random.Random) -> None:
    """A host restarts, and auth comes up last: for 8 s its gateways have neither keys nor the list of revoked tokens.

    Besides the fleet, which has its own way to reconnect, there are clients as users have them.
    """
    await stack.auth.take_away()
    async with AsyncExitStack() as clients:
        try:
            for gateway in stack.gateways:
                assert await gateway.stop() == 0
            await asyncio.gather(*(gateway.alive() for gateway in stack.gateways))
            before = len(fleet.acknowledged())
            names = [PYTHON, SIMULATOR, *(JAVASCRIPT if shutil.which("npm") else ())]
            told = await clients.enter_async_context(
                streaming_clients(stack.gateways[0].url, fleet.senders[0].token, *names)
            )
            await asyncio.sleep(AUTH_LATE_S)
            assert len(fleet.acknowledged()) == before, "a gateway admitted a client that it could not verify"
        finally:
            stack.auth.bring_back()
        await stack.auth.ready()
        ready_at = time.monotonic()
        await fleet.accepted_since(ready_at, RECOVERS_WITHIN_S)
        await wait_for_event(told, "accepted", ready_at, ready_at + RECOVERS_WITHIN_S - time.monotonic())


@fault
async def poison_among_good_ones(stack: Stack, fleet: Fleet, __: random.Random) -> None:
    url = stack.rabbitmq.url
    await poison.arrived(url, await poison.publish(url, poison.mixed(fleet, messages=1200, one_in=100)))


@fault
async def same_reading_50_times_through_two_gateways(stack: Stack, fleet: Fleet, __: random.Random) -> None:
    urls = [gateway.url for gateway in stack.gateways]
    await asyncio.gather(*(sender.repeat(urls, 50) for sender in fleet.senders))


@fault
async def device_clocks_an_hour_off(_: Stack, fleet: Fleet, random: random.Random) -> None:
    for sender in fleet.senders:
        sender.clock_off_ms = random.choice((-HOUR_MS, HOUR_MS))
    await asyncio.sleep(2)


@fault
async def sigterm_of_each(stack: Stack, _: Fleet, random: random.Random) -> None:
    for service in random.sample(stack.services, len(stack.services)):
        code = await service.stop()
        assert code == 0, f"{service.name} ended with {code}"
        await service.ready()


@fault
async def rolling_restart_of_everything(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    for server in (stack.mariadb, stack.mongodb, stack.rabbitmq):
        await asyncio.to_thread(server.restart)
    await sigterm_of_each(stack, fleet, random)
