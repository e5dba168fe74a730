"""The same tests against both brokers."""

from pathlib import Path

import pytest

from tests.broker.system import System


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    if request.param == "embedded":
        return System(f"embedded://{tmp_path}/queue.db")
    return System(request.getfixturevalue("rabbitmq_url"))
