"""openapi-python-client in an environment of its own, which the tests keep."""

from pathlib import Path

from testing.environment import python_with

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python_with_generator() -> Path:
    """Return the Python that has the generator; where it cannot be installed, skip, but not in CI."""
    return python_with(REQUIREMENTS, "openapi-python-client")
