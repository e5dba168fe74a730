"""The version is stated once, and everything that ships it reads it there."""

import re
import tomllib
from pathlib import Path

from runtime.version import VERSION

ROOT = Path(__file__).parents[2]


def test_the_wheel_reads_the_version_from_the_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "runtime.version.VERSION"}


def test_the_image_has_the_module_that_states_the_version() -> None:
    assert "COPY runtime runtime\n" in (ROOT / "Dockerfile").read_text()


def test_the_image_tag_of_the_production_overlay_is_this_version() -> None:
    overlay = (ROOT / "deploy/kubernetes/overlays/production/kustomization.yaml").read_text()
    assert re.findall(r"newName: \S+/tidegate, newTag: (\S+) }", overlay) == [VERSION]


def test_the_changelog_s_newest_release_is_this_version() -> None:
    """An `Unreleased` section may precede it."""
    releases = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert not releases or releases[0] == VERSION
