"""What the status and the counts are as metric families, by Prometheus' conventions: base units, `_total`, few labels.

A label is a name of the configuration (of this site, or of another one: `MOST_SITES`), of an endpoint, or a word of the
program's own. Uploads, studies, patients and paths are in none, so a daemon has as many series as its configuration is
long, and its archive has sites.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from dicomwatchd.alarms.kinds import Kind
from dicomwatchd.model import FileState, StudyState
from dicomwatchd.prometheus.counts import Counted, Histogram
from dicomwatchd.prometheus.sampling import Sample

#: So many other sites are named; what makes up rows of them in the catalogue is to make up no series here.
MOST_SITES = 200
#: So many endpoints are named; there are a store and a catalogue.
MOST_ENDPOINTS = 8


def of_the_sample(sample: Sample | None, now: float) -> Iterator[Metric]:
    """Whether there is a status, and how old it is at ``now`` (monotonic seconds)."""
    yield _gauge("dicomwatchd_status_up", "Whether there are figures of the status (1) or not (0).", sample is not None)
    if sample is not None:
        yield _gauge(
            "dicomwatchd_status_age_seconds", "How old the figures of the status are.", max(0.0, now - sample.taken_at)
        )
        yield _gauge(
            "dicomwatchd_status_duration_seconds", "How long it took to read the status.", round(sample.seconds, 6)
        )


def of_the_status(said: Mapping[str, Any], inboxes: Collection[str]) -> Iterator[Metric]:
    """``said``: see `dicomwatchctl status --json`. ``inboxes``: the configured ones, which alone are named."""
    yield InfoMetricFamily("dicomwatchd_build", "The program's version.", {"version": str(said["version"])})
    yield _gauge("dicomwatchd_start_time_seconds", "When the daemon was started.", _seconds(said["started_at"]))
    yield from _backlog(said)
    yield from _archiving(said)
    yield from _inboxes([one for one in said["inboxes"] if one["name"] in inboxes and one["kind"] == "inbox"])
    yield from _disks(said["disks"])
    yield from _verification(said["archive_verification"])
    yield from _drills(said["restore_drill"])
    open_of = Counter(one["alarm"] for one in said["alarms"])
    yield _gauges("dicomwatchd_alarm", "Alarms that are open.", "alarm", _all(open_of, (kind.value for kind in Kind)))
    yield from _line(said["bandwidth"])
    yield from _sites(said.get("sites"))
    early = [inbox for inbox in said["deleting_early"] if inbox in inboxes]
    yield _gauges(
        "dicomwatchd_inbox_deleting_early",
        "1 for an inbox whose archived files are deleted before their time, because its disk is too full.",
        "inbox",
        dict.fromkeys(early, 1),
    )


def of_the_counts(counted: Counted) -> Iterator[Metric]:
    yield _counters(
        "dicomwatchd_study_events",
        "Events of studies: finished (archived), released (to be tried again), failed (parked), mismatch ...",
        "event",
        counted.events,
    )
    yield _counters(
        "dicomwatchd_verified_files",
        "Files of archived studies, by what proved that the store holds them.",
        "method",
        counted.verified_files,
    )
    yield _counter("dicomwatchd_shipment_retries", "Attempts before it that archived studies took.", counted.retries)
    for name, unit, by_stage in (
        ("seconds", "Seconds", counted.seconds),
        ("bytes", "Bytes", counted.bytes),
        ("files", "Files", counted.files),
    ):
        yield _histograms(f"dicomwatchd_stage_{name}", f"{unit} of an archived study in a stage.", by_stage)


def _backlog(said: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauges(
        "dicomwatchd_studies",
        "Studies by state.",
        "state",
        _all(said["studies"], (state.value for state in StudyState)),
    )
    yield _gauges(
        "dicomwatchd_files",
        "Local files that are known, by state.",
        "state",
        _all(said["files"], (state.value for state in FileState)),
    )
    waiting = sum(said["files"].get(state, 0) for state in (FileState.READY, FileState.STORED))
    yield _gauge("dicomwatchd_backlog_files", "Known files that are not archived yet.", waiting)
    yield _gauge("dicomwatchd_backlog_bytes", "Bytes of known files that are not archived yet.", said["bytes_waiting"])
    yield _gauge(
        "dicomwatchd_oldest_unarchived_seconds",
        "For how long the oldest study that is not parked has had files that are not archived; 0 where none has.",
        said["oldest_unarchived_seconds"],
    )
    yield _gauge(
        "dicomwatchd_oldest_parked_seconds",
        "For how long the oldest parked study has had files that are not archived; 0 where none is parked.",
        said["oldest_parked_seconds"],
    )
    yield _gauge(
        "dicomwatchd_oldest_queued_seconds",
        "For how long the oldest study has been ready for its turn; 0 where none is.",
        said["oldest_waiting_seconds"],
    )


def _archiving(said: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("dicomwatchd_held_studies", "Archived studies whose files are held.", said["studies_held"])
    yield _gauge(
        "dicomwatchd_waiting_for_listed_studies",
        "Quiet studies that wait for images that a DICOMDIR lists.",
        said["studies_waiting_for_listed"],
    )
    yield _gauge(
        "dicomwatchd_kept_without_lease_files",
        "Archived files that are kept because no read lease can be taken on them.",
        sum(said["kept_without_lease"].values()),
    )
    yield _gauge(
        "dicomwatchd_open_commitments", "Requests for storage commitment not reported yet.", said["commitments_open"]
    )
    yield _gauge("dicomwatchd_problems", "Problems that dicomwatchctl status lists.", len(said["problems"]))
    yield _gauge("dicomwatchd_workers", "Worker threads.", said["workers"]["total"])
    yield _gauge("dicomwatchd_busy_workers", "Worker threads that are busy.", said["workers"]["busy"])
    failing = sorted(said["backoff"].items())[:MOST_ENDPOINTS]
    yield _gauge("dicomwatchd_failing_endpoints", "Stores and catalogues that fail.", len(said["backoff"]))
    yield _gauges(
        "dicomwatchd_endpoint_pause_seconds",
        "Of a store or catalogue that fails: seconds until the next attempt. Not there while it works.",
        "endpoint",
        dict(failing),
    )
    yield _gauges(
        "dicomwatchd_store_capability",
        "What the probe at the start has shown of the store: 1 it does, 0 it does not.",
        "capability",
        {name: value for name, value in said["capabilities"].items() if isinstance(value, bool)},
    )
    yield _counter("dicomwatchd_audit_entries", "Entries of the audit chain.", said["audit"]["entries"])
    yield _gauge(
        "dicomwatchd_audit_problems",
        "Problems of the record of deletions: cut, unpublished, or a segment that is not as it was.",
        said["audit"]["problems"],
    )


def _inboxes(inboxes: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    by_name = {one["name"]: one for one in inboxes}
    for name, what, value in (
        ("files_waiting", "Known files of an inbox that are not archived yet.", lambda one: one["files_waiting"]),
        (
            "available",
            "Whether an inbox can be opened and answers (1) or not (0).",
            lambda one: one["state"] in ("open", "starting"),
        ),
        (
            "not_responding_seconds",
            "For how long the file system of an inbox has not answered; 0 if it answers.",
            lambda one: one["not_responding_seconds"],
        ),
        ("unreadable_entries", "Entries of an inbox that cannot be read.", lambda one: one["unreadable"]),
        ("last_scan_seconds", "How long the last whole scan of an inbox took.", lambda one: one["last_scan_seconds"]),
    ):
        yield _gauges(f"dicomwatchd_inbox_{name}", what, "inbox", {inbox: value(one) for inbox, one in by_name.items()})
    yield _gauges(
        "dicomwatchd_inbox_last_scan_timestamp_seconds",
        "When an inbox was last scanned wholly; not there before the first time.",
        "inbox",
        {inbox: _seconds(one["last_scan_at"]) for inbox, one in by_name.items() if one["last_scan_at"]},
    )
    family = GaugeMetricFamily(
        "dicomwatchd_receiver_listening",
        "Whether somebody listens at a receiver's address (1) or not (0).",
        labels=("receiver", "inbox"),
    )
    for inbox, one in by_name.items():
        for receiver in one["receivers"]:
            if receiver["listening"] is not None:
                family.add_metric([receiver["name"], inbox], float(receiver["listening"]))
    yield family


def _disks(disks: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    by_name = {one["name"]: one for one in disks}
    for name, what, key in (
        ("free_bytes", "Bytes that are free to the daemon.", "free_bytes"),
        ("size_bytes", "Bytes of the file system.", "size_bytes"),
        ("almost_full", "Whether less than disk_free_warn is free.", "almost_full"),
    ):
        yield _gauges(f"dicomwatchd_disk_{name}", what, "disk", {disk: one[key] for disk, one in by_name.items()})


def _verification(said: Mapping[str, Any] | None) -> Iterator[Metric]:
    done = said and said["last_complete"]
    if not done:
        return
    yield _gauge(
        "dicomwatchd_archive_verification_timestamp_seconds",
        "When the last verification of the whole archive came to its end.",
        _seconds(done["finished_at"]),
    )
    yield _gauges(
        "dicomwatchd_archive_verification_studies",
        "Studies of that verification by its verdict.",
        "verdict",
        {name: done[name] for name in ("proven", "not_covered", "unproven", "with_problems")},
    )


def _drills(said: Mapping[str, Any]) -> Iterator[Metric]:
    """Of so many days as the status names; nothing where there never was a drill and none is to be."""
    if not said["studies_per_day"] and not any(said["studies"].values()):
        return
    yield _gauges(
        "dicomwatchd_restore_drill_studies", "Restore drills of the last days by outcome.", "outcome", said["studies"]
    )
    yield _gauge("dicomwatchd_restore_drill_instances", "Instances that these drills have compared.", said["instances"])
    yield _gauge(
        "dicomwatchd_restore_drill_equal_instances",
        "Instances of them that came back as they were archived.",
        said["instances_equal"],
    )
    yield _gauge(
        "dicomwatchd_restore_drill_open_failures",
        "Studies that did not come back, and have not since.",
        said["failed_total"],
    )
    if said["last_compared_at"]:
        yield _gauge(
            "dicomwatchd_restore_drill_last_compared_timestamp_seconds",
            "When a drill has last compared a study.",
            _seconds(said["last_compared_at"]),
        )


def _sites(said: Mapping[str, Any] | None) -> Iterator[Metric]:
    """The other daemons of the archive. Of several of one name the worst figure of any counts."""
    if said is None:
        return
    yield _gauge("dicomwatchd_other_sites", "Other daemons of this archive that the catalogue knows.", said["seen"])
    yield _gauge("dicomwatchd_silent_sites", "Those of them that are silent (sites.silent_after).", said["silent"])
    for key, what in (
        ("seen_seconds", "For how long nothing has come of another site."),
        ("silent", "Whether another site is silent (1) or not (0)."),
        ("backlog_files", "Files of another site that are not archived yet, as it has last said."),
        (
            "oldest_unarchived_seconds",
            "For how long the oldest study of another site has had files that are not archived, as it has last said.",
        ),
        ("problems", "Problems that the status of another site lists, as it has last said."),
    ):
        worst: dict[str, float] = {}
        for one in said["others"][:MOST_SITES]:
            worst[one["name"]] = max(worst.get(one["name"], 0.0), float(one[key]))
        yield _gauges(f"dicomwatchd_site_{key}", what, "site", worst)


def _line(said: Mapping[str, Any] | None) -> Iterator[Metric]:
    """Nothing where sending is not limited now."""
    if said is not None and said["bytes_per_second"] is not None:
        yield _gauge(
            "dicomwatchd_bandwidth_limit_bytes_per_second",
            "What may be sent to the archive in a second, as things are.",
            said["bytes_per_second"],
        )


# -- details --------------------------------------------------------------------------------------------------------


def _gauge(name: str, what: str, value: float | None) -> Metric:
    return GaugeMetricFamily(name, what, value=float(value or 0))


def _gauges(name: str, what: str, label: str, values: Mapping[str, float | None]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=(label,))
    for word, value in values.items():
        family.add_metric([word], float(value or 0))
    return family


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(name, what, value=float(value))


def _counters(name: str, what: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, what, labels=(label,))
    for word, value in values.items():
        family.add_metric([word], float(value))
    return family


def _histograms(name: str, what: str, by_stage: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, what, labels=("stage",))
    for stage, histogram in by_stage.items():
        family.add_metric([stage], histogram.buckets(), histogram.sum)
    return family


def _all(found: Mapping[str, int], words: Iterable[str]) -> dict[str, int]:
    return {word: found.get(word, 0) for word in words}


def _seconds(timestamp: str) -> float:
    """Since the epoch."""
    return datetime.fromisoformat(timestamp).timestamp()
