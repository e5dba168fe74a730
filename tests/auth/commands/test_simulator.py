"""A simulated device answers commands as a real one."""

import asyncio

from broker.interface import Broker
from simulator.device import DeviceClient
from simulator.live import send_live
from tests.auth.commands.system import Device, gateway
from tests.auth.service import Client


async def test_a_simulated_device_answers_set_rate_and_identify(broker: Broker, auth: Client, device: Device) -> None:
    async with gateway(broker, auth) as url, DeviceClient(url, device.token, device.id) as client:
        sending = asyncio.ensure_future(send_live(client, "temperature", rate=1, batch=1))
        await asyncio.wait_for(client.first_connected(), 10)
        assert (await device.command(payload={"rate": 20})).json["result"] == {"rate": 20}
        assert (await device.command("identify")).json["result"]["rate"] == 20
        assert (await device.command("reboot")).json["status"] == "failed"
        sending.cancel()
