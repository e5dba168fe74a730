"""Ids of users, devices, tokens and sessions: UUIDv7 (RFC 9562), never reused, sorted by time of creation."""

import re

import uuid_utils

ID = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$(?!\n)"
_FORM = re.compile(ID)


def new_id() -> str:
    """Return a new id, 36 characters."""
    return str(uuid_utils.uuid7())


def is_id(text: str) -> bool:
    """Return whether `text` has the form of an id; other texts are never sent to the database."""
    return _FORM.match(text) is not None
