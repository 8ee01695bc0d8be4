"""The first start as data: questions and their checks, the configuration that comes of them, the plan, its steps."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomwatchd import markers
from dicomwatchd.cli.setup import answers as of
from dicomwatchd.cli.setup import (
    asking,
    first_study,
    folders,
    following,
    keys,
    machine,
    phantom,
    plan,
    questions,
    steps,
)
from dicomwatchd.cli.setup.background import Background, ended_by_signals
from dicomwatchd.cli.setup.folders import Refused
from dicomwatchd.cli.setup.machine import Machine
from dicomwatchd.cli.setup.questions import QUESTIONS, Around
from dicomwatchd.cli.setup.steps import Command, Outcome, Ran, Step, Told
from dicomwatchd.config import loading
from dicomwatchd.config.archive import DynamoDBSettings, S3Settings, SqliteSettings
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import ConfigError, OutOfReach
from dicomwatchd.intake.dicom.header import Header, read_header
from dicomwatchd.rights import Asker
from dicomwatchd.unit import drop_in
from tests.pieces import ARCHIVE_ID, Pieces

CONFIG = Path("/etc/dicomwatchd/config.yaml")
BY_KEY = {question.key: question for question in QUESTIONS}


def a_machine(**changes: Any) -> Machine:
    known: dict[str, Any] = {
        "config_path": CONFIG,
        "uid": 0,
        "has_systemd": True,
        "has_unit": True,
        "daemon": Asker(990, 990, frozenset({990}), "dicomwatchd"),
        "home": Path("/nonexistent"),
        "environment": {},
    }
    return Machine(**{**known, **changes})


def without_service(**changes: Any) -> Around:
    return Around(a_machine(uid=os.geteuid(), **changes), service=False, may_ask_archive=False)


def given_below(folder: Path, **more: str) -> dict[str, str]:
    return {
        "inbox": str(folder / "inbox"),
        "store": str(folder / "archive"),
        "state_directory": str(folder / "state"),
        **more,
    }


# --- the checks


def refused(key: str, value: str, answers: dict[str, str], around: Around) -> str:
    with pytest.raises(Refused) as caught:
        BY_KEY[key].check(value, answers, around)
    return caught.value.message


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("inbox", "absolute path"),
        ("/srv/dicom/a\x1bb", "control characters"),
        ("/", "belongs to the system"),
        ("/srv", "belongs to the system"),
        ("/etc/dicom", "belongs to the system"),
        ("/usr/share/../lib/x", "belongs to the system"),
        ("/proc/self", "belongs to the system"),
        ("//etc/dicom", "belongs to the system"),
        (f"/srv/{'x' * 300}", "File name too long"),
    ],
)
def test_an_inbox_that_cannot_be_is_refused_with_the_reason(value: str, why: str) -> None:
    assert why in refused("inbox", value, {"state_directory": "/var/lib/dicomwatchd"}, without_service())


def test_nothing_lies_below_a_file_and_two_slashes_are_one(tmp_path: Path) -> None:
    answers = {"state_directory": str(tmp_path / "state")}
    (tmp_path / "file").write_text("")
    assert "is a file" in refused("inbox", str(tmp_path / "file" / "in"), answers, without_service())
    assert BY_KEY["inbox"].check(f"/{tmp_path}/in", answers, without_service()).value == f"{tmp_path}/in"


@pytest.mark.parametrize("value", ["/home/anna/inbox", "/root/inbox", "/tmp/inbox", "/var/tmp/inbox"])
def test_what_the_sandbox_hides_is_no_inbox_of_the_service(value: str) -> None:
    around = Around(a_machine(), service=True, may_ask_archive=False)
    assert "hidden" in refused("inbox", value, {"state_directory": "/var/lib/dicomwatchd"}, around)


def test_whoever_plans_a_service_needs_no_rights_of_his_own_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is root who sets it up; `setup --dry-run` shows anybody how. Without a service one's own rights count."""
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    monkeypatch.setattr(folders, "_HIDDEN_FROM_THE_SERVICE", ())
    somebody = a_machine(uid=1000, daemon=None)
    answers = given_below(tmp_path)
    for key, value in answers.items():
        planned = BY_KEY[key].check(value, answers, Around(somebody, service=True, may_ask_archive=False))
        assert planned.value == value
        why = refused(key, value, answers, Around(somebody, service=False, may_ask_archive=False))
        assert f"you may not read, write and enter {tmp_path} (it would be made there): " in why


def test_an_inbox_is_apart_from_state_and_archive_whatever_its_path(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(state / "below")
    answers = {"state_directory": str(state)}
    assert "overlaps the state" in refused("inbox", str(state / "in"), answers, without_service())
    assert "overlaps the state" in refused("inbox", str(tmp_path), answers, without_service())
    assert "overlaps the state" in refused("inbox", str(tmp_path / "link"), answers, without_service())
    marked = tmp_path / "another"
    marked.mkdir()
    fd = os.open(marked, os.O_RDONLY)
    markers.write(fd, markers.ARCHIVE, markers.ARCHIVE_TEXT)
    os.close(fd)
    assert "folder of an archive" in refused("inbox", str(marked / "in"), answers, without_service())
    (tmp_path / "file").write_text("")
    assert "not a folder" in refused("inbox", str(tmp_path / "file"), answers, without_service())


def test_what_is_there_already_is_said_of_an_inbox(tmp_path: Path) -> None:
    answers = {"state_directory": str(tmp_path / "state")}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "IM1").write_text("")
    assert "has 1 entries already" in BY_KEY["inbox"].check(str(tmp_path / "full"), answers, without_service()).notes[0]
    assert "will be made" in BY_KEY["inbox"].check(str(tmp_path / "none"), answers, without_service()).notes[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder")
def test_a_folder_that_the_daemon_s_user_cannot_get_to_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    machine = a_machine(daemon=Asker(61001, 61001, frozenset(), "dicomwatchd"))
    with pytest.raises(Refused, match=r"may not enter .*: setfacl -m u:dicomwatchd:x"):
        folders._require_usable(closed / "inbox", False, machine, service=True)


def test_a_store_in_a_folder(tmp_path: Path) -> None:
    answers = {"state_directory": str(tmp_path / "state"), "inbox": str(tmp_path / "inbox")}
    around = without_service()
    assert "overlaps the inbox" in refused("store", str(tmp_path / "inbox" / "archive"), answers, around)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo").write_text("")
    assert "not empty and holds no archive" in refused("store", str(tmp_path / "full"), answers, around)
    fd = os.open(tmp_path / "full", os.O_RDONLY)
    markers.write(fd, markers.ARCHIVE, markers.ARCHIVE_TEXT)
    os.close(fd)
    assert "already" in BY_KEY["store"].check(str(tmp_path / "full"), answers, around).notes[0]


def test_a_catalogue_of_one_s_own_is_not_the_daemon_s_state(tmp_path: Path) -> None:
    answers = {"state_directory": str(tmp_path / "s"), "inbox": str(tmp_path / "i"), "store": "s3://bucket"}
    assert "daemon's own state" in refused("catalogue", f"sqlite:{tmp_path}/s/state.db", answers, without_service())
    assert BY_KEY["catalogue"].check(f"sqlite:{tmp_path}/s/catalogue.db", answers, without_service())


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("store", "s3://x", "must be a bucket name"),
        ("store", "s3://my bucket", "must be a bucket name"),
        ("store", "s3://bucket/a b", "plain words"),
        ("region", "Frankfurt!", "region"),
        ("endpoint_url", "rgw.hospital", "must be https"),
        ("endpoint_url", "http://rgw.hospital", "start setup with --insecure-http"),
        ("catalogue", "dynamodb:x", "must be dynamodb:TABLE"),
        ("catalogue", "postgres", "must be dynamodb:TABLE"),
        ("kms_key", "alias/mine", "ARN"),
        ("after_archiving", "yes", "keep or delete"),
        ("quiet_seconds", "soon", "seconds"),
        ("inbox_name", "DOE^JANE", "patient data"),
    ],
)
def test_other_answers_that_cannot_be(key: str, value: str, why: str) -> None:
    known = {"state_directory": "/s", "inbox": "/i", "store": "s3://bucket", "region": "eu-central-1"}
    assert why in refused(key, value, known, without_service())


def test_the_file_system_of_a_path_is_that_of_the_innermost_mount() -> None:
    mounts = (
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 20 0:40 / /srv/nas rw shared:1 - nfs4 server:/x rw\n"
        "31 30 8:2 / /srv/nas/a\\040b rw - xfs /dev/sdb rw\n"
    )
    assert folders.file_system(Path("/srv/nas/ct1"), mounts) == "nfs4"
    assert folders.file_system(Path("/srv/nas/a b/c"), mounts) == "xfs"
    assert folders.file_system(Path("/srv/nascent"), mounts) == "ext4"
    assert folders.is_network("nfs4") and not folders.is_network("ext4")


# --- asking


class Person:
    """Answers one question after the other; what is asked of it that it has no answer to is taken as it is."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers, self.asked, self.told = answers, list[str](), list[str]()

    def read(self, text: str, default: str) -> str:
        key = next(question.key for question in QUESTIONS if question.text == text)
        self.asked.append(key)
        waiting = self.answers.get(key, [])
        return waiting.pop(0) if waiting else default

    def tell(self, text: str) -> None:
        self.told.append(text)


def test_a_wrong_answer_is_told_at_once_and_asked_again(tmp_path: Path) -> None:
    person = Person(
        inbox=["inbox", str(tmp_path / "inbox")],
        store=[str(tmp_path / "inbox" / "archive"), str(tmp_path / "archive")],
        after_archiving=["perhaps", "delete"],
    )
    found = asking.ask({"state_directory": str(tmp_path / "state")}, without_service(), person.read, person.tell)
    assert person.asked == ["inbox", "inbox", "store", "store", "after_archiving", "after_archiving"]
    assert found["inbox"] == str(tmp_path / "inbox") and found["after_archiving"] == "delete"
    assert found["catalogue"] == "sqlite", "not asked for an archive in a folder"
    said = "\n".join(person.told)
    assert "must be an absolute path" in said and "overlaps the inbox" in said and "must be keep or delete" in said


def test_a_store_out_of_reach_is_asked_for_again_from_its_bucket_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def bucket(settings: S3Settings, _session: object) -> str:
        looked.append((settings.bucket, settings.region, settings.endpoint_url))
        if settings.bucket == "wrong":
            raise Refused("there is nobody", ask_again=("store", "region", "endpoint_url"))
        return "reached"

    monkeypatch.setattr("dicomwatchd.cli.setup.reach.bucket", bucket)
    monkeypatch.setattr("dicomwatchd.cli.setup.reach.table", lambda *_: "reached")
    person = Person(
        store=["s3://wrong", "s3://right"], region=["us-east-1"], endpoint_url=["https://rgw.hospital.test"]
    )
    around = Around(a_machine(uid=os.geteuid()), service=False)
    found = asking.ask(
        {"state_directory": str(tmp_path / "s"), "inbox": str(tmp_path / "i")}, around, person.read, person.tell
    )
    assert person.asked == [
        *("store", "region", "endpoint_url", "store", "region", "endpoint_url"),
        *("catalogue", "after_archiving"),
    ]
    assert looked == [
        ("wrong", "us-east-1", "https://rgw.hospital.test"),
        ("right", "us-east-1", "https://rgw.hospital.test"),
    ], "what was said before is the default"
    assert (found["store"], found["kms_key"]) == ("s3://right", "none")


def test_without_being_asked_every_option_that_cannot_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        asking.take(
            given_below(tmp_path, inbox="in", after_archiving="perhaps", region="x"),
            without_service(),
            lambda _text: None,
        )
    assert [place for place, _ in caught.value.problems] == ["--inbox", "--region", "--after-archiving"]


def test_every_question_has_its_option_and_what_it_becomes_is_compared() -> None:
    from dicomwatchd.cli.setup.command import first_start

    options = {name for parameter in first_start.params for name in parameter.opts}
    assert {question.option for question in QUESTIONS} <= options
    assert set(questions._PLACES) == set(BY_KEY)


# --- the configuration


def made(given: dict[str, str], after: str = of.KEEP) -> tuple[dict[str, Any], Config]:
    known = asking.asked_for(given, without_service())
    data = of.data_of(known, questions.values_of(known), after)
    return data, loading.parse(data)


def test_the_configuration_of_a_folder(tmp_path: Path) -> None:
    data, parsed = made(given_below(tmp_path, quiet_seconds="5"))
    assert data == {
        "state_directory": str(tmp_path / "state"),
        "inboxes": [
            {"path": str(tmp_path / "inbox"), "name": "inbox", "quiet_seconds": 5, "after_archive": "keep"},
        ],
        "archive": {
            "store": {"kind": "directory", "path": str(tmp_path / "archive")},
            "catalogue": {"kind": "sqlite", "path": str(tmp_path / "archive/catalogue.db")},
        },
    }
    text = of.text_of(data)
    assert yaml.safe_load(text) == data and text.count("after_archive: keep\n") == 1 and "\nEND" not in text
    assert parsed.inboxes[0].after_archive == "keep"


def test_the_configuration_of_amazon_is_bundled() -> None:
    _, parsed = made({"store": "s3://images/ct", "kms_key": "arn:aws:kms:eu-central-1:1:key/k", "region": "eu-west-1"})
    store, catalogue = parsed.archive.store, parsed.archive.catalogue
    assert isinstance(store, S3Settings) and isinstance(catalogue, DynamoDBSettings)
    assert (store.bucket, store.prefix, store.region, store.endpoint_url) == ("images", "ct/", "eu-west-1", None)
    assert store.encryption.mode == "aws:kms" and parsed.archive.layout.kind == "bundled"
    assert (catalogue.table, catalogue.region) == ("dicom-studies", "eu-west-1")


def test_the_configuration_of_another_store() -> None:
    _, parsed = made({"store": "s3://images", "endpoint_url": "https://rgw.hospital.test", "ca_file": "/etc/ca.pem"})
    store, catalogue = parsed.archive.store, parsed.archive.catalogue
    assert isinstance(store, S3Settings) and isinstance(catalogue, SqliteSettings)
    assert (store.endpoint_url, str(store.ca_file)) == ("https://rgw.hospital.test", "/etc/ca.pem")
    assert str(catalogue.path) == "/var/lib/dicomwatchd/catalogue.db" and parsed.archive.layout.kind == "instance"


def test_deletion_is_switched_on_only_in_what_setup_has_written(tmp_path: Path) -> None:
    data, _ = made(given_below(tmp_path))
    text = of.text_of(data)
    deleting = of.with_deletion(text.encode())
    assert deleting == text.replace("after_archive: keep", "after_archive: delete")
    assert of.with_deletion((text + "# mine\n").encode()) is None
    assert of.with_deletion(text.replace("keep", "{delete_after: 7d}").encode()) is None
    assert of.with_deletion(deleting.encode()) is None
    assert of.with_deletion(b"\xff") is None and of.with_deletion(b"- 1\n") is None
    # ... and by the command that is printed.
    (tmp_path / "config.yaml").write_text(text)
    wanted = replace(_wanted(tmp_path, service=False), delete_text=deleting)
    [step] = plan._deletion(wanted, a_machine(config_path=tmp_path / "config.yaml"))
    assert step.already() is None
    assert step.understand(steps.run(step.command)).outcome is Outcome.DONE
    assert (tmp_path / "config.yaml").read_text() == deleting and step.already() is not None


def test_what_differs_from_an_existing_configuration(tmp_path: Path) -> None:
    given = given_below(tmp_path)
    _, there = made(given)

    def differs(more: dict[str, str], after: str = of.KEEP) -> list[str]:
        known = asking.asked_for(more, without_service())
        asked = loading.parse(of.data_of(known, questions.values_of(known), after))
        return [
            place for place, _, _ in of.differences(there, asked, questions.places_of(more, known), more.get("inbox"))
        ]

    assert differs(given) == []
    assert differs({"store": given["store"]}) == []
    assert differs({"catalogue": "sqlite"}) == []
    assert differs({"store": "/srv/other"}) == ["archive.store.path"]
    assert differs({"store": "s3://bucket"}) == [f"archive.store.{key}" for key in ("kind", "path", "bucket", "prefix")]
    assert differs({"after_archiving": "delete"}, of.DELETE) == ["inboxes[0].after_archive"]
    assert differs({"inbox": "/srv/dicom/mr1"}) == ["inboxes[1].path"]


# --- the plan


def _wanted(folder: Path, *, service: bool = True, store: str | None = None, **changes: Any) -> plan.Wanted:
    _, parsed = made(given_below(folder, **({} if store is None else {"store": store})))
    background = Background(("dicomwatchd", "--config", "x"), folder / "log", folder / "socket")
    return plan.Wanted(parsed, "inboxes: []\n", plan.Ways(service=service, **changes), background, lambda: None)


def commands(wanted: plan.Wanted, on: Machine) -> dict[str, str]:
    return {step.key: step.command.shown for step in plan.steps(wanted, on)}


def test_the_plan_of_a_service_with_a_folder(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    found = commands(_wanted(tmp_path), a_machine())
    written = found.pop("configuration")
    assert found == {
        "inbox inbox": f"install -d -o dicomwatchd -g dicomwatchd -m 2770 {inbox}",
        "rights inbox": f"setfacl -R -m u:dicomwatchd:rwX -m d:u:dicomwatchd:rwX {inbox}",
        "state": f"install -d -o dicomwatchd -g dicomwatchd -m 0750 {tmp_path}/state",
        "archive folder": f"install -d -o dicomwatchd -g dicomwatchd -m 0750 {tmp_path}/archive",
        "check": "dicomwatchctl config check",
        "archive": "runuser -u dicomwatchd -- dicomwatchctl archive init --json",
        "sandbox": "dicomwatchd-folders",
        "service": "systemctl enable --now dicomwatchd.service",
        "test-study": "dicomwatchctl setup test-study --json",
    }
    assert written == (
        f"(umask 022; rm -f {CONFIG}.new; set -C; cat > {CONFIG}.new) <<'END' && ln {CONFIG}.new {CONFIG}"
        f" && rm {CONFIG}.new\ninboxes: []\nEND"
    )


def test_the_plan_without_a_service_has_nothing_of_root_s(tmp_path: Path) -> None:
    on = a_machine(uid=1000, has_systemd=False, config_path=tmp_path / "a b" / "c.yaml")
    found = plan.steps(_wanted(tmp_path, service=False), on)
    assert [step.key for step in found] == [
        *("inbox inbox", "state", "configuration folder", "archive folder", "configuration", "check", "archive"),
        *("start", "test-study", "stop"),
    ]
    assert not any(step.needs for step in found)
    by_key = {step.key: step.command.shown for step in found}
    assert by_key["check"] == f"dicomwatchctl --config '{tmp_path}/a b/c.yaml' config check"
    assert not any("systemctl" in shown or "setfacl" in shown for shown in by_key.values())


def test_what_is_left_out_on_purpose(tmp_path: Path) -> None:
    found = commands(_wanted(tmp_path, acl=False, start=False, test_study=False), a_machine())
    assert not {"rights inbox", "service", "test-study"} & set(found)
    active = a_machine(service_is_active=True, service_is_enabled=True)
    assert "restart" in commands(_wanted(tmp_path), active)


def test_no_key_is_in_any_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {"AWS_ACCESS_KEY_ID": "AKIASECRET", "AWS_SECRET_ACCESS_KEY": "hidden-key"}
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    wanted = _wanted(tmp_path, store="s3://images")
    shown = "\n".join(step.command.shown + repr(step) for step in plan.steps(wanted, a_machine(environment=secret)))
    assert not any(value in shown for value in secret.values())
    assert "env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY" in shown, "the service's are tried without these"


def test_whose_keys_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_service = tmp_path / "aws.credentials"
    monkeypatch.setattr(drop_in, "CREDENTIALS", of_service)
    monkeypatch.setattr(drop_in, "ENVIRONMENT_FILE", tmp_path / "aws.env")
    on = a_machine(home=tmp_path)
    assert keys.borrowed(on) == ()
    of_service.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    assert keys.borrowed(on) == ("env", f"AWS_SHARED_CREDENTIALS_FILE={of_service}")
    found = keys.session(on).get_credentials()
    assert found is not None and (found.access_key, found.secret_key) == ("a", "b")
    assert keys.borrowed(a_machine(home=tmp_path, environment={"AWS_PROFILE": "admin"})) == ()
    before = keys.as_the_service()
    assert before is not None and before[-1] == f"AWS_SHARED_CREDENTIALS_FILE={of_service}"
    of_service.unlink()
    (tmp_path / "aws.env").write_text("AWS_ACCESS_KEY_ID=a\n")
    assert keys.as_the_service() is None


def test_what_the_service_needs_is_named() -> None:
    assert a_machine().lacks(service=True) == []
    assert a_machine(uid=1, has_systemd=False, daemon=None).lacks(service=False) == []
    lacks = "\n".join(a_machine(uid=1, has_systemd=False, daemon=None, config_path=Path("/x")).lacks(service=True))
    for word in (
        "sudo dicomwatchctl setup",
        "systemd does not run",
        "scripts/install creates",
        "reads /etc/dicomwatchd",
    ):
        assert word in lacks
    assert "no unit" in "\n".join(a_machine(has_unit=False).lacks(service=True))
    assert machine.user("nobody-of-that-name") is None


# --- the steps


def taken(*parts: Step, dry_run: bool = False, run: Callable[..., Ran] = steps.run) -> tuple[steps.Report, str]:
    told = list[str]()
    report = steps.take(parts, run, told.append, steps.Report(), dry_run=dry_run)
    return report, "\n".join(told)


def test_each_command_is_printed_before_it_is_run_and_its_result_after(tmp_path: Path) -> None:
    here = tmp_path / "a b"
    step = Step(
        "one", "A folder", Command.of("mkdir", str(here)), already=lambda: "is there" if here.is_dir() else None
    )
    told = list[str]()

    def run(command: Command, live: bool) -> Ran:
        assert told[-1] == f"  $ mkdir '{here}'" and not here.exists()
        return steps.run(command, live)

    report = steps.take([step], run, told.append, steps.Report())
    assert told[1:] == ["[1/1] A folder", f"  $ mkdir '{here}'", "  done"] and report.changed
    again, said = taken(step)
    assert "already right: is there" in said and "$ mkdir" not in said and not again.changed
    subprocess.run(["rmdir", here], check=True)
    subprocess.run(["sh", "-c", step.command.shown], check=True)
    assert here.is_dir(), "what is printed can be typed"


def test_after_a_failure_nothing_more_is_done_and_all_is_told(tmp_path: Path) -> None:
    left = tmp_path / "left"
    report, said = taken(
        Step("right", "First", Command.of("true"), understand=lambda _ran: Told(Outcome.CHECKED)),
        Step("wrong", "Second", Command.shell("echo out; echo 'dicomwatchctl: no bucket' >&2; exit 3")),
        Step("left", "Third", Command.of("touch", str(left))),
    )
    assert [one.told.outcome for one in report.taken] == [Outcome.CHECKED, Outcome.FAILED, Outcome.LEFT]
    assert report.failed is not None and (report.failed.code, report.failed.told.detail) == (3, "no bucket")
    assert not left.exists() and not report.changed and "failed: no bucket" in said and "    out" in said
    missing, _ = taken(Step("x", "X", Command.of("/nowhere/program")))
    assert missing.failed is not None and "No such file" in missing.failed.told.detail


@pytest.fixture
def not_under_nohup() -> Iterator[None]:
    """Whatever this test is run by: SIGHUP and SIGTERM as a shell leaves them."""
    before = {one: signal.signal(one, signal.SIG_DFL) for one in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.usefixtures("not_under_nohup")
def test_a_signal_that_ends_a_program_lets_it_stop_what_it_has_started() -> None:
    stopped = list[int]()

    def work(number: int) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            stopped.append(number)

    for number in (signal.SIGHUP, signal.SIGTERM):
        with pytest.raises(SystemExit) as ended, ended_by_signals():
            work(number)
        assert ended.value.code == 128 + number
    assert stopped == [signal.SIGHUP, signal.SIGTERM]
    assert [signal.getsignal(one) for one in (signal.SIGHUP, signal.SIGTERM)] == [signal.SIG_DFL, signal.SIG_DFL]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ended_by_signals():  # as under nohup
        os.kill(os.getpid(), signal.SIGHUP)


def test_a_dry_run_does_nothing_and_says_what_is_needed(tmp_path: Path) -> None:
    here = tmp_path / "x"
    report, said = taken(Step("one", "One", Command.of("touch", str(here)), needs=("root",)), dry_run=True)
    assert not here.exists() and report.changed and "needs root" in said and f"$ touch {here}" in said


def test_a_configuration_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    wanted = _wanted(tmp_path)
    [step] = plan._configuration(wanted, a_machine(config_path=path))
    assert step.already() is None
    path.write_text("mine\n")
    assert "stays" in (step.already() or "") or "left" in (step.already() or "")
    assert steps.run(step.command).code != 0
    assert path.read_text() == "mine\n"
    path.unlink()
    assert steps.run(step.command).code == 0
    assert path.read_text() == wanted.text and path.stat().st_mode & 0o777 == 0o644
    assert sorted(os.listdir(tmp_path)) == ["config.yaml"]
    path.unlink()
    _, said = taken(step, dry_run=True)
    copied = said.partition("  $ ")[2].partition("\n  not run")[0]
    subprocess.run(["sh", "-c", copied], check=True)
    assert path.read_text() == wanted.text, "what is printed can be copied"


# --- the test study


def test_what_an_earlier_run_has_left_beside_the_configuration_is_not_written_through(tmp_path: Path) -> None:
    """Killed between `ln` and `rm`, and then the configuration was moved away, as setup itself says it: what was left
    is the same file. And where others may write, somebody has put a link there."""
    path, victim = tmp_path / "config.yaml", tmp_path / "victim"
    wanted = _wanted(tmp_path)
    [step] = plan._configuration(wanted, a_machine(config_path=path))
    for lay in (os.link, os.symlink):
        (tmp_path / "config.yaml.old").write_text("mine\n")
        victim.write_text("of the system\n")
        lay(tmp_path / "config.yaml.old" if lay is os.link else victim, f"{path}.new")
        assert steps.run(step.command).code == 0
        assert (tmp_path / "config.yaml.old").read_text() == "mine\n"
        assert victim.read_text() == "of the system\n"
        assert path.read_text() == wanted.text and not path.is_symlink()
        os.unlink(path)


def test_a_folder_of_the_state_that_somebody_has_made_beforehand_becomes_the_daemon_s(tmp_path: Path) -> None:
    wanted, on = _wanted(tmp_path), a_machine(daemon=Asker(61001, 61001, frozenset({61001}), "dicomwatchd"))
    [step] = plan._state(wanted, on)
    assert step.already() is None
    (tmp_path / "state").mkdir()
    assert step.already() is None, "it is empty, and not the daemon's"
    (tmp_path / "state" / "state.db").write_text("")
    assert step.already() is not None
    with pytest.raises(Refused, match="belongs to another user"):
        folders.require_the_daemons(tmp_path / "state", on)
    folders.require_the_daemons(tmp_path / "state", replace(on, daemon=Asker(os.geteuid(), 0, frozenset(), "x")))


def test_a_configuration_whose_folder_leads_into_the_system_by_now_gives_nobody_rights_there(tmp_path: Path) -> None:
    """Between two runs somebody who may write above an inbox has put a link to /etc in its place."""
    from click.testing import CliRunner

    from dicomwatchd.cli.app import root

    data, _ = made(given_below(tmp_path))
    (tmp_path / "c.yaml").write_text(of.text_of(data))
    (tmp_path / "inbox").symlink_to("/etc")
    base = ["--config", str(tmp_path / "c.yaml"), "setup", "--no-service", "--yes", "--dry-run"]
    done = CliRunner().invoke(root, base)
    assert done.exit_code == 2 and "/etc belongs to the system" in done.stderr, done.output
    assert "[1/" not in done.output
    (tmp_path / "inbox").unlink()
    assert CliRunner().invoke(root, base).exit_code == 0


def test_an_archive_has_one_test_study_of_nobody(tmp_path: Path) -> None:
    archive_id = "0b1f9a38-5d4e-4d7a-9c0b-6a3a3b1f2c4d"
    study = phantom.study_uid(archive_id)
    assert study == phantom.study_uid(archive_id) != phantom.study_uid(archive_id, 1)
    assert study == f"2.25.{uuid.uuid5(phantom.NAMESPACE, archive_id).int}" and len(study) <= 64
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert str(phantom.NAMESPACE) in page, "the root is documented"
    one = phantom.make(study, datetime(2026, 11, 30, 12), bytes(range(16)))
    other = phantom.make(study, datetime(2026, 11, 30, 12), bytes(range(1, 17)))
    assert one.sop_instance_uid != other.sop_instance_uid and len(one.content) < 6000
    path = tmp_path / "IM1"
    path.write_bytes(one.content)
    fd = os.open(path, os.O_RDONLY)
    try:
        found = read_header(fd, len(one.content))
    finally:
        os.close(fd)
    assert isinstance(found, Header)
    assert (found.instance.study_uid, found.instance.sop_instance_uid) == (study, one.sop_instance_uid)
    assert (found.instance.damage, found.instance.repairs) == ("", ())


def test_dciodvfy_finds_no_missing_attribute_in_it(tmp_path: Path) -> None:
    from tests.tools import needed

    needed("dciodvfy", "dcmftest")
    path = tmp_path / "IM1"
    path.write_bytes(phantom.make(phantom.study_uid("x"), datetime(2026, 11, 30), bytes(16)).content)
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
    assert not [line for line in said.splitlines() if line.startswith("Error")], said
    assert subprocess.run(["dcmftest", path], capture_output=True, check=False).returncode == 0


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def followed(
    looks: list[dict[str, Any] | None], deadline_seconds: float = 5, is_in_it: Callable[[], bool] = lambda: True
) -> tuple[following.Way, list[str]]:
    time, told = Time(), list[str]()
    way = following.follow(
        lambda: looks.pop(0) if len(looks) > 1 else looks[0],
        "2026-11-30T12:00:00.000Z",
        told.append,
        is_in_it=is_in_it,
        deadline_seconds=deadline_seconds,
        monotonic=time.monotonic,
        sleep=time.sleep,
    )
    return way, told


def history(*states: str, begin: int = 1) -> list[dict[str, Any]]:
    return [{"at": f"2026-11-30T12:00:{begin + number:02d}.000Z", "new": state} for number, state in enumerate(states)]


def test_the_way_is_told_by_stage_even_where_nobody_has_looked_in_time() -> None:
    before = [{"at": "2026-11-29T12:00:00.000Z", "new": "archived"}]
    on_its_way = ("queued", "uploading", "verifying", "recording", "purging", "archived")
    way, told = followed(
        [
            None,
            {"reason": None, "history": before, "state": "archived"},
            {"reason": None, "history": before, "state": "arriving"},
            {"reason": None, "history": before + history("queued")},
            {"reason": None, "history": before + history(*on_its_way)},
        ]
    )
    assert way.archived and [state for state, _ in way.stages] == ["arriving", *on_its_way]
    assert len(told) == 7 and "sent to the archive" in told[2]


def test_a_retry_is_told_and_a_parked_study_ends_it() -> None:
    steps_of = history("queued", "uploading", "queued", "uploading", "parked")
    way, _ = followed([{"reason": "no such key", "history": steps_of}])
    assert not way.archived and way.reason == "no such key"
    assert [state for state, _ in way.stages] == ["arriving", *(step["new"] for step in steps_of)]


def test_what_an_earlier_run_has_left_is_archived_first_and_is_not_it() -> None:
    """The test study is the same one each time: the daemon may have archived the other file of it a moment before."""
    first = history("queued", "uploading", "archived")
    again = [*first, *history("arriving", "queued", "archived", begin=9)]
    asked = iter([False, False, True])
    way, _ = followed(
        [{"reason": None, "history": seen, "state": "archived"} for seen in (first, first, again)],
        is_in_it=lambda: next(asked),
    )
    assert way.archived and [state for state, _ in way.stages].count("archived") == 2
    way, _ = followed([{"reason": None, "history": first, "state": "archived"}], is_in_it=lambda: False)
    assert not way.archived and way.reason == "it is not archived after 5 s, though others of its study are"


def test_what_is_proven_is_the_file_and_not_its_study(tmp_path: Path) -> None:
    """Also where the manifest could not be read when the study was followed, and can be now."""
    pieces = Pieces(tmp_path)
    study = phantom.study_uid(ARCHIVE_ID, 0)
    other, ours = (phantom.make(study, datetime(2026, 12, 1), bytes([number] * 16)) for number in (1, 2))
    (pieces.inbox / "IM1").write_bytes(other.content)
    pieces.run()
    archive = first_study._Archive(pieces.store, pieces.catalogue)
    assert archive.lists(other) and archive.why_not_proven(other) == ""
    assert not archive.lists(ours)
    pieces.memory.fault = OutOfReach("no answer")
    assert archive.lists(ours) and "no answer" in archive.why_not_proven(ours)
    pieces.memory.fault = None
    assert "does not list the file" in archive.why_not_proven(ours)
    pieces.close()


def test_it_ends_at_its_deadline_with_what_is_known() -> None:
    assert "has not noticed it" in followed([None])[0].reason
    way, _ = followed([{"reason": None, "history": history("queued")}])
    assert "not archived after 5 s, after queued" in way.reason
    assert followed([{"reason": "store is full", "history": history("queued")}])[0].reason == "store is full"


def test_nothing_is_asked_where_nobody_can_answer(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dicomwatchd.cli.app import root

    given = given_below(tmp_path, region="refused")  # so that nothing would be done either where one of these is missed
    base = ["--config", str(tmp_path / "c.yaml"), "setup", "--no-service"]
    base += [word for key, value in given.items() for word in (BY_KEY[key].option, value)]
    done = CliRunner().invoke(root, base)
    assert done.exit_code == 2 and "give --yes" in done.stderr
    done = CliRunner().invoke(root, [*base, "--yes", "--after-archiving", "delete", "--no-test-study"])
    assert done.exit_code == 2 and "not with --no-start" in done.stderr
    done = CliRunner().invoke(root, [*base, "--yes", "--inbox", "here"])
    assert done.exit_code == 2 and "--inbox" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_dry_run_of_the_command_prints_the_plan_as_json_and_touches_nothing(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dicomwatchd.cli.app import root
    from tests import schemas

    given = given_below(tmp_path)
    options = [word for key, value in given.items() for word in (BY_KEY[key].option, value)]
    options += ["--after-archiving", "delete"]
    done = CliRunner().invoke(
        root, ["--config", str(tmp_path / "c.yaml"), "setup", "--no-service", "--yes", "--dry-run", "--json", *options]
    )
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    schemas.check("setup", said)
    assert said["changed"] and said["ok"] and said["steps"][0]["outcome"] == "planned"
    assert {one["outcome"] for one in said["steps"]} == {"planned", "already"}, "the daemon was not started"
    assert os.listdir(tmp_path) == [] and "$ mkdir -p" in done.stderr
    [written] = [one["command"] for one in said["steps"] if one["step"] == "configuration"]
    assert "after_archive: keep" in written, "until the test study has been proven"
    assert said["steps"][-1]["step"] == "after-archiving"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's rights are judged by root")
def test_rights_are_right_where_what_comes_later_is_the_daemon_s_too(tmp_path: Path) -> None:
    def acl(*entries: tuple[int, int, int]) -> bytes:
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)

    nobody, daemon = 0xFFFFFFFF, Asker(61001, 61001, frozenset({61001}), "dicomwatchd")
    whole = acl((1, 7, nobody), (2, 7, daemon.uid), (4, 5, nobody), (0x10, 7, nobody), (0x20, 5, nobody))
    masked = acl((1, 7, nobody), (2, 7, daemon.uid), (4, 5, nobody), (0x10, 5, nobody), (0x20, 5, nobody))
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    [box] = loading.parse(made(given_below(tmp_path))[0]).inboxes
    already = plan._rights(box, daemon).already
    assert already() is None
    os.setxattr(inbox, "system.posix_acl_access", whole)
    assert already() is None, "a folder that a modality makes there is closed to the daemon"
    os.setxattr(inbox, "system.posix_acl_default", masked)
    assert already() is None
    os.setxattr(inbox, "system.posix_acl_default", whole)
    assert already() is not None
