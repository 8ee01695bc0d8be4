"""docs/alarms.md, behind scripts/pictures: each alarm as a real daemon tells of it, when it begins and when it is over.

The situations are those of tests/system/test_alarms.py. The page is what journal, status and the command of `on_alarm`
have said in them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicomwatchd.alarms.kinds import Kind, read_on
from tests.servers.ceph import CephRgw
from tests.servers.tls import make_certificate
from tests.system import alarmed
from tests.system.alarmed import Alarmed

PAGE = Path(__file__).parents[1] / "docs" / "alarms.md"
_PATIENCE_SECONDS = 120.0
#: What is amiss, in the order of the page.
SITUATIONS: Mapping[Kind, str] = {
    Kind.INBOX_SILENT: "Something has come into inbox `inbox1` in every hour of four weeks, and nothing for 30 hours.",
    Kind.OLDEST_FILE: "A study has been arriving for four days.",
    Kind.HOLD: "A study whose files name two patients has been held for four days.",
    Kind.RESTORE_DRILL: "An object of a study is gone, and a drill asks for the study; later it is there again.",
    Kind.CLOCK: "The archive's service has a clock that is 400 s ahead of the machine's.",
    Kind.CERTIFICATE: "The certificate of destination `pacs` ends in less than `certificate_days`.",
    Kind.CREDENTIALS: "The archive's credentials end in 40 minutes; later the daemon gets others.",
}

HEAD = """\
# Alarms, as they are told

Each alarm of [the operations guide](operations.md#alarms) in a situation of its own, from a run of the real daemon:
what the journal says, what `dicomwatchctl status` says, and what the command of `on_alarm` gets. `scripts/pictures
alarms` runs it again and writes this page; `tests/system/test_alarms.py` holds that each is told once.

The journal's entries are shown as the daemon writes them where there is no journald (in a container), without their
time. In journald the message is `MESSAGE`, and each field has a name of its own: `DICOMWATCHD_EVENT=alarm-begun`,
`DICOMWATCHD_ALARM=hold`. `status --check` exits with 1 while an alarm is open.

## What the command is run with

`on_alarm: [/etc/dicomwatchd/on-alarm, radiology]`: these arguments, and this environment, whole. What is told comes on
standard input, a line for each begin and each end.
"""


@dataclass
class Told:
    """``status`` is the line of `status`, ``document`` that of `status --json`; ``lines`` what the command was given,
    as it was given."""

    begun: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    document: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)


class Heard:
    """What is told of one site's alarms."""

    def __init__(self, site: Alarmed) -> None:
        self._site = site
        self.told: dict[Kind, Told] = {}
        self.run_with = ""
        self._run_with = site.root / "run-with"
        run_with = f'{{ echo "arguments: $*"; tr "\\0" "\\n" </proc/$$/environ; }} >{self._run_with}'
        site.write_hook(f"{run_with}\ncat >>{site.heard}")

    @contextmanager
    def during(self, situation: AbstractContextManager[None], *kinds: Kind) -> Iterator[None]:
        with situation:
            for kind in kinds:
                told = self.told[kind] = Told(begun=self._entry("alarm-begun", kind))
                told.lines["begun"] = self._line("begun", kind)
            said = self._site.ctl_json("status")["alarms"]
            lines = [line for line in self._site.ctl("status").stdout.splitlines() if line.startswith("Alarm since ")]
            for one, line in zip(said, lines, strict=True):
                if one["alarm"] in kinds:
                    self.told[Kind(one["alarm"])].document, self.told[Kind(one["alarm"])].status = one, line
            yield
        for kind in kinds:
            told = self.told[kind]
            told.ended, told.lines["ended"] = self._entry("alarm-ended", kind), self._line("ended", kind)
        self.run_with = self._run_with.read_text()

    def _entry(self, event: str, kind: Kind) -> dict[str, Any]:
        """Without its time."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self._site.events(event) if one["alarm"] == kind]

        self._wait(lambda: bool(found()), f"{event} of {kind}")
        return {key: value for key, value in found()[0].items() if key != "timestamp"}

    def _line(self, event: str, kind: Kind) -> str:
        def found() -> list[str]:
            lines = self._site.heard.read_text().splitlines() if self._site.heard.exists() else []
            return [line for line in lines if (json.loads(line)["event"], json.loads(line)["alarm"]) == (event, kind)]

        self._wait(lambda: bool(found()), f"the command to hear that {kind} has {event}")
        return found()[0]

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        self._site.wait_for(condition, _PATIENCE_SECONDS, what)


def page(told: Mapping[Kind, Told], run_with: str) -> str:
    parts = [HEAD, _block("text", run_with)]
    for kind, situation in SITUATIONS.items():
        one = told[kind]
        parts += [
            f"## {kind.value}\n",
            f"{situation} What to do: {_link(kind)}.\n",
            "It begins. The journal:\n",
            _block("json", json.dumps(one.begun)),
            "`dicomwatchctl status`, and with `--json` in `alarms`:\n",
            _block("text", one.status),
            _block("json", json.dumps(one.document)),
            "The command:\n",
            _block("json", one.lines["begun"]),
            "It is over. The journal, and the command; `status` has nothing of it any more:\n",
            _block("json", json.dumps(one.ended)),
            _block("json", one.lines["ended"]),
        ]
    return "\n".join(parts).rstrip() + "\n"


def _link(kind: Kind) -> str:
    page_of_it = read_on(kind)
    title = page_of_it.partition("#")[2].replace("-", " ").capitalize()
    return f"[{title}]({page_of_it.removeprefix('docs/')})"


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```\n"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="dicomwatchd-alarms-") as name:
        here, there = _of_a_folder(Path(name) / "folder"), _of_a_service(Path(name) / "service")
    PAGE.write_text(page(here.told | there.told, here.run_with))
    print(f"Written: {PAGE}")
    return 0


def _of_a_folder(root: Path) -> Heard:
    root.mkdir()
    site = Alarmed(root, inboxes=2)
    try:
        site.init()
        alarmed.with_a_certificate(site)
        heard = Heard(site)
        site.start()
        study = site.archive(5)[0].study_uid
        for situation, kinds in (
            (alarmed.a_study_that_does_not_come_back(site, study), (Kind.RESTORE_DRILL,)),
            (alarmed.an_inbox_that_is_silent(site), (Kind.INBOX_SILENT,)),
            (alarmed.files_that_wait_and_a_study_that_is_held(site), (Kind.OLDEST_FILE, Kind.HOLD)),
            (alarmed.a_certificate_that_ends(site), (Kind.CERTIFICATE,)),
        ):
            with heard.during(situation, *kinds):
                pass
        assert site.stop() == 0
        return heard
    finally:
        site.close()


def _of_a_service(root: Path) -> Heard:
    root.mkdir()
    with (
        CephRgw(root / "rgw", certificate=make_certificate(root / "rgw-tls")) as rgw,
        alarmed.before_a_service(root, rgw, "alarms") as (site, proxy),
    ):
        heard = Heard(site)
        with heard.during(alarmed.a_clock_that_differs(site, proxy), Kind.CLOCK):
            pass
        with heard.during(alarmed.credentials_that_end(site), Kind.CREDENTIALS):
            pass
        assert site.stop() == 0
        return heard


if __name__ == "__main__":
    sys.exit(main())
