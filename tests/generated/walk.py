"""From sign-up to reading back with the generated Python client, in its environment; prints what it read."""

import json
import os
import time
from datetime import UTC, datetime
from typing import Any

from tidegate_client import AuthenticatedClient, Client
from tidegate_client.api.accounts import post_user_signup
from tidegate_client.api.devices import post_devices, post_devices_id_token
from tidegate_client.api.readings import get_readings, post_readings
from tidegate_client.api.sessions import post_user_login
from tidegate_client.api.tokens import get_user_token
from tidegate_client.models import LogIn, NewDevice, Place, ProblemAnswer, ReadingSent, ReadingSentTags, SignUp
from tidegate_client.types import UNSET

URL = os.environ["TIDEGATE_URL"]
EMAIL = "python@example.org"
PASSWORD = "a horse that coils its battery"


def given(answer: Any) -> Any:
    """Return the response; exit if it is a problem."""
    if answer is None or isinstance(answer, ProblemAnswer):
        raise SystemExit(f"refused: {answer}")
    return answer


def read_back(owner: Any, device: str, number: int) -> list[Any]:
    """Wait until all are stored, shortly after they were accepted."""
    until = time.monotonic() + 20
    while True:
        page = get_readings.sync(client=owner, device=device, sensor_type="temperature")
        items: list[Any] = [] if isinstance(page, ProblemAnswer) else given(page).items
        if len(items) >= number or time.monotonic() > until:
            return items
        time.sleep(0.05)


def main() -> None:
    """Run all steps."""
    anybody = Client(base_url=URL)
    user = given(post_user_signup.sync(client=anybody, body=SignUp(name="Py Thon", email=EMAIL, password=PASSWORD)))
    session = given(post_user_login.sync(client=anybody, body=LogIn(email=EMAIL, password=PASSWORD)))
    owner = AuthenticatedClient(base_url=URL, token=session.access_token)

    place = Place(lat=48.1371543, lon=11.575)
    named = NewDevice(sensor_type="temperature", location=place, name="press-py")
    device = given(post_devices.sync(client=owner, body=named))
    unnamed = given(post_devices.sync(client=owner, body=NewDevice(sensor_type="door", location=device.location)))
    token = given(post_devices_id_token.sync(device.id, client=owner)).token

    tags = ReadingSentTags()
    tags["hall"] = "3"
    readings = [
        ReadingSent(ts="2026-01-31T12:00:00.000Z", value=21.5, unit="°C"),
        ReadingSent(ts=int(datetime(2026, 1, 31, 12, 0, 1, tzinfo=UTC).timestamp() * 1000), value=True, tags=tags),
        ReadingSent(ts="2026-01-31T12:00:02.125Z", value="idle"),
    ]
    sender = AuthenticatedClient(base_url=URL, token=token)
    taken = given(post_readings.sync(client=sender, body=readings))
    items = read_back(owner, device.id, len(readings))
    claims = given(get_user_token.sync(client=owner))
    refused: Any = post_devices.sync(client=owner, body=NewDevice(sensor_type="", location=place))
    seen = {
        "user": user.id == claims.owner,
        "tokenType": session.token_type.value,
        "createdAt": type(device.created_at).__name__,
        "location": unnamed.location.to_dict(),
        "accepted": taken.accepted,
        "rejected": taken.rejected,
        "deviceClaim": claims.device is not UNSET,
        "wrong": [error.field for error in refused.errors],
        "times": [item.ts.isoformat() for item in items],
        "items": [item.to_dict() for item in items],
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
