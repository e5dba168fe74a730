"""The data folder: one onebox at a time, with secrets that only its user can read."""

import stat
from pathlib import Path

import pytest

from onebox.data_folder import FolderInUse, SecretsError, load_or_create_secrets, locked


def test_a_folder_is_created_for_its_user_and_locked_for_one(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with locked(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with pytest.raises(FolderInUse, match="in use by another onebox"), locked(folder):
            pass
    with locked(folder):
        pass


def test_secrets_are_created_once_and_hidden(tmp_path: Path) -> None:
    first = load_or_create_secrets(tmp_path)
    assert load_or_create_secrets(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert first.signing_key_secret not in repr(first)
    assert first.demo_password not in repr(first)


def test_a_damaged_file_is_named_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text('{"signingKeySecret": 1')
    with pytest.raises(SecretsError, match=r"secrets\.json is damaged"):
        load_or_create_secrets(tmp_path)
    assert file.read_text() == '{"signingKeySecret": 1'
