"""The demonstration behind scripts/demo: the main job from beginning to end, with the real programs.

Needs the runtime dependencies and this checkout; with --s3 also what tests/servers starts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.synthetic import Made, Maker

PROGRAMS = Path(sys.executable).parent
PATIENCE_SECONDS = 120


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="dicomwatchd-demo-"))
    with ExitStack() as stack:
        if options.keep:
            stack.callback(lambda: print(f"\nEverything is left in {root}"))
        else:
            stack.callback(shutil.rmtree, root, ignore_errors=True)
        archive, environment = stack.enter_context(s3_archive(root) if options.s3 else folder_archive(root))
        return Demo(root, archive, environment).run()


@contextmanager
def folder_archive(root: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    (root / "archive").mkdir()
    yield (
        {
            "store": {"kind": "directory", "path": str(root / "archive")},
            "catalogue": {"kind": "sqlite", "path": str(root / "archive" / "catalogue.db")},
        },
        {},
    )


@contextmanager
def s3_archive(root: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    from tests.servers.ceph import KMS_KEY_ID, CephRgw
    from tests.servers.dynamodb import DynamoDBLocal
    from tests.servers.tls import make_certificate

    title("Starting a Ceph S3 gateway and DynamoDB Local on this machine")
    (root / "tls").mkdir()
    certificate = make_certificate(root / "tls")
    with (
        CephRgw(root / "rgw", certificate=certificate) as rgw,
        DynamoDBLocal(root / "dynamodb", certificate=certificate) as dynamodb,
    ):
        say(f"S3 at {rgw.https_endpoint}, DynamoDB at {dynamodb.https_endpoint}")
        tls = {"ca_file": str(certificate.ca_file), "region": rgw.region}
        yield (
            {
                "store": {
                    "kind": "s3",
                    "bucket": "demo-archive",
                    "endpoint_url": rgw.https_endpoint,
                    "encryption": {"mode": "aws:kms", "key_id": KMS_KEY_ID},
                    **tls,
                },
                "catalogue": {
                    "kind": "dynamodb",
                    "table": "demo-studies",
                    "endpoint_url": dynamodb.https_endpoint,
                    **tls,
                },
            },
            rgw.env(),
        )


class Demo:
    def __init__(self, root: Path, archive: dict[str, Any], environment: dict[str, str]) -> None:
        self.root, self.archive = root, archive
        self.environment = {**os.environ, **environment}
        self.environment.pop("AWS_CA_BUNDLE", None)
        self.inbox, self.staging, self.back = root / "inbox", root / "modality", root / "back"
        self.config = root / "config.yaml"
        self.log = root / "daemon.log"

    def run(self) -> int:
        self.prepare()
        studies, junk = self.make_studies()
        daemon = self.start_daemon()
        try:
            self.drop(studies, junk)
            done = self.watch(daemon, studies)
        finally:
            daemon.terminate()
            code = daemon.wait(60)
        say(f"the daemon has finished its work and stops and ended with {code}")
        return self.sum_up(done and code == 0, studies, junk)

    def prepare(self) -> None:
        title("An inbox, a configuration, an archive")
        for folder in (self.inbox, self.staging, self.root / "state"):
            folder.mkdir()
        self.config.write_text(
            yaml.safe_dump(
                {
                    "state_directory": str(self.root / "state"),
                    "scan_interval_seconds": 10,
                    "inboxes": [{"name": "demo", "path": str(self.inbox), "settle_seconds": 0.5, "quiet_seconds": 3}],
                    "archive": self.archive,
                },
                sort_keys=False,
            )
        )
        self.ctl("config", "check")
        self.ctl("archive", "init")

    def make_studies(self) -> tuple[dict[str, list[Made]], list[Made]]:
        title("A modality makes a few studies (synthetic; the persons are invented)")
        maker = Maker(seed=int(time.time()))
        studies = {
            "CT, one series": maker.ct_series(self.staging / "DOE^JANE" / "CT", slices=40),
            "US, multi-frame": maker.us_multiframe(self.staging / "ROE^RICHARD", frames=20),
            "MR, three series": maker.mr_study(self.staging / "POE^EDGAR" / "MR", series=3, slices=20),
        }
        junk = maker.junk(self.staging / "junk")
        for name, made in studies.items():
            say(f"{name}: {len(made)} files, {sum(m.size_bytes for m in made) / 1e6:.1f} MB")
        say(f"and {len(junk)} files that are no study: {', '.join(m.path.name for m in junk)}")
        return studies, junk

    def start_daemon(self) -> subprocess.Popen[bytes]:
        title("The daemon starts")
        with self.log.open("wb") as log:
            daemon = subprocess.Popen(
                [PROGRAMS / "dicomwatchd", "--config", self.config], env=self.environment, stdout=log, stderr=log
            )
        end = time.monotonic() + 30
        while not any(entry["event"] == "started" for entry in self.events()):
            if daemon.poll() is not None or time.monotonic() > end:
                print(self.log.read_text(), file=sys.stderr)
                raise SystemExit("the daemon has not started")
            time.sleep(0.1)
        say(f"process {daemon.pid} watches the inbox")
        return daemon

    def drop(self, studies: dict[str, list[Made]], junk: list[Made]) -> None:
        title("The modality drops its files into the inbox, one after the other")
        files = [m for made in studies.values() for m in made] + junk

        def copy() -> None:
            for made in files:
                target = self.inbox / made.path.relative_to(self.staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(made.path, target)
                time.sleep(0.02)

        threading.Thread(target=copy).start()

    def watch(self, daemon: subprocess.Popen[bytes], studies: dict[str, list[Made]]) -> bool:
        names = {made[0].study_uid: name for name, made in studies.items()}
        archived: set[str] = set()
        last, end = -1, time.monotonic() + PATIENCE_SECONDS
        while len(archived) < len(names) and time.monotonic() < end and daemon.poll() is None:
            count = len(self.left())
            if count != last:
                say(f"{count} files in the inbox")
                last = count
            for entry in self.events():
                uid = str(entry.get("study_uid"))
                if entry["event"] == "study-archived" and uid not in archived:
                    archived.add(uid)
                    say(
                        f"ARCHIVED {names[uid]}: {entry['files']} files, {entry['bytes'] / 1e6:.1f} MB in"
                        f" {entry['seconds']:.2f} s: {entry['sent_files']} sent, all verified,"
                        f" {entry['deleted']} deleted here"
                    )
            time.sleep(0.5)
        self.ctl("status")
        self.ctl("quarantine")
        return len(archived) == len(names)

    def sum_up(self, done: bool, studies: dict[str, list[Made]], junk: list[Made]) -> int:
        title("Every study is fetched back, and each byte compared")
        identical = 0
        for made in studies.values():
            self.ctl("fetch", made[0].study_uid, "-o", str(self.back))
            for m in made:
                back = self.back / m.series_uid / f"{m.sop_instance_uid}.dcm"
                identical += back.is_file() and back.read_bytes() == m.path.read_bytes()
        left = self.left()
        expected = {self.inbox / m.path.relative_to(self.staging) for m in junk}
        unharmed = all(
            path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == m.sha256
            for path, m in ((self.inbox / m.path.relative_to(self.staging), m) for m in junk)
        )
        total = sum(map(len, studies.values()))
        checks = {
            f"{len(studies)} studies archived and verified": done,
            f"{identical} of {total} files fetched back identical, byte for byte": identical == total,
            f"{total} originals deleted from the inbox": left <= expected,
            f"{len(junk)} files that are no study still there, unchanged": unharmed and left == expected,
        }
        title("Summary")
        for what, holds in checks.items():
            print(f"  {'yes' if holds else 'NO '}  {what}")
        return 0 if all(checks.values()) else 1

    def left(self) -> set[Path]:
        """The files in the inbox; a folder that is tidied away meanwhile is passed over."""
        return {Path(folder) / name for folder, _, names in os.walk(self.inbox) for name in names}

    def ctl(self, *arguments: str) -> None:
        print(f"  $ dicomwatchctl {' '.join(arguments)}")
        done = subprocess.run(
            [PROGRAMS / "dicomwatchctl", "--config", self.config, *arguments],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for line in done.stdout.splitlines():
            print(f"    {line}")
        if done.returncode:
            raise SystemExit(f"dicomwatchctl {arguments[0]} has failed")

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def say(text: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
