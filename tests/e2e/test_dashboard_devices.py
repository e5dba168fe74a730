"""Managing devices in a real browser; the code it shows to connect one really runs."""

import asyncio
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest

from testing.browser import Browser
from testing.node import node_with
from tests.e2e.demo_server import DemoServer

CLIENTS = Path(__file__).parent.parent / "clients"
LISTED = "return document.querySelectorAll('#series li:not(.loading)').length > 0"
RESULT = "document.getElementById('command-result').innerText"
ARRIVED = "return document.getElementById('arrived').innerText"


def fill(browser: Browser, form: str, **fields: str) -> None:
    for name, text in fields.items():
        field = browser.find(f"{form} [name='{name}']")
        field.clear()
        field.send_keys(text)
    browser.find(f"{form} [type=submit]").click()


def added(browser: Browser, demo_server: DemoServer, name: str) -> str:
    """Add a device and return its id; its token and code are shown."""
    browser.until(LISTED)
    browser.find("[data-add-device]").click()
    fill(browser, "#add-device-form", name=name, sensorType="temperature", location="hall 3")
    browser.until("return document.getElementById('snippet').innerText !== ''")
    assert browser.text("#device-title") == name
    shown: str = browser.text("#device-id")
    _, answer = demo_server.call("GET", "/devices", params={"name": name})
    assert [one["id"] for one in answer["items"]] == [shown]
    return shown


def opened(browser: Browser, name: str) -> None:
    """Open the details of a listed device."""
    browser.search(name)
    browser.until(
        "const rows = document.querySelectorAll('#series li:not(.loading)');"
        "return rows.length === 1 && rows[0].innerText.includes(arguments[0])",
        name,
    )
    # Found and clicked at once: a row may be drawn anew in between.
    browser.until("const more = document.querySelector('#series .more'); more?.click(); return more !== null")
    browser.until("return document.getElementById('device').open && !document.getElementById('registered').hidden")


def simulated(demo_server: DemoServer) -> dict[str, Any]:
    """Return one of the devices that the onebox itself runs."""
    _, answer = demo_server.call("GET", "/devices")
    first: dict[str, Any] = next(one for one in answer["items"] if not one["name"].startswith("press-"))
    return first


def confirm(browser: Browser, button: str, says: str) -> None:
    browser.find(button).click()
    browser.until("return document.getElementById('confirm').open")
    assert says in browser.text("#confirm")
    assert browser.run("return document.activeElement.innerText") == "Cancel"
    browser.find("#confirm-yes").click()


def test_a_device_is_added_and_the_curl_that_is_printed_sends_its_first_reading(
    logged_in: Browser, demo_server: DemoServer
) -> None:
    device = added(logged_in, demo_server, "press-1")
    assert logged_in.run(ARRIVED) == "Waiting for its first reading…"
    assert logged_in.find("[data-language='curl']").get_attribute("aria-pressed") == "true"
    command = logged_in.run("return document.getElementById('snippet').textContent")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '{"accepted":1,"rejected":[]}'
    assert logged_in.until(f"{ARRIVED}.startsWith('Received: 20.5 C (temperature)')")
    logged_in.find("#device [data-close]").click()
    logged_in.until("return document.getElementById('legend').innerText.includes('press-1 · temperature')")
    row = "[...document.querySelectorAll('#series li')].find((row) => row.innerText.includes('press-1'))"
    assert logged_in.until(f"const row = {row}; return row?.innerText.includes('20.5 C') && row.innerText")
    assert device not in logged_in.text("#series")
    left = "return document.getElementById('token').textContent + document.getElementById('snippet').textContent"
    assert logged_in.run(left) == ""


async def runs(command: list[str]) -> None:
    """Run a snippet until two of its readings are accepted."""
    process = await asyncio.create_subprocess_exec(*command, cwd=CLIENTS, stdout=PIPE, stderr=STDOUT)
    output: list[str] = []
    try:
        async with asyncio.timeout(40):
            assert process.stdout
            while sum("accepted" in line for line in output) < 2:
                line = (await process.stdout.readline()).decode()
                assert line, output
                output.append(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_what_is_printed_for_a_language_streams(logged_in: Browser, demo_server: DemoServer, language: str) -> None:
    device = added(logged_in, demo_server, f"runs-{language}")
    logged_in.find(f"[data-language='{language}']").click()
    text = logged_in.run("return document.getElementById('snippet').textContent")
    command = [sys.executable, "-c", text]
    if language == "javascript":
        command = [node_with(CLIENTS, "socket.io-client"), "-e", text]
    asyncio.run(runs(command))
    assert logged_in.until(f"{ARRIVED}.startsWith('Received: 20.5 C (temperature)')")
    _, stored = demo_server.call("GET", "/readings", params={"device": device, "sensorType": "temperature"})
    assert len(stored["items"]) >= 2


def test_an_error_is_shown_next_to_its_field(logged_in: Browser, demo_server: DemoServer) -> None:
    body = {"sensorType": "level", "location": "", "name": "taken-1"}
    assert demo_server.call("POST", "/devices", json=body)[0] == 201
    logged_in.until(LISTED)
    logged_in.find("[data-add-device]").click()
    fill(logged_in, "#add-device-form", name="taken-1", sensorType="level")
    error = logged_in.until("return document.getElementById('add-name-error').innerText")
    assert error == "You have a device with this name already."
    assert logged_in.run("return document.activeElement.id") == "add-name"
    fill(logged_in, "#add-device-form", name="fine-1", sensorType="not allowed!")
    assert logged_in.until("return document.getElementById('add-sensor-error').innerText")
    assert logged_in.text("#add-name-error") == ""
    fill(logged_in, "#add-device-form", sensorType="level", location="48.137, 11.575")
    logged_in.until("return document.getElementById('snippet').innerText !== ''")
    _, answer = demo_server.call("GET", "/devices", params={"name": "fine-1"})
    assert answer["items"][0]["location"] == {"lat": 48.137, "lon": 11.575}
    assert all(" 409 " in line or " 422 " in line for line in logged_in.console_errors())


def test_a_device_is_renamed_its_tokens_are_revoked_and_it_is_removed(
    logged_in: Browser, demo_server: DemoServer
) -> None:
    device = added(logged_in, demo_server, "old-name")
    token = logged_in.run("return document.getElementById('token').textContent")
    demo_server.send(device, [{"sensorType": "temperature", "value": 1, "ts": int(time.time() * 1000)}])
    logged_in.find("#device [data-close]").click()
    opened(logged_in, "old-name")
    logged_in.find("#change-device summary").click()
    fill(logged_in, "#change-device-form", name="new-name", location="hall 4")
    logged_in.until("return document.getElementById('device-title').innerText === 'new-name'")
    _, found = demo_server.call("GET", f"/devices/{device}")
    assert (found["name"], found["location"]) == ("new-name", "hall 4")
    confirm(logged_in, "#revoke-tokens", "within five seconds")
    logged_in.until("return document.getElementById('device-message').innerText === 'Its tokens are revoked.'")
    assert renewed(demo_server, device, token) == 401
    logged_in.find("#new-token").click()
    logged_in.until("return document.getElementById('token').textContent !== ''")
    newer = logged_in.run("return document.getElementById('token').textContent")
    assert renewed(demo_server, device, newer) == 201
    logged_in.find("#device [data-close]").click()
    opened(logged_in, "new-name")
    confirm(logged_in, "#remove-device", "Its readings stay")
    logged_in.until("return !document.getElementById('device').open")
    assert demo_server.call("GET", f"/devices/{device}")[0] == 404
    _, stored = demo_server.call("GET", "/readings", params={"device": device, "sensorType": "temperature"})
    assert [one["value"] for one in stored["items"]] == [1]
    logged_in.search(device)
    logged_in.until("return document.getElementById('series').innerText.includes(arguments[0])", device)


@pytest.mark.parametrize("location", ["48.1, 11.5", {"lat": 1e-7, "lon": 2.0}, " hall 4 "], ids=str)
def test_who_renames_a_device_changes_nothing_else(logged_in: Browser, demo_server: DemoServer, location: Any) -> None:
    name = f"stays-{len(str(location))}"
    body = {"name": name, "sensorType": "temperature", "location": location}
    _, made = demo_server.call("POST", "/devices", json=body)
    opened(logged_in, name)
    logged_in.until("return !document.getElementById('registered').hidden")
    logged_in.find("#change-device summary").click()
    fill(logged_in, "#change-device-form", name=f"{name}-newer")
    logged_in.until("return document.getElementById('device-title').innerText === arguments[0]", f"{name}-newer")
    _, found = demo_server.call("GET", f"/devices/{made['id']}")
    assert (found["name"], found["location"]) == (f"{name}-newer", made["location"])
    fill(logged_in, "#change-device-form")
    logged_in.until("return document.getElementById('device-message').innerText === 'Nothing was changed.'")
    fill(logged_in, "#change-device-form", name="")
    assert logged_in.until("return document.getElementById('change-name-error').innerText")
    assert all(" 422 " in line for line in logged_in.console_errors())


def renewed(demo_server: DemoServer, device: str, token: str) -> int:
    """Return the status of a device's token renewal."""
    status, _ = demo_server.call("POST", f"/devices/{device}/token", headers={"Authorization": f"Bearer {token}"})
    return status


def test_a_command_is_sent_and_its_answer_shown(logged_in: Browser, demo_server: DemoServer) -> None:
    device = simulated(demo_server)
    opened(logged_in, device["name"])
    logged_in.find("#command-device summary").click()
    fill(logged_in, "#command-form", name="identify", payload="")
    logged_in.until(f"return {RESULT}.startsWith('Done: ')")
    fill(logged_in, "#command-form", name="set_rate", payload='{"rate": 0}')
    logged_in.until(
        f"return {RESULT} === arguments[0]", "Failed: set_rate takes an object with a rate above 0 and at most 1000"
    )
    fill(logged_in, "#command-form", name="set_rate", payload="{rate")
    logged_in.until("return document.getElementById('command-payload-error').innerText.startsWith('This is not JSON')")
    assert logged_in.run(f"return {RESULT}") == ""
    _, answer = demo_server.call("GET", f"/devices/{device['id']}/commands")
    assert [(one["name"], one["status"]) for one in answer["items"]] == [("set_rate", "failed"), ("identify", "done")]


def test_a_command_to_a_device_that_is_not_connected_says_so(logged_in: Browser, demo_server: DemoServer) -> None:
    added(logged_in, demo_server, "press-off")
    logged_in.find("#command-device summary").click()
    fill(logged_in, "#command-form", name="identify", payload="")
    logged_in.until("return document.querySelector('#command-form [role=alert]').innerText !== ''")
    shown = logged_in.text("#command-form [role=alert]")
    assert shown == "The device is not connected; it received nothing."
    assert logged_in.run(f"return {RESULT}") == ""
    assert all(" 409 " in line for line in logged_in.console_errors())


def test_a_device_that_is_not_registered_says_what_that_means(logged_in: Browser, demo_server: DemoServer) -> None:
    demo_server.send("own-id-1", [{"sensorType": "level", "value": 1, "ts": int(time.time() * 1000) + 3_600_000}])
    logged_in.search("own-id-1")
    # Rows are recreated, and until the search is answered others are listed, too.
    row = "[...document.querySelectorAll('#series li')].find((row) => row.innerText.includes('own-id-1'))"
    logged_in.until(f"return Boolean({row})")
    logged_in.run(f"const more = {row}.querySelector('.more'); more.focus(); more.click()")
    logged_in.until("return !document.getElementById('not-registered').hidden")
    assert not logged_in.find("#registered").is_displayed()
    assert "its clock may be wrong" in logged_in.text("#device-latest")
    logged_in.driver.switch_to.active_element.send_keys("\ue00c")  # Escape
    logged_in.until("return !document.getElementById('device').open")
    assert logged_in.run("return document.activeElement.className") == "icon more"
    assert all(" 404 " in line for line in logged_in.console_errors())


def test_the_keyboard_stays_within_a_dialog_and_comes_back_from_it(logged_in: Browser) -> None:
    logged_in.until(LISTED)
    button = logged_in.find("[data-add-device]")
    button.send_keys("\ue007")
    logged_in.until("return document.activeElement.id === 'add-name'")
    for _ in range(12):
        logged_in.driver.switch_to.active_element.send_keys("\ue004")
        at: Any = logged_in.run(
            "return document.activeElement === document.body || document.activeElement.closest('dialog')?.id"
        )
        assert at in {True, "add-device"}
    logged_in.driver.switch_to.active_element.send_keys("\ue00c")
    logged_in.until("return !document.getElementById('add-device').open")
    assert logged_in.run("return document.activeElement.innerText") == "Add a device"


def test_the_token_is_copied_also_where_there_is_no_clipboard(demo_server: DemoServer) -> None:
    with Browser.opened(demo_server.url, before="delete Navigator.prototype.clipboard") as browser:
        browser.log_in(demo_server.person["email"], demo_server.person["password"])
        added(browser, demo_server, "copied-1")
        browser.run("document.addEventListener('copy', () => { window.copied = String(getSelection()); })")
        browser.find("#copy-token").click()
        browser.until("return document.getElementById('copy-token').innerText === 'Copied'")
        selected = browser.run("return window.copied !== undefined")
        assert selected
        assert browser.run("return document.activeElement.id") == "copy-token"
