"""Logs: one JSON object per line, and no secrets in tracebacks."""

import io
import json
import logging
from typing import Any

import pytest

from runtime.logs import configure_logs, logger


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_record_is_one_json_object_on_one_line(stream: io.StringIO) -> None:
    configure_logs("info", "json", stream)
    logger("gateway").info("Connected.\nReally.", host="höst", count=3, odd=object())
    logging.getLogger("aio_pika").error("It %s.", "broke\n")
    logging.getLogger("some.library").warning("Beware.")
    ours, driver, library = lines(stream)
    assert (ours["message"], ours["host"], ours["count"]) == ("Connected.\nReally.", "höst", 3)
    assert (ours["level"], ours["logger"]) == ("info", "gateway")
    assert ours["time"].endswith("Z")
    assert (driver["message"], driver["level"], driver["logger"]) == ("It broke\n.", "error", "aio_pika")
    assert library["level"] == "warning"


def test_records_below_the_level_and_the_chatter_of_libraries_are_left_out(stream: io.StringIO) -> None:
    configure_logs("warning", "json", stream)
    logger("gateway").info("Not this.")
    logging.getLogger("aiormq").warning("Nor this.")
    logger("gateway").warning("This.")
    assert [line["message"] for line in lines(stream)] == ["This."]


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("library", [True, False])
def test_a_traceback_shows_where_but_no_local_variables(stream: io.StringIO, style: Any, library: bool) -> None:
    configure_logs("info", style, stream)

    def fails(password: str) -> None:
        token = password + "!"
        raise RuntimeError(f"length {len(token)}")

    try:
        fails("hunter" + "2")
    except RuntimeError:
        if library:
            logging.getLogger("library").exception("It failed.")
        else:
            logger("gateway").exception("It failed.")
    written = stream.getvalue()
    assert "It failed." in written
    assert "RuntimeError" in written
    assert "length 8" in written
    assert "fails" in written
    assert "hunter2" not in written
    if style == "json":
        (line,) = lines(stream)
        assert line["level"] == "error"
