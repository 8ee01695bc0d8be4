"""Credentials in a file that is rewritten while they are in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomwatchd.archive.aws.clients import build_client
from dicomwatchd.archive.aws.credentials import RereadCredentials


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path / "credentials"


def write(file: Path, key: str) -> None:
    file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {key}-secret\n")


def in_use() -> RereadCredentials:
    client = build_client("s3", region="eu-central-1", endpoint_url=None, ca_file=None, max_connections=1)
    found = client._request_signer._credentials  # type: ignore[attr-defined]
    assert isinstance(found, RereadCredentials)
    return found


def test_a_rewritten_file_is_followed(file: Path) -> None:
    write(file, "FIRST")
    credentials = in_use()
    assert credentials.get_frozen_credentials().access_key == "FIRST"
    write(file, "SECOND")
    assert credentials.get_frozen_credentials().access_key == "FIRST", "it is not read for each request"
    credentials._next = 0
    assert credentials.get_frozen_credentials()[:2] == ("SECOND", "SECOND-secret")
    file.write_text("[def")
    credentials._next = 0
    assert credentials.get_frozen_credentials().access_key == "SECOND"
    write(file, "THIRD")
    credentials._next = 0
    assert credentials.get_frozen_credentials().access_key == "THIRD", "a failure is not the last word"


@pytest.mark.parametrize("content", ["", "[default", "[other]\naws_access_key_id = X\n", None])
def test_a_file_that_is_gone_or_half_written_changes_nothing(file: Path, content: str | None) -> None:
    write(file, "FIRST")
    credentials = in_use()
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    credentials._next = 0
    assert credentials.get_frozen_credentials().access_key == "FIRST"


def test_a_vanished_file_does_not_make_another_identity_of_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, "FIRST")
    credentials = in_use()
    file.unlink()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "OTHER-secret")
    credentials._next = 0
    assert credentials.get_frozen_credentials().access_key == "FIRST"


def test_what_the_environment_says_is_taken_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, "FIRST")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ENVIRONMENT-secret")
    client = build_client("s3", region="eu-central-1", endpoint_url=None, ca_file=None, max_connections=1)
    found = client._request_signer._credentials  # type: ignore[attr-defined]
    assert found.get_frozen_credentials().access_key == "ENVIRONMENT"
    assert not isinstance(found, RereadCredentials)
