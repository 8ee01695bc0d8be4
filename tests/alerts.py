"""The alert rules that we ship and what makes each of them fire, and the dashboard's queries."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "etc" / "prometheus" / "dicomwatchd.rules.yml"
SITE = {"job": "dicomwatchd", "instance": "archive:9187"}


DASHBOARD = ROOT / "etc" / "grafana" / "dashboard.json"
#: The tests, by their files, in which a real Prometheus watches a real daemon.
WITH_PROMETHEUS = ("system/test_prometheus.py", "fuse/test_alerts.py")


@dataclass(frozen=True)
class Case:
    """``series`` in promtool's notation, a value each minute; whether the alert fires at ``fires_at``, with these
    labels beside those of the site, and not yet at ``not_at``."""

    alert: str
    series: dict[str, str]
    not_at: str
    fires_at: str
    summary: str
    labels: dict[str, str] = field(default_factory=dict)
    #: Labels of the site that the alert has not: every daemon tells of it, and it is one alert.
    without: tuple[str, ...] = ()


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


@dataclass(frozen=True)
class Panel:
    """Of the dashboard, in the row ``row``. ``queries``: legend and expression, as Prometheus takes it, for all daemons
    and the last minute."""

    row: str
    title: str
    what: str
    unit: str
    queries: tuple[tuple[str, str], ...]


def panels() -> list[Panel]:
    found, row = [], ""
    for one in json.loads(DASHBOARD.read_text())["panels"]:
        if one["type"] == "row":
            row = one["title"]
            continue
        queries = (
            (target["legendFormat"], target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m"))
            for target in one["targets"]
        )
        unit = one["fieldConfig"]["defaults"]["unit"]
        found.append(Panel(row, one["title"], one["description"], unit, tuple(queries)))
    return found


def dashboard_queries() -> dict[str, list[str]]:
    """By a panel's title, its queries."""
    return {panel.title: [query for _, query in panel.queries] for panel in panels()}


#: What a daemon tells at rest, as far as an alert asks for it.
AT_REST = {
    'up{job="dicomwatchd"}': "1x200",
    "dicomwatchd_status_up": "1x200",
    "dicomwatchd_status_age_seconds": "0.1x200",
    "dicomwatchd_start_time_seconds": "1700000000x200",
    "dicomwatchd_oldest_unarchived_seconds": "0x200",
    'dicomwatchd_studies{state="queued"}': "0x200",
    'dicomwatchd_studies{state="parked"}': "0x200",
    'dicomwatchd_study_events_total{event="finished"}': "0+1x200",
    'dicomwatchd_study_events_total{event="released"}': "0x200",
    'dicomwatchd_study_events_total{event="mismatch"}': "0x200",
    "dicomwatchd_failing_endpoints": "0x200",
    "dicomwatchd_held_studies": "0x200",
    'dicomwatchd_files{state="quarantined"}': "0x200",
    'dicomwatchd_archive_verification_studies{verdict="with_problems"}': "0x200",
    'dicomwatchd_archive_verification_studies{verdict="proven"}': "9x200",
    "dicomwatchd_audit_problems": "0x200",
    'dicomwatchd_store_capability{capability="creates_only"}': "1x200",
    'dicomwatchd_store_capability{capability="etag_is_content"}': "0x200",
    'dicomwatchd_inbox_available{inbox="ct1"}': "1x200",
    'dicomwatchd_inbox_not_responding_seconds{inbox="ct1"}': "0x200",
    'dicomwatchd_inbox_last_scan_timestamp_seconds{inbox="ct1"}': "0+60x200",
    'dicomwatchd_inbox_unreadable_entries{inbox="ct1"}': "0x200",
    'dicomwatchd_receiver_listening{receiver="ct",inbox="ct1"}': "1x200",
    'dicomwatchd_disk_almost_full{disk="state"}': "0x200",
    'dicomwatchd_site_silent{site="south"}': "0x200",
    "dicomwatchd_problems": "0x200",
    'dicomwatchd_alarm{alarm="inbox-silent"}': "0x200",
    'dicomwatchd_alarm{alarm="oldest-file"}': "0x200",
    'dicomwatchd_alarm{alarm="hold"}': "0x200",
    'dicomwatchd_alarm{alarm="restore-drill"}': "0x200",
    'dicomwatchd_alarm{alarm="clock"}': "0x200",
    'dicomwatchd_alarm{alarm="certificate"}': "0x200",
    'dicomwatchd_alarm{alarm="credentials"}': "0x200",
}

_CT1 = {"inbox": "ct1"}
CASES = [
    Case(
        "DicomwatchdDown",
        {'up{job="dicomwatchd"}': "1x4 0x100"},
        "9m",
        "11m",
        "dicomwatchd on archive:9187 does not answer",
    ),
    Case(
        "DicomwatchdRestarts",
        {"dicomwatchd_start_time_seconds": "1 1 2 2 3 3 4 4 5 5x100"},
        "7m",
        "9m",
        "dicomwatchd on archive:9187 was started 4 times within an hour",
    ),
    Case(
        "DicomwatchdFiguresOld",
        {"dicomwatchd_status_age_seconds": "240+60x100"},
        "6m",
        "8m",
        "the figures of dicomwatchd on archive:9187 are old: its state does not answer",
    ),
    Case(
        "DicomwatchdFiguresOld",
        {"dicomwatchd_status_up": "0x100"},
        "4m",
        "6m",
        "the figures of dicomwatchd on archive:9187 are old: its state does not answer",
    ),
    Case(
        "DicomwatchdFilesWaitTooLong",
        {"dicomwatchd_oldest_unarchived_seconds": "14400+60x100"},
        "10m",
        "12m",
        "a study on archive:9187 has waited for 4h 12m 0s to be archived",
    ),
    Case(
        "DicomwatchdNothingArchived",
        {
            'dicomwatchd_studies{state="queued"}': "7x200",
            'dicomwatchd_study_events_total{event="finished"}': "0 1 2x200",
        },
        "110m",
        "130m",
        "7 studies wait on archive:9187, and none was archived for an hour",
        {"state": "queued"},
    ),
    Case(
        "DicomwatchdEndpointFails",
        {"dicomwatchd_failing_endpoints": "0 1x100"},
        "10m",
        "12m",
        "the archive of dicomwatchd on archive:9187 cannot be reached or used",
    ),
    Case(
        "DicomwatchdMoreFailThanPass",
        {'dicomwatchd_study_events_total{event="released"}': "0+2x200"},
        "29m",
        "40m",
        "more studies fail than are archived on archive:9187",
    ),
    Case(
        "DicomwatchdStudiesParked",
        {'dicomwatchd_studies{state="parked"}': "3x100"},
        "9m",
        "11m",
        "3 studies are parked on archive:9187",
        {"state": "parked"},
    ),
    Case(
        "DicomwatchdStudiesHeld",
        {"dicomwatchd_held_studies": "2x1500"},
        "23h",
        "24h10m",
        "for a day there have been held studies on archive:9187, now 2",
    ),
    Case(
        "DicomwatchdFilesInQuarantine",
        {'dicomwatchd_files{state="quarantined"}': "4x100"},
        "59m",
        "61m",
        "4 files are in quarantine on archive:9187",
        {"state": "quarantined"},
    ),
    Case(
        "DicomwatchdStoreLosesObjects",
        {'dicomwatchd_study_events_total{event="mismatch"}': "0x5 1x100"},
        "5m",
        "7m",
        "the store of archive:9187 lacked objects that were just sent to it",
        {"event": "mismatch"},
    ),
    Case(
        "DicomwatchdArchiveDamaged",
        {'dicomwatchd_archive_verification_studies{verdict="with_problems"}': "0x5 1x100"},
        "5m",
        "7m",
        "the last verification of the archive found something missing or wrong in 1 studies",
        {"verdict": "with_problems"},
    ),
    Case(
        "DicomwatchdRecordOfDeletions",
        {"dicomwatchd_audit_problems": "1x100"},
        "9m",
        "11m",
        "the record of deletions on archive:9187 is cut, unpublished or changed",
    ),
    Case(
        "DicomwatchdStoreOverwrites",
        {'dicomwatchd_store_capability{capability="creates_only"}': "1x5 0x100"},
        "5m",
        "7m",
        "the store of archive:9187 lets existing objects be overwritten",
        {"capability": "creates_only"},
    ),
    Case(
        "DicomwatchdInboxUnavailable",
        {'dicomwatchd_inbox_available{inbox="ct1"}': "0x100"},
        "4m",
        "6m",
        "inbox ct1 on archive:9187 cannot be opened, or does not answer",
        _CT1,
    ),
    Case(
        "DicomwatchdInboxHangs",
        {'dicomwatchd_inbox_not_responding_seconds{inbox="ct1"}': "0+30x100"},
        "2m",
        "3m",
        "inbox ct1 on archive:9187 has not answered for 1m 30s",
        _CT1,
    ),
    Case(
        "DicomwatchdInboxNotScanned",
        {'dicomwatchd_inbox_last_scan_timestamp_seconds{inbox="ct1"}': "0x200"},
        "64m",
        "67m",
        "inbox ct1 on archive:9187 was not looked through for 1h 7m 0s",
        _CT1,
    ),
    Case(
        "DicomwatchdInboxUnreadable",
        {'dicomwatchd_inbox_unreadable_entries{inbox="ct1"}': "2x100"},
        "59m",
        "61m",
        "2 entries of inbox ct1 on archive:9187 cannot be read",
        _CT1,
    ),
    Case(
        "DicomwatchdReceiverDown",
        {'dicomwatchd_receiver_listening{receiver="ct",inbox="ct1"}': "0x100"},
        "4m",
        "6m",
        "nobody listens for receiver ct on archive:9187",
        {"receiver": "ct", **_CT1},
    ),
    Case(
        "DicomwatchdDiskAlmostFull",
        {'dicomwatchd_disk_almost_full{disk="state"}': "1x100"},
        "9m",
        "11m",
        "the disk of state on archive:9187 is almost full",
        {"disk": "state"},
    ),
    Case(
        "DicomwatchdSiteSilent",
        {'dicomwatchd_site_silent{site="south"}': "0x5 1x100"},
        "9m",
        "12m",
        "nothing has come of site south, which archives to the same place",
        {"site": "south"},
        without=("instance",),
    ),
    Case(
        "DicomwatchdInboxSilent",
        {'dicomwatchd_alarm{alarm="inbox-silent"}': "0x5 2x100"},
        "5m",
        "7m",
        "2 inboxes on archive:9187 are silent far beyond their own rhythm",
        {"alarm": "inbox-silent"},
    ),
    Case(
        "DicomwatchdRestoreDrillFailed",
        {'dicomwatchd_alarm{alarm="restore-drill"}': "0x5 1x100"},
        "5m",
        "7m",
        "a study did not come back from the archive of archive:9187",
        {"alarm": "restore-drill"},
    ),
    Case(
        "DicomwatchdClockWrong",
        {'dicomwatchd_alarm{alarm="clock"}': "0x5 1x100"},
        "5m",
        "7m",
        "the clock of archive:9187 is not that of its archive",
        {"alarm": "clock"},
    ),
    Case(
        "DicomwatchdCertificateEnds",
        {'dicomwatchd_alarm{alarm="certificate"}': "0x5 2x100"},
        "5m",
        "7m",
        "2 certificates on archive:9187 end soon, or have ended",
        {"alarm": "certificate"},
    ),
    Case(
        "DicomwatchdCredentialsEnd",
        {'dicomwatchd_alarm{alarm="credentials"}': "0x5 1x100"},
        "5m",
        "7m",
        "the archive's credentials on archive:9187 end, or have ended, and are not renewed",
        {"alarm": "credentials"},
    ),
    Case(
        "DicomwatchdProblem",
        {"dicomwatchd_problems": "2x100"},
        "59m",
        "61m",
        "dicomwatchctl status on archive:9187 lists 2 problems",
    ),
]


def promtool_tests() -> dict[str, Any]:
    """What `promtool test rules` takes: every alert at rest, and each case before its time and at it."""
    by_name = {rule["alert"]: rule for rule in rules()}
    tests = [
        {
            "name": "at rest",
            "interval": "1m",
            "input_series": _series(AT_REST),
            "alert_rule_test": [
                {"eval_time": at, "alertname": name, "exp_alerts": []}
                for name in by_name
                for at in ("1m", "70m", "180m")
            ],
        }
    ]
    for case in CASES:
        rule = by_name[case.alert]
        fires = {
            "exp_labels": {
                **{name: value for name, value in SITE.items() if name not in case.without},
                **rule["labels"],
                **case.labels,
            },
            "exp_annotations": {"summary": case.summary, "runbook": rule["annotations"]["runbook"]},
        }
        tests.append(
            {
                "name": case.alert,
                "interval": "1m",
                "input_series": _series({**AT_REST, **case.series}),
                "alert_rule_test": [
                    {"eval_time": case.not_at, "alertname": case.alert, "exp_alerts": []},
                    {"eval_time": case.fires_at, "alertname": case.alert, "exp_alerts": [fires]},
                ],
            }
        )
    return {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}


def _series(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"series": _of_the_site(name), "values": text} for name, text in values.items()]


def _of_the_site(series: str) -> str:
    """With the site's labels, unless it has them."""
    name, _, labels = series.partition("{")
    given = [part for part in labels.rstrip("}").split(",") if part]
    own = [f'{key}="{value}"' for key, value in SITE.items() if not labels.startswith(f"{key}=")]
    return f"{name}{{{','.join(given + own)}}}"
