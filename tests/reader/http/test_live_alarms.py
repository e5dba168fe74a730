"""`alarm` events of `GET /live`: to tokens that may see alarms, of the devices and series that they follow."""

from broker.alarms import AlarmEvent, encode_event
from broker.embedded.broker import EmbeddedBroker
from broker.topology import ALARM_EVENTS_EXCHANGE
from tests.reader.harness import ISSUING, OWNER, ReaderClient, make_reading
from tests.reader.live_client import Persister, live_client

SCOPE = "readings:read alarms:manage"


def event(device: str = "press", owner: str = OWNER) -> bytes:
    return encode_event(
        AlarmEvent(
            id="alarm-1",
            owner=owner,
            rule="rule-1",
            name="hot",
            severity="critical",
            device=device,
            sensor_type="temperature",
            state="firing",
            cause="reading",
            number=1,
            ts="2026-06-01T12:00:00.000Z",
            value=81,
            unit=None,
            message="call Ada",
        )
    )


async def test_alarms_come_to_tokens_that_may_see_them_and_to_no_others(
    reader_client: ReaderClient, broker: EmbeddedBroker
) -> None:
    async with (
        broker.broadcaster(ALARM_EVENTS_EXCHANGE) as broadcaster,
        live_client(reader_client, token=ISSUING.user(scope=SCOPE)) as owner,
        live_client(reader_client, token=ISSUING.api_key(scope="readings:read")) as guest,
        live_client(reader_client, token=ISSUING.api_key(scope=SCOPE, devices=["lathe"])) as limited,
        live_client(reader_client, {"device": "lathe"}, token=ISSUING.user(scope=SCOPE)) as filtered,
    ):
        for one in (event(owner="somebody else"), event("press"), event("lathe")):
            broadcaster.broadcast(one)
        await owner.until(lambda feed: len(feed.events) == 2, "both alarms come")
        assert [(one.name, one.data["device"], one.data["cause"]) for one in owner.events] == [
            ("alarm", "press", "reading"),
            ("alarm", "lathe", "reading"),
        ]
        assert "owner" not in owner.events[0].data
        for feed in (limited, filtered):
            await feed.until(lambda it: bool(it.events), "an alarm comes")
            assert [one.data["device"] for one in feed.events] == ["lathe"]
        # What follows has come, and no alarm before it.
        await Persister(broker).broadcast(make_reading(1))
        await guest.receives(1)
        assert guest.names == ["reading"]
