"""The log: what gets in, what cannot, and in what form it comes out."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watchdog.observers.api import EventQueue, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter

from dicomwatchd.archive.aws.clients import endpoint_name
from dicomwatchd.archive.stores.directory import store as directory
from dicomwatchd.errors import DicomwatchdError, OutOfReach, Permanent
from dicomwatchd.model import StudyState, Uid
from dicomwatchd.telemetry.fields import OwnText, checked, error_fields
from dicomwatchd.telemetry.foreign import redirect_foreign_logging
from dicomwatchd.telemetry.journal import Entry, Journal, Journald, JsonLines, Level, open_journal

PACKAGE = Path(__file__).parents[2] / "dicomwatchd"
CANARY = "DOE^CANARY"
CANARY_PATH = f"/srv/dicom/ct1/{CANARY}/IM0001"


@dataclass
class ManualClock:
    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def write(self, entry: Entry) -> None:
        self.entries.append(entry)

    def text(self) -> str:
        """Everything an operator could get to see of it, in both forms."""
        stream = io.StringIO()
        sent: list[str] = []
        for entry in self.entries:
            JsonLines(stream).write(entry)
            Journald(lambda *args: sent.extend(args)).write(entry)
        return stream.getvalue() + "\n".join(sent)


@pytest.fixture
def sink() -> Kept:
    return Kept()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(sink: Kept, clock: ManualClock) -> Journal:
    return Journal(sink, level="DEBUG", strict=True, clock=clock)


@pytest.fixture
def lenient(sink: Kept, clock: ManualClock) -> Journal:
    """As in production."""
    return Journal(sink, level="DEBUG", clock=clock)


def test_an_entry_has_its_message_filled_from_its_fields(journal: Journal, sink: Kept) -> None:
    journal.info(
        "study-archived",
        "study {study_uid} of {inbox}: {files} files in {seconds:.1f} s",
        study_uid=Uid("1.2.3"),
        inbox="ct1",
        files=200,
        seconds=1.25,
        new_state=StudyState.ARCHIVED,
        upload_seconds=1,
        endpoint=None,
    )
    (entry,) = sink.entries
    assert entry.message == "study 1.2.3 of ct1: 200 files in 1.2 s"
    assert entry.fields == {
        "study_uid": "1.2.3",
        "inbox": "ct1",
        "files": 200,
        "seconds": 1.25,
        "new_state": "archived",
        "upload_seconds": 1,
    }
    assert type(entry.fields["new_state"]) is str


REFUSED = [
    {"path": "/srv/dicom/ct1"},
    {"filename": "IM0001"},
    {"patient_name": CANARY},
    {"study_uuid": "1.2.3"},
    {"study_uid": "1.2.3/../../etc"},
    {"study_uid": CANARY},
    {"study_uid": "1.2.3\n"},
    {"study_uid": ""},
    {"study_uid": "1" * 65},
    {"inbox": "/srv/dicom/ct1"},
    {"inbox": "ct1/DOE"},
    {"inbox": "ct1\nDOE"},
    {"reason": "cannot read IM0001"},
    {"reason": CANARY},
    {"code": "No Such File"},
    {"state": "Archived!"},
    {"error": "a text of somebody else"},
    {"hint": f"look at {CANARY_PATH}"},
    {"error_type": "FileNotFoundError: x"},
    {"stack": (CANARY_PATH,)},
    {"stack": f"{CANARY_PATH}:3 f"},
    {"stack": ("a.py:1 f", 7)},
    {"where": CANARY_PATH},
    {"endpoint": "https://user:secret@store.example"},
    {"endpoint": "file:///srv/archive"},
    {"endpoint": "https://store.example/bucket/DOE"},
    {"files": "12"},
    {"files": 1.5},
    {"files": True},
    {"seconds": float("nan")},
    {"seconds": float("inf")},
    {"seconds": "1"},
    {"upload_seconds": CANARY},
    {"patient_bytes_": 1},
    {"logger": "boto core"},
    {"thread": "Thread-1 (worker)"},
    {"once": 1},
    {"caused_by": "OSError"},
]


@pytest.mark.parametrize("fields", REFUSED, ids=str)
def test_what_does_not_belong_in_a_log_raises_when_strict(
    fields: dict[str, object], journal: Journal, sink: Kept
) -> None:
    with pytest.raises(ValueError, match="log field") as caught:
        journal.debug("event", "a message", **fields)
    assert CANARY not in str(caught.value)
    assert not sink.entries


@pytest.mark.parametrize("fields", REFUSED, ids=str)
def test_what_does_not_belong_in_a_log_is_dropped_and_counted_in_production(
    fields: dict[str, object], lenient: Journal, sink: Kept
) -> None:
    lenient.info("event", "a message", revision=3, **fields)
    (entry,) = sink.entries
    assert entry.fields == {"revision": 3, "refused_fields": 1}


def test_strictness_does_not_depend_on_the_level(sink: Kept) -> None:
    with pytest.raises(ValueError, match="log field path"):
        Journal(sink, level="ERROR", strict=True).debug("event", "a message", path="x")


@given(st.dictionaries(st.sampled_from(["study_uid", "inbox", "reason", "code", "endpoint", "where"]), st.text()))
def test_no_text_with_a_blank_a_caret_or_an_absolute_path_ever_passes(fields: dict[str, str]) -> None:
    for value in checked(fields, strict=False).values():
        if isinstance(value, str):
            assert not value.startswith("/")
            assert "^" not in value
            assert value.isprintable() and value == value.strip()


@pytest.mark.parametrize("event", ["Study Archived", "study_archived", "/srv/x", "", "a" * 65])
def test_an_event_is_a_plain_word(event: str, journal: Journal, lenient: Journal, sink: Kept) -> None:
    with pytest.raises(ValueError, match="event"):
        journal.info(event, "a message")
    lenient.info(event, "a message")
    assert [entry.event for entry in sink.entries] == ["unnamed"]


def test_a_message_must_not_name_a_field_that_is_not_there(journal: Journal, lenient: Journal, sink: Kept) -> None:
    with pytest.raises(ValueError, match="names the field files"):
        journal.info("event", "{files} files")
    lenient.info("event", "{files} files of {inbox:.2f}, {inbox.__class__}", inbox="ct1")
    assert sink.entries[-1].message == "{files} files of {inbox:.2f}, {inbox.__class__}"


def test_braces_of_an_own_error_are_no_placeholders(journal: Journal, sink: Kept) -> None:
    journal.error("config-refused", "must be delete, keep, or {delete_after: 7d}")
    assert sink.entries[-1].message == "must be delete, keep, or {delete_after: 7d}"


def test_an_own_error_brings_its_words(journal: Journal, sink: Kept) -> None:
    try:
        try:
            raise ConnectionRefusedError(111, f"refused {CANARY_PATH}")
        except OSError as error:
            raise OutOfReach(
                "the store does not answer",
                hint="is it running?",
                path=CANARY_PATH,
                endpoint="https://store.example:9000",
                retry_after_seconds=5,
            ) from error
    except OutOfReach as error:
        journal.warning("shipment-delayed", "study {study_uid} waits", study_uid="1.2", **error_fields(error))
    (entry,) = sink.entries
    assert entry.message == "study 1.2 waits: the store does not answer (is it running?)"
    assert entry.fields == {
        "study_uid": "1.2",
        "code": "out-of-reach",
        "error_type": "OutOfReach",
        "caused_by": ("ConnectionRefusedError",),
        "errno": 111,
        "error": "the store does not answer",
        "hint": "is it running?",
        "endpoint": "https://store.example:9000",
        "retry_after_seconds": 5,
    }
    assert CANARY not in sink.text()


@pytest.mark.parametrize(
    "endpoint",
    [
        endpoint_name("s3", None, "https://store.example:9000"),
        endpoint_name("dynamodb", "eu-central-1", None),
        directory._ENDPOINT,
        "catalogue file",
        "state",
    ],
)
def test_the_log_says_which_endpoint_is_in_trouble(journal: Journal, sink: Kept, endpoint: str) -> None:
    journal.warning("shipment-delayed", "later", **error_fields(OutOfReach("no answer", endpoint=endpoint)))
    assert sink.entries[-1].fields["endpoint"] == endpoint
    assert "refused_fields" not in sink.entries[-1].fields


def _fail_on_a_file() -> None:
    raise FileNotFoundError(2, "No such file or directory", CANARY_PATH)


def test_a_foreign_error_brings_its_type_and_the_way_it_came_only(journal: Journal, sink: Kept) -> None:
    try:
        _fail_on_a_file()
    except OSError as error:
        journal.error("crash", "nobody expected this", **error_fields(error))
    fields = sink.entries[0].fields
    assert fields["error_type"] == "FileNotFoundError"
    assert fields["errno"] == 2
    assert fields["code"] == "unexpected"
    stack = fields["stack"]
    assert isinstance(stack, tuple)
    assert stack[-1].startswith("unit/test_journal.py:") and stack[-1].endswith(" _fail_on_a_file")
    assert CANARY not in sink.text()
    assert "/srv/dicom" not in sink.text()


def _raise_from(*errors: Exception) -> Exception:
    """The last one, caused by those before it."""
    current: Exception | None = None
    for error in errors:
        try:
            raise error from current
        except Exception as raised:  # noqa: BLE001  every kind is wanted
            current = raised
    assert current is not None
    return current


@pytest.mark.parametrize(
    "error",
    [
        KeyError(CANARY),
        UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
        type(CANARY.replace("^", " "), (Exception,), {})(),
        _raise_from(OSError(5, CANARY), ValueError(CANARY), RuntimeError(CANARY)),
        ExceptionGroup(CANARY, [ValueError(CANARY)]),
        Permanent("a word\nand another", code="Bad Code", path=CANARY_PATH),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_gets_its_words_through(error: BaseException, lenient: Journal, sink: Kept) -> None:
    lenient.error("crash", "nobody expected this", **error_fields(error))
    assert len(sink.entries) == 1
    assert "CANARY" not in sink.text()


def test_errors_that_caused_each_other_end(journal: Journal) -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    journal.error("crash", "nobody expected this", **error_fields(one))


def test_own_text_is_one_line_and_bounded() -> None:
    error = error_fields(DicomwatchdError("a\nb\tc" + "x" * 1000))["error"]
    assert isinstance(error, OwnText)
    assert error.startswith("a b cxx") and len(error) == 500


def test_the_last_net_withholds_an_entry_that_holds_an_inbox_path(sink: Kept, clock: ManualClock) -> None:
    journal = Journal(sink, clock=clock, never=["/srv/dicom/ct1", "/"])
    journal.error("x", "lost", files=2, **error_fields(Permanent("cannot read /srv/dicom/ct1/IM1")))
    journal.error("x", "lost in /srv/dicom/ct1", files=2)
    journal.error("x", "and/or", files=2)
    assert [entry.message for entry in sink.entries] == ["the text of this entry was withheld"] * 2 + ["and/or"]
    assert [entry.fields for entry in sink.entries] == [{"files": 2}] * 3
    with pytest.raises(ValueError, match="never"):
        Journal(sink, strict=True, never=["/srv/dicom/ct1"]).error("x", "lost in /srv/dicom/ct1")


def test_levels(journal: Journal, sink: Kept) -> None:
    journal.level = "WARNING"
    for say in (journal.debug, journal.info, journal.warning, journal.error):
        say("event", "a message")
    assert [(entry.level, entry.priority) for entry in sink.entries] == [("WARNING", 4), ("ERROR", 3)]


def test_what_repeats_is_counted_and_said_again_later(sink: Kept, clock: ManualClock) -> None:
    journal = Journal(sink, clock=clock, repeat_limit=3, repeat_seconds=60)
    for attempt in range(10):
        journal.warning("delayed", "again", study_uid="1.2", attempt=attempt)
    journal.warning("delayed", "again", study_uid="1.3")
    journal.warning("other", "again", study_uid="1.2")
    assert [(e.event, e.fields.get("study_uid")) for e in sink.entries] == [
        *[("delayed", "1.2")] * 3,
        ("delayed", "1.3"),
        ("other", "1.2"),
    ]
    clock.time += 61
    journal.warning("delayed", "again", study_uid="1.2", attempt=11)
    assert sink.entries[-1].fields == {"study_uid": "1.2", "attempt": 11, "suppressed": 7}
    clock.time += 61
    journal.warning("delayed", "again", study_uid="1.2", attempt=12)
    assert "suppressed" not in sink.entries[-1].fields


def test_one_event_cannot_flood_the_journal_nor_fill_the_memory(sink: Kept, clock: ManualClock) -> None:
    journal = Journal(sink, clock=clock)
    for number in range(20_000):
        journal.info("arriving", "a study", study_uid=f"1.2.{number}")
    journal.error("other", "something else")
    assert len(sink.entries) == 3001
    clock.time += 31
    journal.info("arriving", "a study", study_uid="1.3")
    assert sink.entries[-1].fields["suppressed"] == 17_000
    assert len(journal._repeats._seen) <= 1000


def test_a_sink_that_is_out_of_order_stops_nothing(clock: ManualClock) -> None:
    class Full:
        def write(self, entry: Entry) -> None:
            raise OSError(28, "No space left on device")

    Journal(Full(), clock=clock).error("event", "a message")
    closed = io.StringIO()
    closed.close()
    Journal(JsonLines(closed), clock=clock).error("event", "a message")


def test_json_lines(clock: ManualClock) -> None:
    stream = io.StringIO()
    journal = Journal(JsonLines(stream), clock=clock, strict=True)
    journal.info("study-archived", "done", study_uid="1.2", caused_by=("OSError",))
    assert stream.getvalue().endswith("}\n")
    assert json.loads(stream.getvalue()) == {
        "timestamp": "2027-01-15T08:00:00.000Z",
        "level": "INFO",
        "event": "study-archived",
        "message": "done",
        "study_uid": "1.2",
        "caused_by": ["OSError"],
    }


def test_journald_fields(clock: ManualClock) -> None:
    sent: list[str] = []
    journal = Journal(Journald(lambda *args: sent.extend(args)), clock=clock, strict=True)
    journal.warning("study-parked", "done", study_uid="1.2", once=True, caused_by=("OSError", "ValueError"))
    assert sent == [
        "MESSAGE=done (study 1.2, once yes)",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=dicomwatchd",
        "DICOMWATCHD_EVENT=study-parked",
        "DICOMWATCHD_STUDY_UID=1.2",
        "DICOMWATCHD_ONCE=yes",
        "DICOMWATCHD_CAUSED_BY=OSError\nValueError",
    ]


def test_stderr_that_is_not_journald_gets_json_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as stream:
        for environ in ({}, {"JOURNAL_STREAM": "1:2"}, {"JOURNAL_STREAM": "nonsense"}):
            open_journal(stream, environ=environ).info("event", "a message")
        stream.seek(0)
        assert [json.loads(line)["event"] for line in stream] == ["event"] * 3


def test_journald_without_systemd_python_gets_json_lines_with_a_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "systemd", None)
    with (tmp_path / "log").open("w+") as stream:
        stat = os.fstat(stream.fileno())
        open_journal(stream, environ={"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}).error("event", "a message")
        stream.seek(0)
        line = stream.read()
    assert line.startswith("<3>{")
    assert json.loads(line[3:])["event"] == "event"


def test_threads_write_whole_lines(clock: ManualClock) -> None:
    stream = io.StringIO()
    journal = Journal(JsonLines(stream), clock=clock)

    def say(worker: int) -> None:
        for number in range(100):
            journal.info("e", "m", study_uid=f"{worker}.{number}")

    threads = [threading.Thread(target=say, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({json.loads(line)["study_uid"] for line in stream.getvalue().splitlines()}) == 800


# --- what libraries say


@pytest.fixture
def redirect(journal: Journal) -> Iterator[Callable[[Level], None]]:
    undo: list[Callable[[], None]] = []
    yield lambda level: undo.append(redirect_foreign_logging(journal, level))
    for step in reversed(undo):
        step()


@pytest.mark.parametrize("name", ["botocore.hooks", "urllib3.connectionpool", "pydicom", "watchdog.observers", "x"])
def test_a_library_gets_its_name_level_and_error_type_through_only(
    name: str, redirect: Callable[[Level], None], sink: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    noisy = logging.getLogger(name)
    own = logging.StreamHandler()
    noisy.addHandler(own)
    redirect("DEBUG")
    try:
        raise ValueError(CANARY)
    except ValueError:
        noisy.exception("failed on %s", CANARY_PATH, extra={"patient": CANARY})
    noisy.warning("not enough arguments %s %s", CANARY)
    (first, second) = sink.entries
    assert (first.event, first.level) == ("library", "ERROR")
    where = first.fields["where"]
    assert isinstance(where, str) and where.startswith("unit/test_journal.py:")
    assert {**first.fields, "where": None} == {"logger": name, "error_type": "ValueError", "where": None}
    assert second.level == "WARNING"
    assert CANARY not in sink.text()
    out, err = capfd.readouterr()
    assert CANARY not in out + err


def test_a_logger_named_after_a_patient(redirect: Callable[[Level], None], sink: Kept) -> None:
    redirect("INFO")
    logging.getLogger(CANARY_PATH).warning("x")
    assert "logger" not in sink.entries[0].fields
    assert CANARY not in sink.text()


def test_debug_of_the_aws_libraries_is_never_passed_on(redirect: Callable[[Level], None], sink: Kept) -> None:
    redirect("DEBUG")
    for name in ("boto3", "botocore", "botocore.auth", "s3transfer.futures", "urllib3.connectionpool"):
        logging.getLogger(name).debug("the secret is %s", "x")
    logging.getLogger("asyncio").debug("x")
    assert [entry.fields["logger"] for entry in sink.entries] == ["asyncio"]


def test_the_level_of_foreign_records_counts(redirect: Callable[[Level], None], sink: Kept) -> None:
    redirect("WARNING")
    logging.getLogger("pydicom").info("x")
    logging.getLogger("pydicom").warning("x")
    assert [entry.level for entry in sink.entries] == ["WARNING"]


def test_a_watch_that_ends_while_something_happens_is_no_error(
    redirect: Callable[[Level], None], sink: Kept, tmp_path: Path
) -> None:
    """As at each reload of a busy inbox; the library itself says so here."""
    redirect("DEBUG")
    InotifyEmitter(EventQueue(), ObservedWatch(str(tmp_path), recursive=True)).queue_events(0.1)
    assert [(entry.event, entry.level) for entry in sink.entries] == [("library", "DEBUG")]


def test_a_warning_gets_its_category_and_place_through_only(
    redirect: Callable[[Level], None], sink: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        redirect("INFO")
        for _ in range(2):
            warnings.warn(f"Invalid value for VR DA: '{CANARY}'", UserWarning, stacklevel=1)
        registry = globals().get("__warningregistry__", {})
        assert not any(CANARY in str(key) for key in registry), "the text was kept in memory"
    assert [entry.fields["category"] for entry in sink.entries] == ["UserWarning"] * 2
    assert CANARY not in sink.text() + "".join(capfd.readouterr())


def test_warnings_for_developers_stay_ignored(redirect: Callable[[Level], None], sink: Kept) -> None:
    with warnings.catch_warnings():
        redirect("DEBUG")
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.warn("x", category, stacklevel=1)
    assert not sink.entries


def test_pydicom_warnings_end_in_the_journal_without_the_value(
    redirect: Callable[[Level], None], sink: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    from pydicom.dataset import Dataset

    with warnings.catch_warnings():
        redirect("DEBUG")
        data = Dataset()
        data.PatientBirthDate = CANARY
        data.StudyInstanceUID = CANARY
    assert any(entry.event == "library-warning" for entry in sink.entries)
    assert CANARY not in sink.text() + "".join(capfd.readouterr())


def test_crashes_end_in_the_journal_without_their_words(
    redirect: Callable[[Level], None], sink: Kept, capfd: pytest.CaptureFixture[str]
) -> None:
    redirect("INFO")

    def work() -> None:
        raise FileNotFoundError(2, "gone", CANARY_PATH)

    thread = threading.Thread(target=work, name="worker-3")
    thread.start()
    thread.join()
    odd = threading.Thread(target=work, name=CANARY_PATH)
    odd.start()
    odd.join()
    error = ValueError(CANARY)
    sys.excepthook(ValueError, error, None)

    class Dropped:
        def __del__(self) -> None:
            raise ValueError(CANARY)

    Dropped()
    assert [(entry.event, entry.fields.get("thread")) for entry in sink.entries] == [
        ("crash", "worker-3"),
        ("crash", None),
        ("crash", "main"),
        ("crash", None),
    ]
    assert CANARY not in sink.text() + "".join(capfd.readouterr())


@pytest.mark.parametrize("fault", [MemoryError, RecursionError, KeyboardInterrupt])
def test_a_crash_that_cannot_be_logged_is_not_printed_either(
    fault: type[BaseException],
    redirect: Callable[[Level], None],
    sink: Kept,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Python prints the text of what crashed where a hook for it fails."""
    asked: list[str] = []

    def failing(entry: Entry) -> None:
        asked.append(entry.event)
        raise fault

    monkeypatch.setattr(sink, "write", failing)
    redirect("INFO")
    sys.excepthook(ValueError, ValueError(CANARY), None)

    def work() -> None:
        raise FileNotFoundError(2, "gone", CANARY_PATH)

    thread = threading.Thread(target=work, name="worker-3")
    thread.start()
    thread.join()

    class Dropped:
        def __del__(self) -> None:
            raise ValueError(CANARY)

    Dropped()
    assert asked == ["crash"] * 3 and "".join(capfd.readouterr()) == ""


def test_the_redirection_can_be_undone(journal: Journal) -> None:
    before = (
        logging.getLogger().handlers[:],
        logging.getLogger().level,
        warnings.showwarning,
        warnings.filters[:],
        sys.excepthook,
        threading.excepthook,
        sys.unraisablehook,
    )
    redirect_foreign_logging(journal, "DEBUG")()
    assert before == (
        logging.getLogger().handlers[:],
        logging.getLogger().level,
        warnings.showwarning,
        warnings.filters[:],
        sys.excepthook,
        threading.excepthook,
        sys.unraisablehook,
    )


# --- how the program uses it


def _log_calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and (
                node.func.attr in ("debug", "info", "warning", "error")
                or (node.func.attr == "status" and "service" in ast.unparse(node.func.value))
            )
        ):
            yield node


def _is_constant_text(node: ast.expr) -> bool:
    """A literal, a choice between literals, or the message of an error (our own ones hold no path and no name)."""
    if isinstance(node, ast.IfExp):
        return _is_constant_text(node.body) and _is_constant_text(node.orelse)
    if isinstance(node, ast.Attribute):
        return node.attr == "message"
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _offences(source: str) -> list[int]:
    return [
        call.lineno for call in _log_calls(ast.parse(source)) if not all(_is_constant_text(arg) for arg in call.args)
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages_in_the_program_are_constants(path: Path) -> None:
    lines = _offences(path.read_text())
    assert not lines, f"lines {lines}: event and message must be literals; what varies goes into fields"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_fields_in_the_program_are_in_the_allow_list(path: Path) -> None:
    named = {word.arg for call in _log_calls(ast.parse(path.read_text())) for word in call.keywords if word.arg}
    unknown = {name for name in named if not _is_known(name)}
    assert not unknown, "not in telemetry/fields.py"


def _is_known(name: str) -> bool:
    """Whether the allow list has the name, whatever values it takes."""
    with pytest.raises(ValueError, match="log field") as caught:
        checked({name: object()}, strict=True)
    return "is no field of the log" not in str(caught.value)


def test_the_check_of_field_names_finds_what_it_looks_for() -> None:
    assert _is_known("study_uid") and _is_known("upload_seconds")
    assert not _is_known("path") and not _is_known("study_uuid") and not _is_known("Upload_seconds")


def test_the_check_of_constants_finds_what_it_looks_for() -> None:
    assert _offences('log.info("e", f"file {path}")') == [1]
    assert _offences('self._journal.error("e", "file %s" % path)') == [1]
    assert _offences('log.warning("e", str(error))') == [1]
    assert _offences('self.service.status(f"{path}")') == [1]
    assert _offences('log.info("e", "m", study_uid=uid)\nlog.error("e", error.message)') == []
