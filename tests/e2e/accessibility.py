"""What axe finds on a page: missing labels, weak contrasts, small targets."""

from pathlib import Path

from testing.browser import Browser
from testing.node import node_with

HERE = Path(__file__).parent


def axe() -> str:
    """Return the script of axe, to run before those of a page."""
    node_with(HERE, "axe-core")
    return (HERE / "node_modules" / "axe-core" / "axe.min.js").read_text()


def breaches(browser: Browser) -> list[tuple[str, list[str]]]:
    """Return the violations axe finds by all its rules, once no transition runs: WCAG 2.2 AA and its best practices."""
    browser.until("return document.getAnimations().every((one) => one.playState !== 'running')")
    found = browser.driver.execute_async_script(
        "const done = arguments[0];axe.run(document).then(({violations, passes}) => done([violations, passes.length]))"
    )
    assert found[1] > 5
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found[0]]
