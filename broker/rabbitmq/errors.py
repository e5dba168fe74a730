"""Translates the driver's errors, and distinguishes refusals (permission, password, arguments) from outages.

RabbitMQ's own sentence is kept; the names in it also become fields of the log line.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from broker.interface import BrokerError, BrokerRefused, BrokerUnavailable

# Before 4.0 the sentence does not name the permission.
_ACCESS = re.compile(
    r"(?:(?P<right>configure|write|read) )?access to (?P<resource>[a-z]+ '[^']*')"
    r" in vhost '(?P<vhost>[^']*)' refused for user '(?P<user>[^']*)'"
)
_REFUSALS = (ChannelAccessRefused, ProbableAuthenticationError, AuthenticationError, ConnectionNotAllowed)


def translate_error(error: BaseException) -> BrokerError:
    """Return the driver's error as a BrokerError with the broker's reason; a BrokerError is returned as it is."""
    if isinstance(error, BrokerError):
        return error
    if _is_closed_vhost(error):
        return BrokerRefused("the vhost cannot be opened: it does not exist, or this user has no permissions in it")
    kind = BrokerRefused if _is_refusal(error) else BrokerUnavailable
    return kind(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, ChannelPreconditionFailed):  # also raised for a consumer that is too slow
        return "inequivalent arg" in str(error)
    return isinstance(error, _REFUSALS)


def _is_closed_vhost(error: BaseException) -> bool:
    """Return whether the broker refused to open the vhost. The driver drops the sentence of that refusal."""
    return isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error) and "Close" in str(error)


def permission_fields(error: BrokerError) -> dict[str, str]:
    """Return the `right`, `resource`, `vhost` and `user` that RabbitMQ's sentence names, as fields for the log."""
    found = _ACCESS.search(str(error))
    return {} if found is None else {name: text for name, text in found.groupdict().items() if text}


@contextmanager
def translating_errors() -> Iterator[None]:
    """Translate whatever the driver raises when a connection is lost, or cannot be opened, into BrokerUnavailable.

    These are not only its own exceptions: during a handshake it raises a bare `Exception`, StopAsyncIteration, and a
    CancelledError although this task was not cancelled. And if a call fails while it is cancelled, Python 3.11's
    `wait_for` raises the failure instead: then CancelledError is raised here.
    """
    try:
        yield
    except BrokerError:
        raise
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise BrokerUnavailable("the connection was lost during a call") from error
    except Exception as error:
        if is_cancelled():
            raise asyncio.CancelledError from error
        raise translate_error(error) from error


def is_cancelled() -> bool:
    """Return whether the current task was asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
