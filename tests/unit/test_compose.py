"""etc/compose is whole: each file that it mounts is there, and each is understood by who reads it."""

from __future__ import annotations

import shutil
import subprocess
from configparser import ConfigParser
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomwatchd.config import loading
from dicomwatchd.config.archive import S3Settings, SqliteSettings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "etc/compose"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return loaded


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed; scripts/setup-test-machine installs it")


def mounted(compose: dict[str, Any]) -> list[tuple[str, str]]:
    """(file of the repository, place in the container), of every service."""
    volumes = [volume.split(":") for service in compose["services"].values() for volume in service["volumes"]]
    return [(parts[0], parts[1]) for parts in volumes if parts[0].startswith(".")]


def test_compose_itself_takes_it(tmp_path: Path) -> None:
    needs("docker-compose")
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "STORE_ACCESS_KEY": "a", "STORE_SECRET_KEY": "b"}
    command = ["docker-compose", "--file", str(COMPOSE / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    del environ["STORE_SECRET_KEY"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode != 0 and "STORE_SECRET_KEY" in done.stderr, "a store with an empty key"


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    found = {path for path, _ in mounted(compose)}
    assert {path for path in found if not (COMPOSE / path).is_file()} == {"./inbox"}
    assert len(found) == 7


def test_the_daemon_s_configuration_is_valid_and_reaches_the_others(compose: dict[str, Any]) -> None:
    settings = loading.load(COMPOSE / "config.yaml")
    daemon = compose["services"]["daemon"]
    inside = {volume.split(":")[1] for volume in compose["services"]["init"]["volumes"]}
    assert daemon["volumes"] == compose["services"]["init"]["volumes"]
    store, catalogue = settings.archive.store, settings.archive.catalogue
    assert isinstance(store, S3Settings) and isinstance(catalogue, SqliteSettings)
    wanted = {str(settings.state_directory), str(settings.inboxes[0].path), str(catalogue.path.parent)}
    assert wanted | {"/etc/dicomwatchd/config.yaml"} == inside
    assert store.endpoint_url == "http://store:7070"
    [subnet] = [one["subnet"] for one in compose["networks"]["default"]["ipam"]["config"]]
    assert settings.metrics is not None and settings.metrics.allow == (subnet,)
    assert ip_address(daemon["networks"]["default"]["ipv4_address"]) in ip_network(subnet)


def test_the_daemon_has_no_memory_dump(compose: dict[str, Any]) -> None:
    """See the units' LimitCORE=: 0 would be none to a file alone."""
    assert [compose["services"][name]["ulimits"] for name in ("init", "daemon")] == [{"core": 1}] * 2


def test_the_keys_of_the_store_and_of_the_daemon_are_the_same() -> None:
    keys = ConfigParser()
    keys.read(COMPOSE / "aws.credentials.example")
    environ = dict(line.split("=", 1) for line in (COMPOSE / ".env.example").read_text().splitlines())
    assert keys["default"]["aws_access_key_id"] == environ["STORE_ACCESS_KEY"]
    assert keys["default"]["aws_secret_access_key"] == environ["STORE_SECRET_KEY"]


def test_prometheus_takes_its_configuration(compose: dict[str, Any], tmp_path: Path) -> None:
    needs("promtool")
    text = (COMPOSE / "prometheus.yml").read_text()
    for path, inside in mounted(compose):
        if inside.endswith(".rules.yml"):
            assert inside in text
            text = text.replace(inside, str((COMPOSE / path).resolve()))
    (tmp_path / "prometheus.yml").write_text(text)
    done = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0 and "rules found" in done.stdout, done.stdout + done.stderr
    assert 'targets: ["daemon:9187"]' in text
