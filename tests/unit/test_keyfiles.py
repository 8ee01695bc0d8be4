"""Modes and owners of what holds keys: real files, of this user's and of another's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomwatchd.config import loading
from dicomwatchd.config.whole import Config
from dicomwatchd.unit import drop_in, keyfiles

SECRET = "AWS_SECRET_ACCESS_KEY"


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where a service's keys are."""
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    monkeypatch.setattr(drop_in, "CREDENTIALS", folder / "aws.credentials")
    monkeypatch.setattr(drop_in, "ENVIRONMENT_FILE", folder / "aws.env")
    return folder


def settings(ca_file: Path | None = None) -> Config:
    store = {"kind": "s3", "bucket": "archive", "endpoint_url": "https://rgw.test", "ca_file": ca_file}
    catalogue = {"kind": "sqlite", "path": "/srv/catalogue.db"}
    return loading.parse({"archive": {"store": store, "catalogue": catalogue}})


def outcomes(etc: Path, environment: dict[str, str] | None = None, ca_file: Path | None = None) -> dict[str, str]:
    """By the name of the file, outcome and detail."""
    known = {"HOME": str(etc / "home"), **(environment or {})}
    found = keyfiles.findings(settings(ca_file), known)
    return {subject.rsplit("/", 1)[-1]: f"{outcome}: {detail}" for subject, outcome, detail in found}


def put(path: Path, text: str = "", mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_no_files_no_findings(etc: Path) -> None:
    assert outcomes(etc) == {}


@pytest.mark.parametrize("name", ["aws.credentials", "aws.env", "home/.aws/credentials", "home/.aws/config"])
def test_each_place_of_keys_is_looked_at(name: str, etc: Path) -> None:
    (etc / "home").mkdir()
    path = put(etc / name)
    assert outcomes(etc)[path.name].startswith("good")
    for mode, said in ((0o604, "bad: everybody may read it"), (0o620, "bad: others may change it"), (0o640, "note")):
        path.chmod(mode)
        assert outcomes(etc)[path.name].startswith(said)


def test_what_the_environment_names_is_looked_at_and_what_systemd_hands_over_is_not(etc: Path) -> None:
    path = put(etc / "other", mode=0o644)
    named = {"AWS_SHARED_CREDENTIALS_FILE": str(path)}
    assert outcomes(etc, named)["other"].startswith("bad")
    assert outcomes(etc, {**named, "CREDENTIALS_DIRECTORY": str(etc)}) == {}


def test_an_owner_who_is_neither_root_nor_the_daemon(etc: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    path = put(etc / "aws.credentials")
    os.chown(path, 4711, -1)
    assert "bad: it belongs to user 4711" in outcomes(etc)["aws.credentials"]
    os.chown(path, 0, -1)
    os.chown(etc, 4711, -1)
    assert "others may replace it with another file" in outcomes(etc)["aws.credentials"]


def test_a_folder_that_others_write_to(etc: Path) -> None:
    put(etc / "aws.credentials")
    etc.chmod(0o777)
    assert outcomes(etc)["aws.credentials"].startswith("bad: others may replace it with another file")


def test_keys_in_variables_are_valid_and_there_is_better(etc: Path) -> None:
    put(etc / "aws.env", f"{SECRET}=hidden\n")
    found = outcomes(etc, {SECRET: "hidden"})
    assert found["aws.env"].startswith("note: they become part of the environment")
    assert "LoadCredential=" in found["keys in the environment"]
    assert not any("hidden" in text for text in found.values())


def test_a_service_that_was_not_given_its_keys_is_told(etc: Path) -> None:
    put(etc / "aws.credentials")
    in_a_unit = {"INVOCATION_ID": "1"}
    assert "run dicomwatchd-folders" in outcomes(etc, in_a_unit)["aws.credentials"]
    put(etc / "given" / "aws")
    given = {**in_a_unit, "CREDENTIALS_DIRECTORY": str(etc / "given")}
    assert outcomes(etc, given) == {"aws.credentials": "good: only the owner may read them"}


def test_the_certificates_of_a_ca(etc: Path) -> None:
    path = put(etc / "ca.pem", "-----BEGIN CERTIFICATE-----\n", 0o644)
    assert outcomes(etc, ca_file=path)["ca.pem"] == "good: only its owner may change it"
    path.chmod(0o664)
    assert outcomes(etc, ca_file=path)["ca.pem"] == "bad: others may change it"
    put(path, "-----BEGIN EC PRIVATE KEY-----\n", 0o600)
    assert "private key" in outcomes(etc, ca_file=path)["ca.pem"]


def test_an_archive_in_a_folder_has_no_keys(etc: Path) -> None:
    put(etc / "aws.env", mode=0o644)
    store = {"kind": "directory", "path": "/srv/archive"}
    catalogue = {"kind": "sqlite", "path": "/srv/archive/catalogue.db"}
    parsed = loading.parse({"archive": {"store": store, "catalogue": catalogue}})
    assert list(keyfiles.findings(parsed, {SECRET: "hidden"})) == []
