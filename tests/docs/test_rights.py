"""docs/operations.md gives RabbitMQ's users the rights that are shipped."""

import json
import re
import shlex
from pathlib import Path

from broker.topology import QUEUES

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
RIGHTS: dict[str, dict[str, str]] = json.loads((ROOT / "deploy" / "rabbitmq" / "rights.json").read_text())
NUMBERS = {5: "five", 6: "six"}


def test_the_commands_give_each_service_its_rights() -> None:
    given = {}
    for line in re.findall(r"^rabbitmqctl set_permissions .*$", OPERATIONS, re.MULTILINE):
        user, *rights = shlex.split(line)[2:]
        given[user] = dict(zip(("configure", "write", "read"), rights, strict=True))
    assert given == {user: rights for user, rights in RIGHTS.items() if user != "operator"}


def test_the_text_counts_users_and_queues() -> None:
    assert set(re.findall(r"the (\w+) users", OPERATIONS)) == {NUMBERS[len(RIGHTS)]}
    assert f"until all {NUMBERS[len(QUEUES)]} queues are empty" in OPERATIONS
