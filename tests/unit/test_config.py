"""The configuration: what is refused, in whose words, and that every problem is named at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomwatchd.cli.terminal import output
from dicomwatchd.config import loading
from dicomwatchd.config.inboxes import DeleteAfter
from dicomwatchd.config.text import STATE_DATABASE, read_yaml
from dicomwatchd.config.whole import Config
from dicomwatchd.daemon.plan import plan_of
from dicomwatchd.errors import ConfigError
from dicomwatchd.queue.database.schema import DATABASE
from dicomwatchd.telemetry.fields import error_fields

ARCHIVE: dict[str, Any] = {
    "store": {"kind": "directory", "path": "/srv/archive"},
    "catalogue": {"kind": "sqlite", "path": "/srv/archive/catalogue.db"},
}
S3: dict[str, Any] = {
    "store": {"kind": "s3", "bucket": "hospital-archive"},
    "catalogue": {"kind": "dynamodb", "table": "dicom-studies"},
}


def problems(data: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        loading.parse(data)
    return caught.value.problems


def with_inbox(**values: Any) -> dict[str, Any]:
    return {"archive": ARCHIVE, "inboxes": [{"name": "ct1", "path": "/srv/dicom/ct1", **values}]}


def with_store(**values: Any) -> dict[str, Any]:
    return {"archive": {**S3, "store": {**S3["store"], **values}}}


def with_catalogue(**values: Any) -> dict[str, Any]:
    return {"archive": {**S3, "catalogue": {**S3["catalogue"], **values}}}


def test_defaults() -> None:
    parsed = loading.parse(with_inbox())
    assert parsed.workers == 256
    assert parsed.scan_interval_seconds == 60
    assert parsed.state_directory == Path("/var/lib/dicomwatchd")
    assert parsed.socket_path == Path("/var/lib/dicomwatchd/control.sock")
    (inbox,) = parsed.inboxes
    assert (inbox.watch, inbox.settle_seconds, inbox.quiet_seconds) == ("events", 2, 60)
    assert inbox.after_archive == "delete"
    assert inbox.without_lease == "delete"
    assert (parsed.max_wait_seconds, inbox.max_wait_seconds) == (1800, None)
    assert (inbox.include, inbox.exclude) == (("*",), ())


@pytest.mark.parametrize(("of_all", "of_one", "waits"), [(None, None, 1800), (60, None, 60), (60, 0, 0), (0, 5, 5)])
def test_how_long_an_inbox_s_studies_wait(of_all: int | None, of_one: int | None, waits: int) -> None:
    data = with_inbox() if of_one is None else with_inbox(max_wait_seconds=of_one)
    [inbox] = plan_of(loading.parse(data if of_all is None else {**data, "max_wait_seconds": of_all})).inboxes
    assert inbox.max_wait_seconds == waits


def test_fetch_needs_the_archive_only() -> None:
    assert loading.parse({"archive": ARCHIVE}).inboxes == ()


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("12h", 43200), ("7d", 604800), ("2w", 1209600)])
def test_durations(text: str, seconds: int) -> None:
    after = loading.parse(with_inbox(after_archive={"delete_after": text})).inboxes[0].after_archive
    assert isinstance(after, DeleteAfter)
    assert after.seconds == seconds


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ISO_IR 144", "ISO_IR 144"),
        ("GB18030", "GB18030"),
        ("cp1251", "cp1251"),
        ("windows-1251", "cp1251"),
        ("utf-8", "ISO_IR 192"),
        ("shift_jis", "cp932"),
        ("iso8859-5", "ISO_IR 144"),
        (None, None),
    ],
)
def test_character_sets(written: str | None, meant: str | None) -> None:
    found = loading.parse({**with_inbox(charset_when_missing=written), "charset_when_missing": written})
    assert (found.charset_when_missing, found.inboxes[0].charset_when_missing) == (meant, meant)


#: What is said of a character set that cannot be assumed.
NO_CHARSET = (
    "must be a defined term of DICOM, such as ISO_IR 144 or GB18030, or another character set, such as cp1251 or"
    " koi8_r; see dicomwatchd.yaml(5)"
)
#: (data, the one problem it has)
ONE_PROBLEM: list[tuple[Any, tuple[str, str]]] = [
    # not a configuration at all
    (None, ("", "must be a mapping with archive: and inboxes:")),
    ([], ("", "must be a mapping with archive: and inboxes:")),
    ("archive", ("", "must be a mapping with archive: and inboxes:")),
    ({}, ("archive", "is missing")),
    # shape
    ({"archive": None}, ("archive", "must be a mapping")),
    ({"archive": ARCHIVE, "inboxes": None}, ("inboxes", "must be a list")),
    ({"archive": ARCHIVE, "inboxes": {"name": "ct1"}}, ("inboxes", "must be a list")),
    ({"archive": ARCHIVE, "inboxes": ["/srv/dicom"]}, ("inboxes[0]", "must be a mapping")),
    ({"archive": ARCHIVE, "colour": 1}, ("colour", "is not a known key")),
    ({"archive": ARCHIVE, 7: 1}, ("a key", "is not a known key")),
    (
        {"archive": ARCHIVE, "scan_intervall_seconds": 1},
        ("scan_intervall_seconds", "is not a known key; did you mean scan_interval_seconds?"),
    ),
    ({"archive": {**ARCHIVE, "store": None}}, ("archive.store", "must be a mapping")),
    ({"archive": {**ARCHIVE, "store": {"path": "/x"}}}, ("archive.store.kind", "is missing")),
    ({"archive": {**ARCHIVE, "store": {"kind": "ftp"}}}, ("archive.store.kind", "must be s3 or directory")),
    (
        {"archive": {**ARCHIVE, "catalogue": {"kind": "oracle"}}},
        ("archive.catalogue.kind", "must be dynamodb or sqlite"),
    ),
    ({"archive": {**S3, "store": {"kind": "s3"}}}, ("archive.store.bucket", "is missing")),
    (with_inbox(quite_seconds=1), ("inboxes[0].quite_seconds", "is not a known key; did you mean quiet_seconds?")),
    ({"archive": ARCHIVE, "inboxes": [{"path": "/srv/a"}]}, ("inboxes[0].name", "is missing")),
    # numbers
    (with_inbox(quiet_seconds=-1), ("inboxes[0].quiet_seconds", "must be >= 0")),
    (with_inbox(max_wait_seconds=-1), ("inboxes[0].max_wait_seconds", "must be >= 0")),
    ({**with_inbox(), "max_wait_seconds": 604801}, ("max_wait_seconds", "must be <= 604800")),
    (with_inbox(quiet_seconds=True), ("inboxes[0].quiet_seconds", "must be a number")),
    (with_inbox(quiet_seconds="60"), ("inboxes[0].quiet_seconds", "must be a number")),
    (with_inbox(quiet_seconds=float("nan")), ("inboxes[0].quiet_seconds", "must be a finite number")),
    (with_inbox(settle_seconds=float("inf")), ("inboxes[0].settle_seconds", "must be a finite number")),
    ({"archive": ARCHIVE, "scan_interval_seconds": 0}, ("scan_interval_seconds", "must be > 0")),
    ({"archive": ARCHIVE, "workers": 0}, ("workers", "must be >= 1")),
    ({"archive": ARCHIVE, "workers": 257}, ("workers", "must be <= 256")),
    ({"archive": ARCHIVE, "workers": 1.5}, ("workers", "must be a whole number")),
    ({"archive": ARCHIVE, "workers": True}, ("workers", "must be a whole number")),
    ({"archive": ARCHIVE, "workers": "16"}, ("workers", "must be a whole number")),
    ({"archive": ARCHIVE, "workers": 10**30}, ("workers", "must be <= 256")),
    # words
    (with_inbox(watch="inotify"), ("inboxes[0].watch", "must be events or poll")),
    ({"archive": ARCHIVE, "log_level": "debug"}, ("log_level", "must be DEBUG, INFO, WARNING or ERROR")),
    (with_inbox(after_archive="zap"), ("inboxes[0].after_archive", "must be delete, keep, or {delete_after: 7d}")),
    (with_inbox(charset_when_missing="klingon"), ("inboxes[0].charset_when_missing", NO_CHARSET)),
    # All of it is below 0x80, or is called up by escape sequences: nothing is said by it.
    (with_inbox(charset_when_missing="ISO_IR 6"), ("inboxes[0].charset_when_missing", NO_CHARSET)),
    (with_inbox(charset_when_missing="ISO 2022 IR 87"), ("inboxes[0].charset_when_missing", NO_CHARSET)),
    (with_inbox(charset_when_missing="utf-16"), ("inboxes[0].charset_when_missing", NO_CHARSET)),
    (with_inbox(charset_when_missing=1251), ("inboxes[0].charset_when_missing", "must be text; put it in quotes")),
    ({"archive": ARCHIVE, "charset_when_missing": "rot13"}, ("charset_when_missing", NO_CHARSET)),
    (with_inbox(without_lease="zap"), ("inboxes[0].without_lease", "must be delete or keep")),
    (with_inbox(without_lease=None), ("inboxes[0].without_lease", "must be delete or keep")),
    (with_inbox(after_archive=None), ("inboxes[0].after_archive", "must be delete, keep, or {delete_after: 7d}")),
    (with_inbox(after_archive=True), ("inboxes[0].after_archive", "must be delete, keep, or {delete_after: 7d}")),
    (with_inbox(after_archive=[]), ("inboxes[0].after_archive", "must be delete, keep, or {delete_after: 7d}")),
    (
        with_inbox(after_archive={"delete_after": "soon"}),
        ("inboxes[0].after_archive.delete_after", "must be a whole number and a unit, such as 12h or 7d"),
    ),
    (
        with_inbox(after_archive={"delete_after": "-7d"}),
        ("inboxes[0].after_archive.delete_after", "must be a whole number and a unit, such as 12h or 7d"),
    ),
    (
        with_inbox(after_archive={"delete_after": "٧d"}),
        ("inboxes[0].after_archive.delete_after", "must be a whole number and a unit, such as 12h or 7d"),
    ),
    (
        with_inbox(after_archive={"delete_after": "99999999999w"}),
        ("inboxes[0].after_archive.delete_after", "must be at most 100 years"),
    ),
    (with_inbox(after_archive={}), ("inboxes[0].after_archive.delete_after", "is missing")),
    (
        with_inbox(name="CT 1"),
        (
            "inboxes[0].name",
            "must be a short name of letters, digits, '_', '.' and '-', starting with a letter or digit",
        ),
    ),
    (
        with_inbox(name="ct1\n"),
        (
            "inboxes[0].name",
            "must be a short name of letters, digits, '_', '.' and '-', starting with a letter or digit",
        ),
    ),
    (with_inbox(name=1), ("inboxes[0].name", "must be text; put it in quotes")),
    (with_inbox(include=[]), ("inboxes[0].include", "must not be empty")),
    (with_inbox(include="*.dcm"), ("inboxes[0].include", "must be a list")),
    (with_inbox(exclude=[False]), ("inboxes[0].exclude[0]", "must be text; put it in quotes")),
    # paths
    (with_inbox(path="dicom/ct1"), ("inboxes[0].path", "must be an absolute path")),
    (with_inbox(path="~/dicom"), ("inboxes[0].path", "must be an absolute path")),
    (with_inbox(path=""), ("inboxes[0].path", "must be an absolute path")),
    (with_inbox(path="/srv/\0"), ("inboxes[0].path", "must not hold control characters")),
    (with_inbox(path="/srv/\nReadWritePaths=/"), ("inboxes[0].path", "must not hold control characters")),
    (with_inbox(path=7), ("inboxes[0].path", "must be text; put it in quotes")),
    ({"archive": ARCHIVE, "state_directory": "state"}, ("state_directory", "must be an absolute path")),
    ({"archive": ARCHIVE, "control_socket": "c.sock"}, ("control_socket", "must be an absolute path")),
    (
        {"archive": ARCHIVE, "control_socket": f"/run/{'x' * 100}.sock"},
        ("control_socket", "is too long for a socket: at most 107 bytes"),
    ),
    (
        {"archive": ARCHIVE, "state_directory": f"/var/{'x' * 100}"},
        ("control_socket", "is too long for a socket: at most 107 bytes"),
    ),
    (
        {"archive": {**ARCHIVE, "store": {"kind": "directory", "path": "archive"}}},
        ("archive.store.path", "must be an absolute path"),
    ),
    (with_store(ca_file="ca.pem"), ("archive.store.ca_file", "must be an absolute path")),
    # the archive on AWS
    (
        with_store(prefix="radiology"),
        ("archive.store.prefix", "must be empty, or plain words each ending in '/', such as radiology/"),
    ),
    (
        with_store(prefix="/"),
        ("archive.store.prefix", "must be empty, or plain words each ending in '/', such as radiology/"),
    ),
    (
        with_store(prefix="a/../b/"),
        ("archive.store.prefix", "must be empty, or plain words each ending in '/', such as radiology/"),
    ),
    (with_store(prefix="a/" * 300), ("archive.store.prefix", "must be at most 512 characters long")),
    (with_store(bucket="a/b"), ("archive.store.bucket", "must be a bucket name")),
    (with_store(bucket=""), ("archive.store.bucket", "must be a bucket name")),
    (with_catalogue(table="a b"), ("archive.catalogue.table", "must be a table name")),
    (with_catalogue(table="ab"), ("archive.catalogue.table", "must be a table name")),
    (with_store(encryption="aws:kms"), ("archive.store.encryption", "must be a mapping")),
    (
        with_store(encryption={"mode": "kms"}),
        ("archive.store.encryption.mode", "must be aws:kms, AES256 or store-default"),
    ),
    (
        with_store(encryption={"mode": "AES256", "key_id": "alias/dicom"}),
        ("archive.store.encryption.key_id", "is allowed only with mode aws:kms"),
    ),
    (
        with_store(endpoint_url="http://store.example"),
        ("archive.store.endpoint_url", "plain http is refused; use https, or set insecure_http: true"),
    ),
    (
        with_catalogue(endpoint_url="http://store.example:8000"),
        ("archive.catalogue.endpoint_url", "plain http is refused; use https, or set insecure_http: true"),
    ),
    *[
        (
            with_store(endpoint_url=url),
            ("archive.store.endpoint_url", "must be https://HOST[:PORT] or http://HOST[:PORT]"),
        )
        for url in (
            "store.example",
            "ftp://store.example",
            "https://",
            "https://user:secret@store.example",
            "https://store.example/bucket",
            "https://store.example?x=1",
            "https://store.example#x",
            "https://store.example:port",
            "https://store.example:99999",
            "https://store example",
            "https://store.example\n",
            "",
        )
    ],
    (with_store(insecure_http="yes"), ("archive.store.insecure_http", "must be true or false")),
    (with_store(insecure_http=1), ("archive.store.insecure_http", "must be true or false")),
    (with_store(access_key="x"), ("archive.store.access_key", "is not a known key")),
]


@pytest.mark.parametrize(("data", "problem"), ONE_PROBLEM, ids=lambda value: str(value)[:60])
def test_one_fault_is_one_clear_problem(data: Any, problem: tuple[str, str]) -> None:
    assert problems(data) == [problem]


def test_every_problem_at_once_whatever_its_kind() -> None:
    found = problems(
        {
            "workers": 0,
            "colour": "red",
            "inboxes": [
                {"name": "ct1", "path": "/srv/dicom", "quiet_seconds": -1},
                {"name": "ct1", "path": "/srv/dicom/ct1"},
                {"name": "mr", "path": "mr", "after_archive": "zap"},
            ],
            "archive": {
                "store": {"kind": "s3", "endpoint_url": "http://store.example", "encryption": {"key_id": "k"}, "x": 1},
                "catalogue": {"kind": "sqlite", "path": "/srv/dicom/catalogue.db"},
            },
        }
    )
    assert sorted(found) == [
        ("archive.catalogue.path", "overlaps inboxes[0].path"),
        ("archive.store.bucket", "is missing"),
        ("archive.store.encryption.key_id", "is allowed only with mode aws:kms"),
        ("archive.store.endpoint_url", "plain http is refused; use https, or set insecure_http: true"),
        ("archive.store.x", "is not a known key"),
        ("colour", "is not a known key"),
        ("inboxes[0].quiet_seconds", "must be >= 0"),
        ("inboxes[1].name", "is used by inboxes[0] already"),
        ("inboxes[1].path", "overlaps inboxes[0].path"),
        ("inboxes[2].after_archive", "must be delete, keep, or {delete_after: 7d}"),
        ("inboxes[2].path", "must be an absolute path"),
        ("workers", "must be >= 1"),
    ]


@pytest.mark.parametrize("allowed", [{"insecure_http": True}, {}])
def test_http_needs_leave_and_https_none(allowed: dict[str, bool]) -> None:
    scheme = "http" if allowed else "https"
    for host in ("store.example", "store.example:9000", "[::1]:9000", "10.1.2.3/"):
        parsed = loading.parse(with_store(endpoint_url=f"{scheme}://{host}", **allowed))
        assert parsed.archive.store.kind == "s3"


def test_leave_for_http_does_not_depend_on_the_order_of_the_keys() -> None:
    store = {"insecure_http": True, "kind": "s3", "bucket": "abc", "endpoint_url": "http://store.example"}
    loading.parse({"archive": {**S3, "store": store}})
    loading.parse({"archive": {**S3, "store": dict(reversed(store.items()))}})
    encryption = {"key_id": "alias/dicom", "mode": "aws:kms"}
    loading.parse(with_store(encryption=encryption))


# --- folders that must not lie in each other


@pytest.mark.parametrize("other", ["/srv/dicom/ct1", "/srv/dicom/ct1/sub", "/srv/dicom", "/srv/dicom/./ct1/../ct1/"])
def test_inboxes_must_not_overlap(other: str) -> None:
    data = with_inbox()
    data["inboxes"].append({"name": "ct2", "path": other})
    assert problems(data) == [("inboxes[1].path", "overlaps inboxes[0].path")]


def test_a_common_beginning_of_the_name_is_no_overlap() -> None:
    data = with_inbox()
    data["inboxes"].append({"name": "ct10", "path": "/srv/dicom/ct10"})
    assert len(loading.parse(data).inboxes) == 2


@pytest.mark.parametrize("path", ["/srv/state/state.db", "/srv/state/./state.db", "/srv/state//state.db"])
def test_the_catalogue_is_not_the_daemon_s_own_state(path: str) -> None:
    """Its tables would be put into the record of what was deleted."""
    assert DATABASE == STATE_DATABASE
    archive = {**with_inbox()["archive"], "catalogue": {"kind": "sqlite", "path": path}}
    told = [("archive.catalogue.path", "is the daemon's own state; name another file")]
    assert problems({**with_inbox(), "archive": archive, "state_directory": "/srv/state"}) == told
    beside = {**archive, "catalogue": {"kind": "sqlite", "path": "/srv/state/catalogue.db"}}
    loading.parse({**with_inbox(), "archive": beside, "state_directory": "/srv/state"})


def test_overlaps_are_seen_through_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    data = with_inbox(path=str(tmp_path / "real"))
    data["inboxes"].append({"name": "ct2", "path": str(tmp_path / "link" / "sub")})
    data["state_directory"] = str(tmp_path)
    (tmp_path / "real" / "sub").mkdir()
    with pytest.raises(ConfigError) as caught:
        loading.parse(data, folders=True)
    assert caught.value.problems == [
        ("inboxes[1].path", "overlaps inboxes[0].path"),
        ("state_directory", "overlaps inboxes[0].path"),
        ("state_directory", "overlaps inboxes[1].path"),
    ]
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match="is not a folder"):
        loading.parse(with_inbox(path=str(tmp_path / "loop")), folders=True)


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("state_directory", {"state_directory": "/srv/dicom/ct1/state"}),
        ("state_directory", {"state_directory": "/srv"}),
        ("control_socket", {"control_socket": "/srv/dicom/ct1/control.sock"}),
        ("archive.store.path", {"archive": {**ARCHIVE, "store": {"kind": "directory", "path": "/srv/dicom/ct1"}}}),
        ("archive.store.path", {"archive": {**ARCHIVE, "store": {"kind": "directory", "path": "/srv/dicom"}}}),
        (
            "archive.catalogue.path",
            {"archive": {**ARCHIVE, "catalogue": {"kind": "sqlite", "path": "/srv/dicom/ct1/c.db"}}},
        ),
    ],
)
def test_nothing_of_ours_lies_in_an_inbox_nor_around_one(where: str, change: dict[str, Any]) -> None:
    assert problems({**with_inbox(), **change}) == [(where, "overlaps inboxes[0].path")]


def test_missing_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "ct1").mkdir()
    data = {
        "archive": ARCHIVE,
        "state_directory": str(tmp_path / "state"),
        "inboxes": [
            {"name": "a", "path": str(tmp_path / "ct1")},
            {"name": "b", "path": str(tmp_path / "file")},
            {"name": "c", "path": str(tmp_path / "none")},
        ],
    }
    with pytest.raises(ConfigError) as caught:
        loading.parse(data, folders=True)
    assert caught.value.problems == [
        ("inboxes[1].path", "is not a folder"),
        ("inboxes[2].path", "is not a folder: no such file or folder"),
        ("state_directory", "is not a folder: no such file or folder"),
    ]
    # For the terminal, and not in the message, which may be logged.
    assert str(caught.value.paths["inboxes[1].path"]) == str(tmp_path / "file")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(ConfigError, match="at least one inbox"):
        loading.parse({"archive": ARCHIVE, "state_directory": str(tmp_path)}, folders=True)


# --- the file


LOOK = "look at the indentation of this line and the one above, and at colons and quotes"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ("", "must be a mapping with archive: and inboxes:")),
        ("a: [1", ("line 1", "is not valid YAML")),
        ("a: [1\n", ("line 2", "is not valid YAML")),
        ("a: 1\nb: : 2", ("line 2", f"is not valid YAML (mapping values are not allowed here); {LOOK}")),
        ("a:\n\tb: 2", ("line 2", "is not valid YAML: it is indented with a tab, but YAML allows only spaces")),
        ("a:\n  b: 1\n   c: 2", ("line 3", f"is not valid YAML (mapping values are not allowed here); {LOOK}")),
        ("a: !!python/object/apply:os.system [true]", ("line 1", "is not valid YAML")),
        ("a: \x07", ("", "is not valid YAML")),
        ("a: 2026-99-99", ("", "is not valid YAML")),
        ("[" * 5000, ("", "is nested too deeply")),
        ("archive: {}\nworkers: 1\nworkers: 2", ("line 3", "has the key workers a second time")),
        ("inboxes:\n- name: a\n  path: /a\n  name: b", ("line 4", "has the key name a second time")),
        ("? [a]\n: 1", ("line 1", f"is not valid YAML (found unhashable key); {LOOK}")),
        ("a: &x [*x]", ("archive", "is missing")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_cannot_be_read_as_intended(text: str, problem: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        loading.load(path)
    assert problem in caught.value.problems
    assert caught.value.path == str(path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem", "written"),
    [
        (
            "inboxes:\n- name: a\n  /srv/Doe Canary/in: x",
            ("inboxes[0].a key", "is not a known key"),
            "inboxes[0]./srv/Doe Canary/in",
        ),
        ("/srv/Doe Canary/in: x", ("a key", "is not a known key"), "/srv/Doe Canary/in"),
        ("Canary.Doe: x", ("a key", "is not a known key"), "Canary.Doe"),
        (f"{'Canary' * 11}: x", ("a key", "is not a known key"), "Canary" * 11),
        ("/srv/Canary: 1\n/srv/Canary: 2", ("line 2", "has a key a second time"), "/srv/Canary"),
        ("{/srv/Canary: 1, /srv/Canary: 2, b c: 1, b c: 2}", ("line 1", "has a key a second time"), "/srv/Canary, b c"),
    ],
)
def test_a_key_that_may_be_a_path_or_a_name(
    text: str, problem: tuple[str, str], written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody forgot "path:". The message is logged, and `lines` is, where it is a service that starts."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        loading.load(path)
    error = caught.value
    assert problem in error.problems
    assert "Canary" not in str(error_fields(error)) + str(error) + error.lines("dicomwatchd", path.name)
    output.problem(error)
    assert f"{problem[0]}: {problem[1]} ({written})\n" in capsys.readouterr().err, "a person sees which one it is"


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "cannot be read: No such file"), (tmp_path, "cannot be read: Is a dir")):
        with pytest.raises(ConfigError, match=reason):
            loading.load(path)
    (tmp_path / "latin").write_bytes(b"a: \xe4")
    with pytest.raises(ConfigError, match="not UTF-8"):
        loading.load(tmp_path / "latin")


def test_merge_keys_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "archive: {store: {kind: directory, path: /a}, catalogue: {kind: sqlite, path: /a/c.db}}\n"
        "inboxes:\n- &first {name: ct1, path: /srv/ct1, quiet_seconds: 5}\n- {<<: *first, name: ct2, path: /srv/ct2}\n"
    )
    assert [(box.name, box.quiet_seconds) for box in loading.load(path).inboxes] == [("ct1", 5), ("ct2", 5)]


def test_a_problem_does_not_show_the_value() -> None:
    secret = "AKIA-SECRET"
    for data in (
        with_store(secret_access_key=secret),
        with_store(endpoint_url=f"https://{secret}@x"),
        with_inbox(watch=secret),
    ):
        with pytest.raises(ConfigError) as caught:
            loading.parse(data)
        assert secret not in str(caught.value)


# --- anything at all

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10) | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)
_KEYS = sorted(Config.model_fields)


def _check_any(make: Callable[[], object]) -> None:
    """Either it works or it fails with problems that can be shown; nothing else escapes."""
    problems: list[tuple[str, str]] | None = None
    try:
        make()
    except ConfigError as error:
        problems = error.problems
    assert problems is None or (problems and all(isinstance(where, str) and why for where, why in problems))


@given(st.dictionaries(st.sampled_from(_KEYS), _PLAIN), _PLAIN, _PLAIN, _PLAIN)
def test_any_data_is_a_configuration_or_a_list_of_problems(
    data: dict[str, Any], store: Any, catalogue: Any, inbox: Any
) -> None:
    s3 = {"kind": "s3", "bucket": "abc", "prefix": store, "endpoint_url": catalogue, "encryption": inbox}
    for candidate in (
        data,
        {**data, "archive": {"store": store, "catalogue": catalogue}},
        {**data, "archive": {**ARCHIVE, "store": s3}},
        {**data, "archive": ARCHIVE, "inboxes": [inbox, {"name": store, "path": catalogue}]},
    ):
        _check_any(lambda candidate=candidate: loading.parse(candidate))  # type: ignore[misc]


@given(st.text(max_size=200) | st.text(alphabet="a:-?[]{}&*!|>'\"%@\\ \n1", max_size=40))
def test_any_text_is_a_configuration_or_a_list_of_problems(text: str) -> None:
    _check_any(lambda: loading.parse(read_yaml(text)))


@pytest.mark.parametrize("tag", ["timestamp", "int", "float", "bool", "binary", "omap", "pairs", "set", "null", "x"])
def test_values_that_do_not_fit_their_tag(tag: str) -> None:
    _check_any(lambda: loading.parse(read_yaml(f'archive: !!{tag} "maybe"')))
