"""Fixtures with real servers, started once per run and only when a test asks; and what becomes of skipped tests.

A test whose server cannot run here is skipped, loudly. With CI or DICOMWATCHD_TEST_NO_SKIP set, any skip
fails the run. DICOMWATCHD_TEST_SERVERS=DIR uses the servers that `python -m tests.servers up all DIR` has
left running, and leaves them running.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.left_open import pytest_runtest_teardown
from tests.servers import missing
from tests.servers.__main__ import assignments
from tests.servers.amazon import Amazon
from tests.servers.ceph import CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.tls import Certificate, make_certificate
from tests.side_by_side import pytest_collection_modifyitems, pytest_xdist_make_scheduler

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_teardown", "pytest_xdist_make_scheduler"]

# How long an example takes says nothing of it on a machine that does much else.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

_skipped: list[tuple[str, str]] = []
"""Test (or file) and reason, in the order of the run."""


@pytest.fixture(scope="session")
def servers_directory() -> Iterator[Path]:
    """Where the session's servers keep their data. A short path: Unix sockets need one."""
    directory = Path(tempfile.mkdtemp(prefix="dicomwatchd-servers."))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def servers_certificate(servers_directory: Path) -> Certificate:
    """One certificate for all servers, so that one CA file is enough for a client of several."""
    return make_certificate(servers_directory / "tls")


@pytest.fixture(scope="session")
def rgw(request: pytest.FixtureRequest) -> Iterator[CephRgw]:
    """A running Ceph object gateway. A test that pauses it must resume it."""
    running = _left_running("rgw")
    if running is not None:
        yield CephRgw.attach(running)
        return
    skip_unless_available("rgw")
    directory: Path = request.getfixturevalue("servers_directory")
    certificate: Certificate = request.getfixturevalue("servers_certificate")
    with CephRgw(directory / "rgw", certificate=certificate) as server:
        yield server


@pytest.fixture(scope="session")
def dynamodb(request: pytest.FixtureRequest) -> Iterator[DynamoDBLocal]:
    """A running DynamoDB Local. A test that stops it must start it again."""
    running = _left_running("dynamodb")
    if running is not None:
        yield DynamoDBLocal.attach(running)
        return
    skip_unless_available("dynamodb")
    directory: Path = request.getfixturevalue("servers_directory")
    certificate: Certificate = request.getfixturevalue("servers_certificate")
    with DynamoDBLocal(directory / "dynamodb", certificate=certificate) as server:
        yield server


@pytest.fixture(scope="session")
def amazon(rgw: CephRgw, dynamodb: DynamoDBLocal) -> Iterator[Amazon]:
    """Amazon S3 and DynamoDB, as documented, before both. A test that makes trouble there ends it."""
    with Amazon(rgw, dynamodb) as server:
        yield server


@pytest.fixture(scope="session")
def servers_env(rgw: CephRgw, dynamodb: DynamoDBLocal) -> dict[str, str]:
    """What `python -m tests.servers up all` prints: credentials, region, endpoints and CA files of both."""
    return assignments(rgw, dynamodb)


@pytest.fixture
def bucket() -> str:
    """A bucket name that no other test uses; the bucket does not exist yet."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def table_name() -> str:
    """A DynamoDB table name that no other test uses; the table does not exist yet."""
    return f"test-{uuid.uuid4().hex}"


def skip_unless_available(kind: str) -> None:
    """Skips the calling test or fixture when this machine cannot run `kind`, and says all that it lacks."""
    lacks = missing(kind)
    if lacks:
        pytest.skip(f"{kind} cannot run on this machine: {'; '.join(lacks)}")


def _left_running(kind: str) -> Path | None:
    directory = os.environ.get("DICOMWATCHD_TEST_SERVERS")
    return Path(directory) / kind if directory else None


def _skips_fail() -> bool:
    return bool(os.environ.get("CI")) or os.environ.get("DICOMWATCHD_TEST_NO_SKIP") == "1"


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append((report.nodeid, reason.removeprefix("Skipped: ")))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and _skips_fail() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _skipped:
        return
    strict = _skips_fail()
    terminalreporter.section(f"{len(_skipped)} NOT TESTED", sep="!", red=strict, yellow=not strict)
    by_reason: dict[str, list[str]] = {}
    for nodeid, reason in _skipped:
        by_reason.setdefault(reason, []).append(nodeid)
    for reason, nodeids in by_reason.items():
        terminalreporter.write_line(reason)
        for nodeid in nodeids:
            terminalreporter.write_line(f"    {nodeid}")
    if strict:
        terminalreporter.write_line("a skipped test fails this run (CI or DICOMWATCHD_TEST_NO_SKIP is set)")
