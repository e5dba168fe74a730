"""Pictures of the dashboard, of a onebox of its own: `python -m tests.e2e.screenshots [FOLDER]` (docs/images)."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.e2e.browser import Browser
from tests.e2e.running import ROOT, demo_person, running

FOLDER = ROOT / "docs" / "images"
# As long as the curves need to be something to look at.
STREAMED_S = 45.0
PICTURES = {
    "dashboard-light.png": {"width": 1400, "height": 1060},
    "dashboard-dark.png": {"width": 1400, "height": 1060, "dark": True},
    "dashboard-phone.png": {"width": 390, "height": 844, "phone": True},
}


def picture(url: str, person: dict[str, str], file: Path, *, chosen: list[str], **window: object) -> None:
    """Log in, choose some series, and take a picture."""
    with Browser.opened(url, **window) as browser:  # type: ignore[arg-type]
        browser.log_in(person["email"], person["password"])
        browser.until("return document.querySelectorAll('#series li').length >= arguments[0]", len(chosen))
        browser.run(
            "for (const row of document.querySelectorAll('#series li')) {"
            " const box = row.querySelector('input');"
            " if (box.checked !== arguments[0].some((name) => row.innerText.includes(name))) box.click(); }",
            chosen,
        )
        named = "(document.getElementById('chart').data ?? []).filter((trace) => trace.name)"
        browser.until(f"return {named}.length === arguments[0]", len(chosen))
        sparks = "[...document.querySelectorAll('.spark polyline')].map((line) => line.getAttribute('points') ?? '')"
        browser.until(f"return Math.min(...{sparks}.map((points) => points.split(' ').length)) >= 12", within_s=30)
        browser.until("return Number(document.getElementById('rate').textContent) > 0")
        browser.run("document.activeElement.blur(); scrollTo(0, 0)")
        browser.driver.save_screenshot(str(file))


async def take(folder: Path, *, streamed_s: float = STREAMED_S) -> list[Path]:
    """Take all pictures."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tidegate-screenshots-") as data:
        async with running("--devices", "12", "--rate", "2", data=Path(data)) as (_, url):
            person = demo_person(Path(data))
            await asyncio.sleep(streamed_s)
            chosen = ["sim-0001\n", "sim-0007\n", "sim-0002\n", "sim-0006\n"]
            for name, window in PICTURES.items():
                await asyncio.to_thread(picture, url, person, folder / name, chosen=chosen, **window)
    return [folder / name for name in PICTURES]


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
