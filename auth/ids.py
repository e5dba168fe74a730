"""Ids of users, devices, tokens and families: UUIDv7 (RFC 9562), never reused, in the order of their time."""

import re

import uuid_utils

ID = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$(?!\n)"
_FORM = re.compile(ID)


def new_id() -> str:
    """Return a fresh id, 36 characters."""
    return str(uuid_utils.uuid7())


def is_id(text: str) -> bool:
    """Say whether `text` could be one of our ids: what is not never reaches the database."""
    return _FORM.match(text) is not None
