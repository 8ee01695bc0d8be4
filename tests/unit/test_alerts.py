"""The alert rules: each fires in its situation, not before its time, and not at rest; and each leads to a page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import alerts

OPERATIONS = alerts.ROOT / "docs" / "operations.md"


def test_every_alert_fires_in_its_situation_and_not_at_rest(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed; scripts/setup-test-machine installs it")
    assert {case.alert for case in alerts.CASES} == {rule["alert"] for rule in alerts.rules()}
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump(alerts.promtool_tests()))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_severity_and_a_section_of_the_operations_guide() -> None:
    headings = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(), flags=re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for rule in alerts.rules():
        assert rule["labels"]["severity"] in ("page", "ticket", "note"), rule["alert"]
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert file == "docs/operations.md" and anchor in anchors, rule["alert"]


def test_the_dashboard_is_the_one_of_its_script() -> None:
    script = alerts.ROOT / "scripts" / "dashboard"
    assert subprocess.run([sys.executable, script, "--check"]).returncode == 0, "run scripts/dashboard"
    queries = alerts.dashboard_queries()
    assert len(queries) > 20 and all(queries.values())


def test_every_section_names_its_alerts() -> None:
    text = OPERATIONS.read_text()
    for rule in alerts.rules():
        assert f"`{rule['alert']}`" in text, rule["alert"]


def test_each_fires_at_a_real_prometheus_too() -> None:
    """In the tests that run one, each at the daemon in its own situation."""
    tests = "".join((alerts.ROOT / "tests" / name).read_text() for name in alerts.WITH_PROMETHEUS)
    fire = "".join(re.findall(r"wait_until_firing\(([^)]*)\)", tests))
    assert [rule["alert"] for rule in alerts.rules() if f'"{rule["alert"]}"' not in fire] == []
