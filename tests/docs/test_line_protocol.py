"""The recipes of docs/recipes.md that send line protocol, run against a gateway."""

import gzip
import json
import time
import tomllib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import block, page
from tests.gateway.fakes import FakeBroker, documents
from tests.gateway.harness import ISSUING, RunningGateway, gateway
from tests.readme import shell

PAGE = "recipes.md"

# In the form that Telegraf's documentation gives for the inputs cpu, mem, disk, diskio, net, system and ping: times are
# rounded to the interval, integers have `i`, a space and a comma within a name or a tag have a backslash.
TELEGRAF = r"""
cpu,cpu=cpu0,host=gate\ 7 usage_idle=97.5,usage_iowait=0,usage_system=0.75,usage_user=1.75 {ts}
cpu,cpu=cpu1,host=gate\ 7 usage_idle=88,usage_iowait=0.5,usage_system=3.5,usage_user=8 {ts}
cpu,cpu=cpu-total,host=gate\ 7 usage_idle=92.75,usage_iowait=0.25,usage_system=2.125,usage_user=4.875 {ts}
mem,host=gate\ 7 available=3177844736i,available_percent=76.4,total=4159385600i,used=702476288i {ts}
disk,device=sda1,fstype=ext4,host=gate\ 7,mode=rw,path=/ free=9175572480i,used_percent=41.25 {ts}
disk,device=mapper/data,fstype=xfs,host=gate\ 7,mode=rw,path=/srv/my\ data free=103i,used_percent=7.5e-05 {ts}
diskio,host=gate\ 7,name=sda1,serial=WD\,A\=1 reads=26512i,weighted_io_time=12i {ts}
net,host=gate\ 7,interface=eth0 bytes_recv=18446744073709i,drop_in=0i {ts}
net,host=gate\ 7,interface=all icmp_inmsgs=11i {ts}
system,host=gate\ 7 load1=0.07,load15=0.02,n_cpus=2i,n_users=1i {ts}
system,host=gate\ 7 uptime=1203i {ts}
system,host=gate\ 7 uptime_format="0 days,  0:20" {ts}
ping,host=gate\ 7,url=example.com result_code=0i,reply_received=t,error="no \"route\"" {ts}
""".lstrip()
FIELDS = 4 * 4 + 2 * 2 + 2 + 2 + 1 + 4 + 1 + 1 + 3


@pytest.fixture
async def fake_broker() -> FakeBroker:
    broker = FakeBroker()
    broker.outgoing.auto_confirm = True
    return broker


@pytest.fixture
async def running(fake_broker: FakeBroker) -> AsyncIterator[RunningGateway]:
    async with gateway(fake_broker) as found:
        yield found


async def test_what_telegraf_sends_with_the_recipes_configuration_is_stored_whole(
    running: RunningGateway, fake_broker: FakeBroker
) -> None:
    (output,) = tomllib.loads(block(PAGE, "Telegraf"))["outputs"]["http"]
    assert len(output["headers"]) == 2
    headers = {name: text.replace("${DEVICE_TOKEN}", ISSUING.device()) for name, text in output["headers"].items()} | {
        "User-Agent": "Telegraf",
        "Content-Encoding": output["content_encoding"],
    }
    address = urlsplit(output["url"])
    url = f"{running.url}{address.path}?{address.query}"
    ts = time.time_ns() // 10**10 * 10**10
    body = gzip.compress(TELEGRAF.replace("{ts}", str(ts)).encode())
    answers: list[dict[str, Any]] = []
    for _ in range(2):  # a batch whose answer got lost comes again
        async with running.http.post(url, data=body, headers=headers) as answer:
            assert answer.status == 202
            answers.append(await answer.json())
    assert [(answer["accepted"], answer["rejected"]) for answer in answers] == [(FIELDS, [])] * 2
    assert [(one["name"], one["sensorType"]) for one in answers[0]["renamed"]] == [
        ("disk.mapper/data.free", "disk.mapper_data.free"),
        ("disk.mapper/data.used_percent", "disk.mapper_data.used_percent"),
    ]
    found = documents(fake_broker)
    first, second = found[:FIELDS], found[FIELDS:]
    assert [one["_id"] for one in first] == [one["_id"] for one in second]
    assert len({tuple(one["_id"].values()) for one in first}) == FIELDS
    by_type = {one["_id"]["sensorType"]: one for one in first}
    assert by_type["cpu.cpu1.usage_idle"]["value"] == 88.0
    assert by_type["cpu.cpu1.usage_idle"]["tags"] == {"cpu": "cpu1", "host": "gate 7"}
    assert by_type["diskio.sda1.reads"]["tags"]["serial"] == "WD,A=1"
    assert by_type["net.eth0.bytes_recv"]["value"] == 18446744073709
    assert by_type["system.uptime_format"]["value"] == "0 days,  0:20"
    assert by_type["ping.error"]["value"] == 'no "route"'
    assert all((int(one["_id"]["ts"]), one["_id"]["seq"]) == (ts // 10**6, 0) for one in first)


async def test_telegrafs_default_type_needs_only_the_format_in_the_address(
    running: RunningGateway, fake_broker: FakeBroker
) -> None:
    headers = {"Authorization": f"Bearer {ISSUING.user()}", "X-Device-Id": "gate-7"}
    url = f"{running.url}/readings?format=influx&seriesTags=cpu,device,interface,name"
    body = TELEGRAF.replace("{ts}", str(time.time_ns())).encode()
    type_of_telegraf = {"Content-Type": "text/plain; charset=utf-8"}
    async with running.http.post(url, data=body, headers=headers | type_of_telegraf) as answer:
        assert (answer.status, (await answer.json())["accepted"]) == (202, FIELDS)
    assert {one["_id"]["device"] for one in documents(fake_broker)} == {"gate-7"}


async def test_the_call_of_curl_is_answered_as_the_page_says(running: RunningGateway, fake_broker: FakeBroker) -> None:
    script = block(PAGE, "Line protocol with curl")
    told = await shell(script, URL=running.url, DEVICE_TOKEN=ISSUING.device())
    assert f"The answer: `{told}`" in page(PAGE)
    assert json.loads(told)["accepted"] == len(documents(fake_broker)) == 4
    found = {one["_id"]["sensorType"]: (one["value"], one.get("tags")) for one in documents(fake_broker)}
    assert found == {
        "greenhouse.moisture": (0.31, {"bed": "north"}),
        "greenhouse.valve": (False, {"bed": "north"}),
        "greenhouse.pump": (7, {"bed": "north"}),
        "room_2.lux": (410, None),
    }
