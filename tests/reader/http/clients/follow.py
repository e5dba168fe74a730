"""A program that follows a live feed with httpx-sse as in its documentation: every event has JSON data.

URL and TOKEN say where and as whom. One line of JSON an event.
"""

import json
import os

import httpx  # type: ignore[import-not-found]  # it has an environment of its own
from httpx_sse import connect_sse  # type: ignore[import-not-found]

headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
with httpx.Client(timeout=60) as client, connect_sse(client, "GET", os.environ["URL"], headers=headers) as source:
    source.response.raise_for_status()
    print(json.dumps("open"), flush=True)
    for event in source.iter_sse():
        print(json.dumps([event.event, event.id, json.loads(event.data)]), flush=True)
