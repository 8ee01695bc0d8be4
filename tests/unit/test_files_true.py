"""What the repository ships beside the code is as true as the code: the sample configuration, the unit, the scripts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dicomwatchd.config import loading
from dicomwatchd.config.archive import DynamoDBSettings, S3Settings
from dicomwatchd.config.text import read_yaml
from dicomwatchd.config.web import Web
from dicomwatchd.config.whole import Config
from dicomwatchd.unit import drop_in as unit_drop_in
from dicomwatchd.unit import web_drop_in
from dicomwatchd.unit.addresses import LOOPBACK

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "etc" / "config.yaml"
UNIT = ROOT / "systemd" / "dicomwatchd.service"
RECEIVER_UNIT = ROOT / "systemd" / "dicomwatchd-receiver.service"
#: By `systemd-analyze security`: with the drop-in, with a port below 1024 as well, and without any.
RECEIVER_EXPOSURE_AT_MOST, RECEIVER_AT_LOW_PORT, RECEIVER_BARE = 1.0, 1.3, 1.1
#: What an administrator writes for a receiver's port below 1024, by docs/operations.md.
LOW_PORT = """\
[Service]
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
PrivateUsers=no
"""
WEB_UNIT = ROOT / "systemd" / "dicomwatchd-web.service"
#: To a store of the hospital's, behind a proxy; and where browsers or the store are anywhere.
WEB_EXPOSURE_AT_MOST, WEB_EXPOSURE_AT_AMAZON = 1.0, 1.2
#: By `systemd-analyze security`, with a filter of addresses and without one.
EXPOSURE_AT_MOST, EXPOSURE_AT_AMAZON = 1.2, 1.3


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed; scripts/setup-test-machine installs it")


# --- the sample configuration


def test_the_sample_is_valid_and_has_the_names_that_are_promised() -> None:
    sample = loading.load(SAMPLE)
    (inbox,) = sample.inboxes
    assert (inbox.name, str(inbox.path), inbox.after_archive) == ("ct1", "/srv/dicom/ct1", "delete")
    store, catalogue = sample.archive.store, sample.archive.catalogue
    assert isinstance(store, S3Settings)
    assert isinstance(catalogue, DynamoDBSettings)
    assert (store.bucket, store.encryption.mode, store.encryption.key_id) == (
        "hospital-archive",
        "aws:kms",
        "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    )
    assert catalogue.table == "dicom-studies"


def test_the_sample_shows_the_defaults_in_force() -> None:
    """Everything in it that has a default is that default: reading it tells what happens without it."""
    sample = loading.load(SAMPLE)
    shown_otherwise = {"name", "path", "bucket", "region", "encryption", "table", "kind"}
    for model in (sample, *sample.inboxes, sample.archive.store, sample.archive.catalogue):
        for name, field in type(model).model_fields.items():
            if name in model.model_fields_set and not field.is_required() and name not in shown_otherwise:
                if name == "inboxes":
                    continue
                assert getattr(model, name) == field.get_default(call_default_factory=True), name


def test_what_the_sample_has_commented_out_is_true_too() -> None:
    text = SAMPLE.read_text()
    other = re.sub(r"(?m)^  # (store|catalogue|  kind|  path):", r"  \1:", text)
    for kind in ("store", "catalogue"):
        other = re.sub(rf"(?ms)^  {kind}:\n    kind: (?:s3|dynamodb)\n(?:    .*?\n)+", "", other, count=1)
    other = re.sub(r"(?m)^( *)# (control_socket|log_level|include|exclude):", r"\1\2:", other)
    data = read_yaml(other)
    parsed = loading.parse(data)
    assert (parsed.archive.store.kind, parsed.archive.catalogue.kind) == ("directory", "sqlite")
    assert parsed.socket_path == loading.load(SAMPLE).socket_path
    assert parsed.log_level == "INFO"
    assert parsed.inboxes[0].include == ("*",)
    assert parsed.inboxes[0].exclude == ("*.tmp",)


def _models(kind: Any) -> set[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {kind}.union(*(_models(field.annotation) for field in kind.model_fields.values()))
    return set().union(*(_models(part) for part in get_args(kind)))


@pytest.mark.parametrize("model", sorted(_models(Config), key=str), ids=lambda model: getattr(model, "__name__", ""))
def test_every_key_of_the_configuration_is_in_the_sample(model: type[BaseModel]) -> None:
    text = SAMPLE.read_text()
    missing = [name for name in model.model_fields if not re.search(rf"(?m)(?:^[ #-]*|[{{,] *){name}:", text)]
    assert not missing


# --- the unit


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that exists: systemd-analyze looks for it."""
    path = tmp_path / UNIT.name
    path.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text()))
    return path


def test_systemd_understands_every_line_of_the_unit(unit: Path) -> None:
    needs("systemd-analyze")
    # It ends with 0 in spite of unknown keys, which it only mentions.
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectClock=", "ProtectClocks="))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert "ProtectClocks" in done.stderr, "this test would not notice"


def exposed(unit: Path, at_most: float) -> tuple[int, float]:
    """What systemd-analyze ends with when that is its threshold, and what it finds."""
    command = ["systemd-analyze", "security", "--no-pager", "--offline=yes", f"--threshold={at_most * 10:.0f}"]
    done = subprocess.run([*command, unit], capture_output=True, text=True)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    return done.returncode, float(found[1])


def test_the_exposure_of_the_service(unit: Path) -> None:
    """With the drop-in as dicomwatchd-folders writes it: to a server of the hospital's, and to Amazon."""
    needs("systemd-analyze")
    drop_in = unit.parent / "dicomwatchd.service.d" / "folders.conf"
    drop_in.parent.mkdir()
    sample = loading.load(SAMPLE)
    for allowed, at_most in (((*LOOPBACK, "10.1.2.3", "fd12::3"), EXPOSURE_AT_MOST), (None, EXPOSURE_AT_AMAZON)):
        drop_in.write_text(unit_drop_in.drop_in(sample, SAMPLE, unit_drop_in.Reach(allowed, "-"), credential=True))
        code, found = exposed(unit, at_most)
        assert (code, found <= at_most) == (0, True), found
    assert exposed(unit, EXPOSURE_AT_MOST)[0] != 0, "this test would not notice"
    drop_in.unlink()
    assert exposed(unit, EXPOSURE_AT_AMAZON)[0] == 0


def test_the_receiver_s_unit(tmp_path: Path) -> None:
    needs("systemd-analyze")
    text = RECEIVER_UNIT.read_text()
    assert f"ExecStart=/opt/dicomwatchd/bin/dicomwatchd-receive --config {loading.DEFAULT_PATH}\n" in text
    path = tmp_path / RECEIVER_UNIT.name
    path.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    drop_in = tmp_path / f"{path.name}.d" / "folders.conf"
    drop_in.parent.mkdir()
    receiver = {
        "name": "ct",
        "ae_title": "A",
        "inbox": "ct1",
        "listen": "0.0.0.0:104",
        "allow": [{"address": "10.1.2.3"}],
    }
    settings = loading.parse({**read_yaml(SAMPLE.read_text()), "receivers": [receiver]})
    drop_in.write_text(unit_drop_in.receiver_drop_in(settings, SAMPLE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    code, found = exposed(path, RECEIVER_EXPOSURE_AT_MOST)
    assert (code, found <= RECEIVER_EXPOSURE_AT_MOST) == (0, True), found
    low_port = drop_in.with_name("port.conf")
    low_port.write_text(LOW_PORT)
    assert exposed(path, RECEIVER_AT_LOW_PORT)[1] <= RECEIVER_AT_LOW_PORT
    low_port.unlink()
    drop_in.unlink()
    assert exposed(path, RECEIVER_BARE)[1] <= RECEIVER_BARE


def test_the_operations_guide_has_these_figures() -> None:
    operations = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    assert f"reports {EXPOSURE_AT_MOST} with the list and {EXPOSURE_AT_AMAZON} without it" in operations
    assert (
        f"The receiver's unit has {RECEIVER_EXPOSURE_AT_MOST}, {RECEIVER_AT_LOW_PORT} with a port below 1024, and"
        f" {RECEIVER_BARE} before `dicomwatchd-folders`" in operations
    )


def test_the_web_unit(tmp_path: Path) -> None:
    needs("systemd-analyze")
    text = WEB_UNIT.read_text()
    assert f"ExecStart=/opt/dicomwatchd/bin/dicomwatchd-web --config {loading.DEFAULT_PATH}\n" in text
    path = tmp_path / WEB_UNIT.name
    path.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    drop_in = tmp_path / f"{path.name}.d" / "folders.conf"
    drop_in.parent.mkdir()
    sample = loading.load(SAMPLE).model_copy(
        update={"web": Web.model_validate({"tokens": True, "state": "/srv/web state"})}
    )  # somebody may hand in, and the state is elsewhere
    for allowed, at_most in (((*LOOPBACK, "10.1.2.3"), WEB_EXPOSURE_AT_MOST), (None, WEB_EXPOSURE_AT_AMAZON)):
        drop_in.write_text(web_drop_in.drop_in(sample, SAMPLE, unit_drop_in.Reach(allowed, "-"), credential=True))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        code, found = exposed(path, at_most)
        assert (code, found <= at_most) == (0, True), found


def test_the_unit_starts_what_the_package_installs() -> None:
    text = UNIT.read_text()
    assert f"ExecStart=/opt/dicomwatchd/bin/dicomwatchd --config {loading.DEFAULT_PATH}\n" in text
    default_state = Config.model_fields["state_directory"].default
    assert f"StateDirectory={default_state.relative_to('/var/lib')}\n" in text


# --- the scripts


def shell_scripts() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [
        path
        for path in paths
        if path.is_file() and (path.suffix == ".sh" or path.read_bytes()[:40].split(b"\n")[0].endswith(b"bash"))
    ]


def test_shellcheck_finds_nothing() -> None:
    needs("shellcheck")
    scripts = shell_scripts()
    assert len(scripts) >= 5
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm", "web/postinst", "web/prerm", "web/postrm"])
def test_shellcheck_finds_nothing_in_the_packages_scripts(name: str) -> None:
    """As scripts/build-deb puts them together."""
    needs("shellcheck")
    parts = [ROOT / "scripts/service.sh", ROOT / "scripts/deb/maintainer.sh", ROOT / "scripts/deb" / name]
    text = "#!/bin/sh\nset -e\n" + "".join(part.read_text() for part in parts).replace("@STATE_VERSION@", "7")
    command = ["shellcheck", "--shell=sh", "--exclude=SC2034", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", "/var/lib/dicomwatchd"),
        ("# state_directory: /x\ninboxes: []\n", "/var/lib/dicomwatchd"),
        ("state_directory: /data/state\n", "/data/state"),
        ("inboxes: []\nstate_directory:   '/data/the state'   # here\n", "/data/the state"),
        ('state_directory: "/data/state"\nother: 1\n', "/data/state"),
        ('"state_directory": /data/state\n', "/data/state"),
        ("'state_directory' : /data/state\n", "/data/state"),
        ("state_directory : /data/state\n", "/data/state"),
        ("state_directory_old: /data/old\n", "/var/lib/dicomwatchd"),
    ],
)
def test_the_package_s_scripts_find_the_state_of_a_configuration(text: str, state: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    script = f'. "{ROOT}/scripts/service.sh"; config="{tmp_path}/config.yaml"; configured_state'
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{state}\n"
    if text:
        known = read_yaml(text).get("state_directory", "/var/lib/dicomwatchd")
        assert known == state, "this test is wrong"


@pytest.mark.parametrize(
    ("state", "found"), [(None, "/var/lib/dicomwatchd-web"), ("/srv/the web", "/srv/the web")], ids=["default", "own"]
)
def test_the_package_s_scripts_find_the_state_of_the_web_process(state: str | None, found: str, tmp_path: Path) -> None:
    """Whose tokens are to go when the package is purged."""
    archive = {
        "store": {"kind": "directory", "path": "/srv/archive"},
        "catalogue": {"kind": "sqlite", "path": "/srv/archive/catalogue.db"},
    }
    web = {"tokens": True, **({} if state is None else {"state": state})}
    folder = tmp_path / "dicomwatchd-web.service.d"
    folder.mkdir()
    settings = loading.parse({"archive": archive, "web": web})
    text = web_drop_in.drop_in(settings, SAMPLE, unit_drop_in.Reach(None, "-"), credential=False)
    (folder / "folders.conf").write_text(text)
    script = f'. "{ROOT}/scripts/service.sh"; own_units="{tmp_path}"; web_state_in_use'
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{found}\n"


def test_scripts_can_be_run() -> None:
    for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]:
        if path.is_file() and path.read_bytes().startswith(b"#!"):
            assert os.access(path, os.X_OK), path.name


def run_readme_commands(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (repository / "scripts").mkdir(exist_ok=True)
    script = repository / "scripts" / "readme-commands"
    shutil.copy(ROOT / "scripts" / "readme-commands", script)
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("<!-- ci:run -->\n```sh\n$ test -d scripts\n```\n", 0, "1 of 1 blocks"),
        ("<!-- ci:run -->\n\n```\necho loud; false\n```\n", 1, "loud"),
        ("<!-- ci:run -->\n```\nfalse\ntrue\n```\n", 1, "README.md:2: failed"),
        ("<!-- ci:run slow -->\n```\nfalse\n```\n", 0, "0 of 0 blocks"),
        ("```\nfalse\n```\n", 1, "no block is marked"),
        ("<!-- ci:run -->\ntext\n```\nfalse\n```\n", 1, "a block must follow"),
        ("<!-- ci:run -->\n```\nfalse\n", 1, "is not closed"),
        ("<!-- ci:run -->\n", 1, "no block follows"),
    ],
)
def test_the_readme_commands_are_run(text: str, code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    done = run_readme_commands(tmp_path)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr


def test_slow_readme_commands_are_run_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- ci:run slow -->\n```\nexit 3\n```\n")
    assert "failed (3)" in run_readme_commands(tmp_path, "--slow").stderr
    (tmp_path / "README.md").unlink()
    assert run_readme_commands(tmp_path).returncode == 0


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_the_benchmarks_need_nothing_of_the_tests() -> None:
    """They are run in an environment of their own (requirements/bench.txt)."""
    code = "import sys; sys.modules |= dict.fromkeys(('pytest', 'hypothesis', 'xdist')); import tests.bench.__main__"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
