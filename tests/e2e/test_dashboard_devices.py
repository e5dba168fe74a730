"""Devices are managed in the dashboard, in a real browser; what it prints to connect one really runs."""

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
from tests.e2e.site import Site

CLIENTS = Path(__file__).parent.parent / "clients"
LISTED = "return document.querySelectorAll('#series li:not(.loading)').length > 0"
ARRIVED = "return document.getElementById('arrived').innerText"


def fill(browser: Browser, form: str, **fields: str) -> None:
    for name, text in fields.items():
        field = browser.find(f"{form} [name='{name}']")
        field.clear()
        field.send_keys(text)
    browser.find(f"{form} [type=submit]").click()


def added(browser: Browser, site: Site, name: str) -> str:
    """Add a device and return its id; its token and what to run are shown."""
    browser.until(LISTED)
    browser.find("[data-add-device]").click()
    fill(browser, "#add-device-form", name=name, sensorType="temperature", location="hall 3")
    browser.until("return document.getElementById('snippet').innerText !== ''")
    assert browser.text("#device-title") == name
    shown: str = browser.text("#device-id")
    _, answer = site.call("GET", "/devices", params={"name": name})
    assert [one["id"] for one in answer["items"]] == [shown]
    return shown


def opened(browser: Browser, name: str) -> None:
    """Open the details of a device that the list shows."""
    browser.search(name)
    browser.until(
        "const rows = document.querySelectorAll('#series li:not(.loading)');"
        "return rows.length === 1 && rows[0].innerText.includes(arguments[0])",
        name,
    )
    browser.find("#series .more").click()
    browser.until("return document.getElementById('device').open && !document.getElementById('registered').hidden")


def confirm(browser: Browser, button: str, says: str) -> None:
    browser.find(button).click()
    browser.until("return document.getElementById('confirm').open")
    assert says in browser.text("#confirm")
    assert browser.run("return document.activeElement.innerText") == "Cancel"
    browser.find("#confirm-yes").click()


def test_a_device_is_added_and_the_curl_that_is_printed_sends_its_first_reading(inside: Browser, site: Site) -> None:
    device = added(inside, site, "press-1")
    assert inside.run(ARRIVED) == "Waiting for its first reading…"
    assert inside.find("[data-language='curl']").get_attribute("aria-pressed") == "true"
    command = inside.run("return document.getElementById('snippet').textContent")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '{"accepted":1,"rejected":[]}'
    assert inside.until(f"{ARRIVED}.startsWith('Received: 20.5 C (temperature)')")
    inside.find("#device [data-close]").click()
    inside.until("return document.getElementById('legend').innerText.includes('press-1 · temperature')")
    row = "[...document.querySelectorAll('#series li')].find((row) => row.innerText.includes('press-1'))"
    assert inside.until(f"const row = {row}; return row?.innerText.includes('20.5 C') && row.innerText")
    assert device not in inside.text("#series")
    left = "return document.getElementById('token').textContent + document.getElementById('snippet').textContent"
    assert inside.run(left) == ""


async def runs(command: list[str]) -> None:
    """Run what was printed until it was promised two readings."""
    process = await asyncio.create_subprocess_exec(*command, cwd=CLIENTS, stdout=PIPE, stderr=STDOUT)
    said: list[str] = []
    try:
        async with asyncio.timeout(40):
            assert process.stdout
            while sum("accepted" in line for line in said) < 2:
                line = (await process.stdout.readline()).decode()
                assert line, said
                said.append(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_what_is_printed_for_a_language_streams(inside: Browser, site: Site, language: str) -> None:
    device = added(inside, site, f"runs-{language}")
    inside.find(f"[data-language='{language}']").click()
    text = inside.run("return document.getElementById('snippet').textContent")
    command = [sys.executable, "-c", text]
    if language == "javascript":
        command = [node_with(CLIENTS, "socket.io-client"), "-e", text]
    asyncio.run(runs(command))
    assert inside.until(f"{ARRIVED}.startsWith('Received: 20.5 C (temperature)')")
    _, stored = site.call("GET", "/readings", params={"device": device, "sensorType": "temperature"})
    assert len(stored["items"]) >= 2


def test_what_is_wrong_is_told_beside_its_field(inside: Browser, site: Site) -> None:
    body = {"sensorType": "level", "location": "", "name": "taken-1"}
    assert site.call("POST", "/devices", json=body)[0] == 201
    inside.until(LISTED)
    inside.find("[data-add-device]").click()
    fill(inside, "#add-device-form", name="taken-1", sensorType="level")
    told = inside.until("return document.getElementById('add-name-error').innerText")
    assert told == "You have a device of this name."
    assert inside.run("return document.activeElement.id") == "add-name"
    fill(inside, "#add-device-form", name="fine-1", sensorType="not allowed!")
    assert inside.until("return document.getElementById('add-sensor-error').innerText")
    assert inside.text("#add-name-error") == ""
    fill(inside, "#add-device-form", sensorType="level", location="48.137, 11.575")
    inside.until("return document.getElementById('snippet').innerText !== ''")
    _, answer = site.call("GET", "/devices", params={"name": "fine-1"})
    assert answer["items"][0]["location"] == {"lat": 48.137, "lon": 11.575}
    assert all(" 409 " in line or " 422 " in line for line in inside.console_errors())


def test_a_device_is_renamed_its_tokens_are_revoked_and_it_is_removed(inside: Browser, site: Site) -> None:
    device = added(inside, site, "old-name")
    token = inside.run("return document.getElementById('token').textContent")
    site.send(device, [{"sensorType": "temperature", "value": 1, "ts": int(time.time() * 1000)}])
    inside.find("#device [data-close]").click()
    opened(inside, "old-name")
    inside.find("#change-device summary").click()
    fill(inside, "#change-device-form", name="new-name", location="hall 4")
    inside.until("return document.getElementById('device-title').innerText === 'new-name'")
    _, found = site.call("GET", f"/devices/{device}")
    assert (found["name"], found["location"]) == ("new-name", "hall 4")
    confirm(inside, "#revoke-tokens", "within five seconds")
    inside.until("return document.getElementById('device-message').innerText === 'Its tokens are revoked.'")
    assert renewed(site, device, token) == 401
    inside.find("#new-token").click()
    inside.until("return document.getElementById('token').textContent !== ''")
    newer = inside.run("return document.getElementById('token').textContent")
    assert renewed(site, device, newer) == 201
    inside.find("#device [data-close]").click()
    opened(inside, "new-name")
    confirm(inside, "#remove-device", "Its readings stay")
    inside.until("return !document.getElementById('device').open")
    assert site.call("GET", f"/devices/{device}")[0] == 404
    _, stored = site.call("GET", "/readings", params={"device": device, "sensorType": "temperature"})
    assert [one["value"] for one in stored["items"]] == [1]
    inside.search(device)
    inside.until("return document.getElementById('series').innerText.includes(arguments[0])", device)


@pytest.mark.parametrize("location", ["48.1, 11.5", {"lat": 1e-7, "lon": 2.0}, " hall 4 "], ids=str)
def test_who_renames_a_device_changes_nothing_else(inside: Browser, site: Site, location: Any) -> None:
    name = f"stays-{len(str(location))}"
    body = {"name": name, "sensorType": "temperature", "location": location}
    _, made = site.call("POST", "/devices", json=body)
    opened(inside, name)
    inside.until("return !document.getElementById('registered').hidden")
    inside.find("#change-device summary").click()
    fill(inside, "#change-device-form", name=f"{name}-newer")
    inside.until("return document.getElementById('device-title').innerText === arguments[0]", f"{name}-newer")
    _, found = site.call("GET", f"/devices/{made['id']}")
    assert (found["name"], found["location"]) == (f"{name}-newer", made["location"])
    fill(inside, "#change-device-form")
    inside.until("return document.getElementById('device-message').innerText === 'Nothing was changed.'")
    fill(inside, "#change-device-form", name="")
    assert inside.until("return document.getElementById('change-name-error').innerText")
    assert all(" 422 " in line for line in inside.console_errors())


def renewed(site: Site, device: str, token: str) -> int:
    """Return what a device hears that renews its token."""
    status, _ = site.call("POST", f"/devices/{device}/token", headers={"Authorization": f"Bearer {token}"})
    return status


def test_a_device_that_is_not_registered_says_what_that_means(inside: Browser, site: Site) -> None:
    site.send("own-id-1", [{"sensorType": "level", "value": 1, "ts": int(time.time() * 1000) + 3_600_000}])
    inside.search("own-id-1")
    inside.until("return document.getElementById('series').innerText.includes('own-id-1')")
    inside.run(
        "const more = document.querySelector('#series .more'); more.focus(); more.click()"
    )  # its row may be anew
    inside.until("return !document.getElementById('not-registered').hidden")
    assert not inside.find("#registered").is_displayed()
    assert "its clock may be wrong" in inside.text("#device-latest")
    inside.driver.switch_to.active_element.send_keys("\ue00c")  # Escape
    inside.until("return !document.getElementById('device').open")
    assert inside.run("return document.activeElement.className") == "icon more"
    assert all(" 404 " in line for line in inside.console_errors())


def test_the_keyboard_stays_within_a_dialog_and_comes_back_from_it(inside: Browser) -> None:
    inside.until(LISTED)
    button = inside.find("[data-add-device]")
    button.send_keys("\ue007")
    inside.until("return document.activeElement.id === 'add-name'")
    for _ in range(12):
        inside.driver.switch_to.active_element.send_keys("\ue004")
        at: Any = inside.run(
            "return document.activeElement === document.body || document.activeElement.closest('dialog')?.id"
        )
        assert at in {True, "add-device"}
    inside.driver.switch_to.active_element.send_keys("\ue00c")
    inside.until("return !document.getElementById('add-device').open")
    assert inside.run("return document.activeElement.innerText") == "Add a device"


def test_the_token_is_copied_also_where_there_is_no_clipboard(site: Site) -> None:
    with Browser.opened(site.url, before="delete Navigator.prototype.clipboard") as browser:
        browser.log_in(site.person["email"], site.person["password"])
        added(browser, site, "copied-1")
        browser.run("document.addEventListener('copy', () => { window.copied = String(getSelection()); })")
        browser.find("#copy-token").click()
        browser.until("return document.getElementById('copy-token').innerText === 'Copied'")
        selected = browser.run("return window.copied !== undefined")
        assert selected
        assert browser.run("return document.activeElement.id") == "copy-token"
