"""The figures for Prometheus: what the status says as metrics, and what is counted as it happens."""

from __future__ import annotations

import math
import re
import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from dicomwatchd.config.loading import parse
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import ConfigError, StateUnavailable, Stopping
from dicomwatchd.model import StudyEvent, StudyState, Uid
from dicomwatchd.ports import SystemClock
from dicomwatchd.prometheus import families
from dicomwatchd.prometheus.counts import BYTES, Counts
from dicomwatchd.prometheus.exposition import DaemonCollector
from dicomwatchd.prometheus.sampling import LONGEST_REST_SECONDS, Sample, Sampler
from dicomwatchd.queue.rows import Transition
from tests import alerts
from tests.pieces import FakeClock, Log


def _other(name: str, **figures: object) -> dict[str, object]:
    """Another site as `status` has it."""
    nothing = {"seen_seconds": 1.0, "silent": False, "backlog_files": 0, "oldest_unarchived_seconds": 0, "problems": 0}
    return {"name": name, "host": "", **nothing, **figures}


ARCHIVE = {
    "store": {"kind": "directory", "path": "/srv/archive"},
    "catalogue": {"kind": "sqlite", "path": "/srv/archive/catalogue.db"},
}

INBOX = {
    "name": "ct1",
    "kind": "inbox",
    "files_waiting": 3,
    "last_scan_at": "2026-01-31T12:00:00.000Z",
    "state": "open",
    "not_responding_seconds": None,
    "last_scan_seconds": 0.5,
    "unreadable": 2,
    "receivers": [{"name": "ct", "ae_title": "A", "listen": "127.0.0.1:104", "listening": False}],
}
STATUS: dict[str, Any] = {
    "inboxes": [
        INBOX,
        {**INBOX, "name": "us1", "state": "not-responding", "not_responding_seconds": 61.5, "last_scan_at": None},
        {**INBOX, "name": "gone", "files_waiting": 7},
        {**INBOX, "name": "upload-0123456789ab", "kind": "upload"},
        {**INBOX, "name": "ct1-left-012345", "kind": "left"},
    ],
    "studies": {"queued": 4, "parked": 1},
    "files": {"ready": 10, "stored": 5, "quarantined": 2},
    "kept_without_lease": {"ct1": 3, "us1": 4},
    "studies_waiting_for_listed": 0,
    "bytes_waiting": 1500,
    "oldest_waiting_seconds": None,
    "oldest_unarchived_seconds": 75.5,
    "oldest_parked_seconds": None,
    "commitments_open": 6,
    "studies_held": 2,
    "disks": [{"name": "state", "free_bytes": 5, "size_bytes": 100, "almost_full": True}],
    "audit": {"entries": 12, "problems": 1},
    "version": "1.2.3",
    "started_at": "2026-01-31T11:00:00.000Z",
    "capabilities": {"creates_only": False, "etag_is_content": True, "encryption": "AES256"},
    "workers": {"total": 32, "busy": 7},
    "backoff": {f"s3 at https://rgw{number}.test": 3.5 for number in range(20)},
    "archive_verification": {
        "last_complete": {
            "finished_at": "2026-01-31T10:00:00.000Z",
            "proven": 9,
            "not_covered": 0,
            "unproven": 0,
            "with_problems": 1,
        }
    },
    "restore_drill": {
        "studies_per_day": 5,
        "days": 30,
        "studies": {"equal": 9, "failed": 1, "cold": 0, "too-large": 0, "no-room": 0, "not-done": 2},
        "instances": 1200,
        "instances_equal": 1199,
        "bytes": 5,
        "last_at": "2026-01-31T10:00:00.000Z",
        "last_compared_at": "2026-01-31T09:00:00.000Z",
        "failed": [{"study_uid": "1.2.3"}] * 20,
        "failed_total": 500,
    },
    "bandwidth": {"rule": "default", "bytes_per_second": 50_000_000, "next_change": None},
    "deleting_early": ["us1", "gone"],
    "sites": {
        "name": "north",
        "seen": 300,
        "silent": 1,
        "others": [
            _other("south", host="a", seen_seconds=7200.5, silent=True),
            _other("south", host="b", seen_seconds=20.0, backlog_files=7, oldest_unarchived_seconds=90, problems=2),
            *(_other(f"s{n}") for n in range(298)),
        ],
    },
    "alarms": [{"alarm": "certificate"}, {"alarm": "certificate"}, {"alarm": "clock"}],
    "problems": ["one", "two"],
}


def configuration() -> Config:
    return parse({"archive": ARCHIVE, "inboxes": [{"name": "ct1", "path": "/srv/ct1"}]})


def figures(metrics: Any) -> dict[str, float]:
    """Sample by sample: name{labels} to value."""
    found: dict[str, float] = {}
    for metric in metrics:
        for sample in metric.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_of_what_is_not_configured_nothing_is_said() -> None:
    none = {
        **STATUS,
        "restore_drill": {**STATUS["restore_drill"], "studies_per_day": 0, "studies": {"equal": 0, "failed": 0}},
        "bandwidth": {"rule": "default", "bytes_per_second": None, "next_change": None},
        "deleting_early": [],
        "sites": None,
    }
    for status in (none, {**none, "bandwidth": None}):
        found = figures(families.of_the_status(status, ("ct1", "us1")))
        names = [name for name in found if not name.startswith("dicomwatchd_alarm{")]
        assert not any(word in name for name in names for word in ("drill", "bandwidth", "early", "site"))


def test_what_the_status_says() -> None:
    found = figures(families.of_the_status(STATUS, ("ct1", "us1")))
    assert {
        "dicomwatchd_build_info{version=1.2.3}": 1,
        "dicomwatchd_studies{state=queued}": 4,
        "dicomwatchd_studies{state=archived}": 0,
        "dicomwatchd_files{state=quarantined}": 2,
        "dicomwatchd_backlog_files": 15,
        "dicomwatchd_backlog_bytes": 1500,
        "dicomwatchd_oldest_unarchived_seconds": 75.5,
        "dicomwatchd_oldest_parked_seconds": 0,
        "dicomwatchd_held_studies": 2,
        "dicomwatchd_kept_without_lease_files": 7,
        "dicomwatchd_open_commitments": 6,
        "dicomwatchd_problems": 2,
        "dicomwatchd_alarm{alarm=certificate}": 2,
        "dicomwatchd_alarm{alarm=clock}": 1,
        "dicomwatchd_alarm{alarm=inbox-silent}": 0,
        "dicomwatchd_busy_workers": 7,
        "dicomwatchd_failing_endpoints": 20,
        "dicomwatchd_store_capability{capability=creates_only}": 0,
        "dicomwatchd_store_capability{capability=etag_is_content}": 1,
        "dicomwatchd_audit_entries_total": 12,
        "dicomwatchd_audit_problems": 1,
        "dicomwatchd_inbox_available{inbox=ct1}": 1,
        "dicomwatchd_inbox_available{inbox=us1}": 0,
        "dicomwatchd_inbox_not_responding_seconds{inbox=us1}": 61.5,
        "dicomwatchd_inbox_unreadable_entries{inbox=ct1}": 2,
        "dicomwatchd_inbox_last_scan_timestamp_seconds{inbox=ct1}": 1769860800,
        "dicomwatchd_receiver_listening{inbox=ct1,receiver=ct}": 0,
        "dicomwatchd_disk_free_bytes{disk=state}": 5,
        "dicomwatchd_disk_almost_full{disk=state}": 1,
        "dicomwatchd_archive_verification_studies{verdict=with_problems}": 1,
        "dicomwatchd_restore_drill_studies{outcome=failed}": 1,
        "dicomwatchd_restore_drill_instances": 1200,
        "dicomwatchd_restore_drill_equal_instances": 1199,
        "dicomwatchd_restore_drill_open_failures": 500,
        "dicomwatchd_restore_drill_last_compared_timestamp_seconds": 1769850000,
        "dicomwatchd_bandwidth_limit_bytes_per_second": 50_000_000,
        "dicomwatchd_inbox_deleting_early{inbox=us1}": 1,
        "dicomwatchd_other_sites": 300,
        "dicomwatchd_silent_sites": 1,
        "dicomwatchd_site_seen_seconds{site=south}": 7200.5,
        "dicomwatchd_site_backlog_files{site=south}": 7,
        "dicomwatchd_site_oldest_unarchived_seconds{site=south}": 90,
        "dicomwatchd_site_problems{site=south}": 2,
        "dicomwatchd_site_backlog_files{site=s1}": 0,
        "dicomwatchd_site_silent{site=south}": 1,
        "dicomwatchd_site_silent{site=s0}": 0,
    }.items() <= found.items()
    assert "dicomwatchd_inbox_last_scan_timestamp_seconds{inbox=us1}" not in found
    assert "dicomwatchd_store_capability{capability=encryption}" not in found


def test_labels_are_of_the_configuration_and_few() -> None:
    """Uploads, former inboxes and endlessly many endpoints make no series of their own."""
    found = figures(families.of_the_status(STATUS, ("ct1", "us1")))
    assert set(re.findall(r"inbox=([^,}]+)", " ".join(found))) == {"ct1", "us1"}
    assert sum(name.startswith("dicomwatchd_endpoint_pause") for name in found) == families.MOST_ENDPOINTS
    assert 0 < sum(name.startswith("dicomwatchd_site_silent") for name in found) <= families.MOST_SITES


def everything() -> list[Metric]:
    sample = Sample(STATUS, 10.0, 0.25)
    return [
        *families.of_the_sample(sample, 12.0),
        *families.of_the_status(STATUS, ("ct1", "us1")),
        *families.of_the_counts(Counts().now()),
    ]


def test_names_have_their_base_unit_at_the_end_and_alerts_ask_for_what_there_is() -> None:
    names = set[str]()
    for metric in everything():
        assert metric.documentation and re.fullmatch(r"dicomwatchd_[a-z_]+", metric.name)
        assert not re.search(r"_(?:ms|milliseconds|minutes|hours|kb|mb|percent)$", metric.name)
        names |= {sample.name for sample in metric.samples}
    asked = set[str]()
    for rule in alerts.rules():
        asked |= set(re.findall(r"\bdicomwatchd_\w+", re.sub(r'"[^"]*"', "", rule["expr"])))
    assert asked and asked <= names


def test_a_sample_s_age_is_told_and_so_is_that_there_is_none() -> None:
    assert figures(families.of_the_sample(Sample(STATUS, 10.0, 0.25), 12.0)) == {
        "dicomwatchd_status_up": 1,
        "dicomwatchd_status_age_seconds": 2,
        "dicomwatchd_status_duration_seconds": 0.25,
    }
    assert figures(families.of_the_sample(None, 12.0)) == {"dicomwatchd_status_up": 0}


# -- what is counted ------------------------------------------------------------------------------------------------


def test_events_are_counted_from_nothing_on() -> None:
    counts = Counts()
    before = figures(families.of_the_counts(counts.now()))
    assert {before[f"dicomwatchd_study_events_total{{event={event}}}"] for event in StudyEvent} == {0}
    moved = Transition(Uid("1.2"), StudyState.UPLOADING, StudyEvent.RELEASED, StudyState.QUEUED)
    counts.changed(moved)
    counts.changed(moved)
    assert figures(families.of_the_counts(counts.now()))["dicomwatchd_study_events_total{event=released}"] == 2


def test_a_histogram_counts_up_to_each_bound() -> None:
    counts = Counts()
    for value in (1.0, BYTES[0], BYTES[0] + 1, BYTES[-1] * 2):
        counts._bytes["upload"].add(value)
    found = figures(families.of_the_counts(counts.now()))
    name = "dicomwatchd_stage_bytes"
    assert found[f"{name}_bucket{{le={BYTES[0]},stage=upload}}"] == 2
    assert found[f"{name}_bucket{{le={BYTES[1]},stage=upload}}"] == 3
    assert found[f"{name}_bucket{{le={BYTES[-1]},stage=upload}}"] == 3
    assert found[f"{name}_bucket{{le=+Inf,stage=upload}}"] == found[f"{name}_count{{stage=upload}}"] == 4
    assert found[f"{name}_sum{{stage=upload}}"] == 1 + 2 * BYTES[0] + 1 + 2 * BYTES[-1]
    assert found[f"{name}_count{{stage=purge}}"] == 0


# -- the sampler ----------------------------------------------------------------------------------------------------


class Source:
    """A status that takes as long as a test lets it."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.taken = 0
        self.error: Exception | None = None

    def __call__(self) -> dict[str, Any]:
        self.taken += 1
        assert self.free.wait(30)
        if self.error is not None:
            raise self.error
        return {**STATUS, "version": str(self.taken)}


@pytest.fixture
def source() -> Source:
    return Source()


def sampler_of(source: Source, log: Log | None = None) -> Sampler:
    sampler = Sampler(source, SystemClock(), log or Log())
    sampler.start()
    return sampler


def test_it_is_taken_for_whoever_asks_and_not_more_often_than_it_may(source: Source) -> None:
    sampler = sampler_of(source)
    assert source.taken == 0
    for _ in range(5):
        sample = sampler.newest(10)
        assert sample is not None and sample.status["version"] == "1"
    assert source.taken == 1
    sampler.stop()


def test_a_busy_state_is_not_waited_for(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomwatchd.prometheus.sampling.LEAST_SECONDS", 0.0)
    monkeypatch.setattr("dicomwatchd.prometheus.sampling.REST", 0.0)
    sampler = sampler_of(source)
    first = sampler.newest(10)
    source.free.clear()
    begun = SystemClock().monotonic()
    assert sampler.newest(0.2) is first
    assert 0.15 < SystemClock().monotonic() - begun < 5
    source.free.set()
    after = sampler.newest(10)
    assert after is not None and first is not None and after.taken_at > first.taken_at
    sampler.stop()


def test_one_that_took_long_is_not_taken_again_for_long(source: Source) -> None:
    sampler = sampler_of(source)
    source.free.clear()
    assert sampler.newest(0.3) is None
    source.free.set()
    while sampler.newest(0.01) is None:
        pass
    assert sampler._not_before - SystemClock().monotonic() > 4  # 20 times 0.3 s
    sampler.stop()


def test_a_disk_that_was_away_for_minutes_does_not_make_the_figures_old_for_hours() -> None:
    clock = FakeClock()

    def take() -> dict[str, Any]:
        clock.advance(600.0)
        return {}

    sampler = Sampler(take, clock, Log())
    sampler.start()
    assert sampler.newest(60) is not None
    assert sampler._not_before - clock.monotonic() <= LONGEST_REST_SECONDS < 60
    sampler.stop()


def test_a_state_that_fails_is_told_once_and_what_was_there_is_kept(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomwatchd.prometheus.sampling.LEAST_SECONDS", 0.0)
    monkeypatch.setattr("dicomwatchd.prometheus.sampling.REST", 0.0)
    log = Log()
    sampler = sampler_of(source, log)
    first = sampler.newest(10)
    for error in (StateUnavailable("the disk is full"), ValueError("a fault of ours")):
        source.error = error
        assert sampler.newest(10) is first
        assert sampler.newest(10) is first
    assert [event for event, _, _ in log.entries] == ["metrics-stale"]
    source.error = None
    assert sampler.newest(10) is not first
    source.error = StateUnavailable("once more")
    sampler.newest(10)
    assert [event for event, _, _ in log.entries] == ["metrics-stale"] * 2
    sampler.stop()


def test_a_state_that_is_closed_ends_it(source: Source) -> None:
    sampler = sampler_of(source)
    source.error = Stopping("the state is closed")
    assert sampler.newest(0.2) is None
    sampler._thread.join(10)
    assert not sampler._thread.is_alive()
    sampler.stop()


def test_the_collector_has_all_of_it(source: Source) -> None:
    sampler = sampler_of(source)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DaemonCollector(sampler, Counts(), frozenset({"ct1"}), SystemClock()))
    assert source.taken == 0, "it is not asked before somebody scrapes"
    names = {metric.name for metric in registry.collect()}
    assert {"dicomwatchd_status_up", "dicomwatchd_backlog_files", "dicomwatchd_study_events"} <= names
    sampler.stop()


# -- the configuration ----------------------------------------------------------------------------------------------


def test_without_it_there_is_none() -> None:
    assert parse({"archive": ARCHIVE}).metrics is None
    metrics = parse({"archive": ARCHIVE, "metrics": {}}).metrics
    assert metrics is not None and metrics.listen == "127.0.0.1:9187"


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [
        ({"listen": "9187"}, ("metrics.listen", "must be ADDRESS:PORT, such as 127.0.0.1:9187 or [::1]:9187")),
        ({"listen": "localhost:9187"}, ("metrics.listen", "must be ADDRESS:PORT")),
        ({"listen": "127.0.0.1:0"}, ("metrics.listen", "must be ADDRESS:PORT")),
        ({"listen": "127.0.0.1:99999"}, ("metrics.listen", "must be ADDRESS:PORT")),
        ({"listen": 9187}, ("metrics.listen", "must be text")),
        ({"listen": "0.0.0.0:9187"}, ("metrics.allow", "is missing")),
        ({"listen": "[::]:9187", "allow": []}, ("metrics.allow", "is missing")),
        ({"allow": ["ten"]}, ("metrics.allow[0]", "must be an address or a network")),
        ({"listen": "127.0.0.1:11112"}, ("metrics.listen", "has the port of receivers[0]")),
        ({"listen": "0.0.0.0:11112", "allow": ["10.1.2.3"]}, ("metrics.listen", "has the port of receivers[0]")),
        ({"port": 9187}, ("metrics.port", "is not a known key")),
        ("127.0.0.1:9187", ("metrics", "must be a mapping")),
    ],
)
def test_what_is_wrong_is_said(metrics: object, problem: tuple[str, str]) -> None:
    receivers = [{"name": "ct", "ae_title": "A", "inbox": "ct1"}]
    inboxes = [{"name": "ct1", "path": "/srv/ct1"}]
    with pytest.raises(ConfigError) as caught:
        parse({"archive": ARCHIVE, "inboxes": inboxes, "receivers": receivers, "metrics": metrics})
    [(where, why)] = caught.value.problems
    assert where == problem[0] and why.startswith(problem[1])


def test_another_address_may_have_the_same_port() -> None:
    receivers = [{"name": "ct", "ae_title": "A", "inbox": "ct1"}]
    data = {"archive": ARCHIVE, "inboxes": [{"name": "ct1", "path": "/srv/ct1"}], "receivers": receivers}
    assert parse({**data, "metrics": {"listen": "127.0.0.2:11112"}}).metrics is not None


def test_numbers_are_finite() -> None:
    assert all(math.isfinite(value) for value in figures(everything()).values())
