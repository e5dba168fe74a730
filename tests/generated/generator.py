"""openapi-python-client in a cached environment of its own."""

from pathlib import Path

from testing.environment import python_with

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python_with_generator() -> Path:
    """Return a Python with the generator; if it cannot be installed, skip the test, but fail in CI."""
    return python_with(REQUIREMENTS, "openapi-python-client")
