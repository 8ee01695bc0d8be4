"""The programs that are compared: how each is told to move a folder into the store, or to bring a prefix back."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from tests.bench.cases import BESIDE, BY_BOTOCORE, LEAST
from tests.bench.store import Endpoint, Servers

PROGRAMS = Path(sys.executable).parent
#: What a client does when it brings files back, where its name says otherwise.
FETCHING = {"s5cmd mv": "s5cmd cp", "rclone move": "rclone copy", "aws s3 mv": "aws s3 cp"}
#: What peers put their objects under.
PREFIX = "in"


@dataclass(frozen=True, slots=True)
class Job:
    """One run: ``inbox`` is to be emptied into ``bucket``, or ``bucket`` fetched into ``target``. ``scratch`` is an
    empty folder for the client's own files. ``name`` is new for each run."""

    name: str
    endpoint: Endpoint
    bucket: str
    scratch: Path
    inbox: Path
    target: Path
    study_uid: str
    layout: str = "instance"


class Client(Protocol):
    """``knows`` says what the client knows of the stored bytes before it deletes a file."""

    name: str
    knows: str
    #: Puts several files into one object where the job's layout says so.
    bundles: bool

    def version(self) -> str: ...

    def prepare(self, job: Job) -> None:
        """Whatever an administrator does once, before the work: not measured."""
        ...

    def move(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        """The command that is measured, and its environment."""
        ...

    def fetch(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]] | None: ...

    def finish(self, job: Job) -> None: ...


class Ours:
    name = "dicomwatchd"
    knows = "the store's own ETag of every object, manifest, catalogue, audit; SHA-256 again"
    bundles = True
    _counted: tuple[str, ...] = ()

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def version(self) -> str:
        return _said(str(PROGRAMS / "dicomwatchd"), "--version").split()[-1]

    def prepare(self, job: Job) -> None:
        (job.scratch / "state").mkdir()
        self._config(job).write_text(
            yaml.safe_dump(
                {
                    "state_directory": str(job.scratch / "state"),
                    "inboxes": [{"name": "bench", "path": str(job.inbox), "settle_seconds": 0, "quiet_seconds": 0}],
                    "archive": {
                        "layout": {"kind": job.layout},
                        "store": {
                            "kind": "s3",
                            "bucket": job.bucket,
                            "endpoint_url": job.endpoint.url or None,
                            "region": self._servers.rgw.region,
                            "insecure_http": job.endpoint.is_plain_http,
                            "ca_file": str(job.endpoint.ca_file) if job.endpoint.ca_file else None,
                            "encryption": dict(job.endpoint.encryption),
                        },
                        "catalogue": {
                            "kind": "dynamodb",
                            "table": job.name,
                            "endpoint_url": job.endpoint.catalogue_url or self._servers.dynamodb.http_endpoint,
                            "region": self._servers.dynamodb.region,
                            "insecure_http": True,
                        },
                    },
                }
            )
        )
        subprocess.run(
            [*self._program("dicomwatchctl"), "--config", self._config(job), "archive", "init"],
            env=self._environment(job),
            check=True,
            capture_output=True,
        )

    def move(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        command = [*self._program("dicomwatchd"), "--config", str(self._config(job)), "--once"]
        return command, self._environment(job)

    def daemon(self, job: Job, program: Sequence[str] = ()) -> tuple[Sequence[str], Mapping[str, str]]:
        """The command of one that goes on, and its environment. ``program`` is run in place of the usual one."""
        program = program or self._program("dicomwatchd")
        return [*program, "--config", str(self._config(job))], self._environment(job)

    def fetch(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        program = self._program("dicomwatchctl")
        command = [*program, "--config", str(self._config(job)), "fetch", job.study_uid, "-o", str(job.target)]
        return command, self._environment(job)

    def requests(self, job: Job, file: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        """As `move`, with ``file`` for what its requests take (`request_costs`)."""
        command = [sys.executable, "-m", "tests.bench.request_costs", str(file), *self._counted]
        return [*command, "--config", str(self._config(job)), "--once"], self._environment(job)

    def finish(self, job: Job) -> None:
        self._servers.drop_table(job.name)

    def _config(self, job: Job) -> Path:
        return job.scratch / "config.yaml"

    def _program(self, name: str) -> list[str]:
        return [str(PROGRAMS / name)]

    def _environment(self, job: Job) -> dict[str, str]:
        return _plain_environment() | self._servers.rgw.env() | dict(job.endpoint.environment)


class Beside(Ours):
    """Another checkout of the same program, such as one from before a change."""

    def __init__(self, servers: Servers, tree: Path, number: int) -> None:
        super().__init__(servers)
        self.name = f"{BESIDE} {number}"
        self._tree = tree

    def version(self) -> str:
        return _said("git", "-C", str(self._tree), "describe", "--always", "--dirty").strip()

    def _program(self, name: str) -> list[str]:
        scripts = tomllib.loads((self._tree / "pyproject.toml").read_text())["project"]["scripts"]
        module, _, function = scripts[name].partition(":")
        return [sys.executable, "-P", "-c", f"import sys; from {module} import {function}; sys.exit({function}())"]

    def _environment(self, job: Job) -> dict[str, str]:
        return super()._environment(job) | {"PYTHONPATH": str(self._tree)}


class ByBotocore(Ours):
    """The same program, without its data plane."""

    name = BY_BOTOCORE
    _counted = ("--by-botocore",)


class _Peer:
    """A peer needs a bucket and nothing else."""

    name = ""
    knows = ""
    bundles = False

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def prepare(self, job: Job) -> None:
        self._servers.make_bucket(job.bucket)

    def fetch(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]] | None:
        return None

    def finish(self, job: Job) -> None:
        pass

    def _environment(self, job: Job) -> dict[str, str]:
        own = _plain_environment() | self._servers.rgw.env()
        return own | ({"AWS_CA_BUNDLE": str(job.endpoint.ca_file)} if job.endpoint.ca_file else {})


class S5cmd(_Peer):
    """Its own default of 256 workers."""

    name = "s5cmd mv"
    knows = "the PUT answered 200"

    def __init__(self, servers: Servers) -> None:
        super().__init__(servers)
        # The program itself; the script beside it would only start a Python first.
        (found,) = PROGRAMS.parent.glob("lib/python*/site-packages/s5cmd/bin/s5cmd")
        self._program = str(found)

    def version(self) -> str:
        return _said(self._program, "version").strip()

    def move(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        return self._command(job, "mv", f"{job.inbox}/", f"s3://{job.bucket}/{PREFIX}/")

    def fetch(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        return self._command(job, "cp", f"s3://{job.bucket}/{PREFIX}/*", f"{job.target}/")

    def _command(self, job: Job, *arguments: str) -> tuple[Sequence[str], Mapping[str, str]]:
        command = [self._program, "--log", "error", "--endpoint-url", job.endpoint.url, *arguments]
        return command, self._environment(job)


class Rclone(_Peer):
    name = "rclone move"
    knows = "the MD5 of the PUT"

    def version(self) -> str:
        return _said(str(PROGRAMS / "rclone"), "version").split()[1]

    def move(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        return self._command(job, "move", str(job.inbox), f"bench:{job.bucket}/{PREFIX}")

    def fetch(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        return self._command(job, "copy", f"bench:{job.bucket}/{PREFIX}", str(job.target))

    def _command(self, job: Job, *arguments: str) -> tuple[Sequence[str], Mapping[str, str]]:
        flags = ["--checksum", "--transfers", "64", "--checkers", "64", "--s3-no-check-bucket", "--fast-list"]
        if job.endpoint.ca_file:
            flags += ["--ca-cert", str(job.endpoint.ca_file)]
        settings = {
            "RCLONE_CONFIG": str(job.scratch / "rclone.conf"),
            "RCLONE_CONFIG_BENCH_TYPE": "s3",
            "RCLONE_CONFIG_BENCH_PROVIDER": "Ceph",
            "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
            "RCLONE_CONFIG_BENCH_ENDPOINT": job.endpoint.url,
        }
        return [str(PROGRAMS / "rclone"), *flags, *arguments], self._environment(job) | settings


class Ferry(_Peer):
    """One unit for each folder, complete at once, deleted in the same pass."""

    name = "ferry run"
    knows = "HEAD with size and ETag, staged, SHA-256 again"

    def version(self) -> str:
        return _said(str(PROGRAMS / "ferry"), "--version").split()[-1]

    def prepare(self, job: Job) -> None:
        super().prepare(job)
        env = self._servers.rgw.env()
        (job.scratch / "ferry.yaml").write_text(
            yaml.safe_dump(
                {
                    "state_dir": str(job.scratch / "state"),
                    "stores": {
                        "rgw": {
                            "url": f"s3://{job.bucket}/",
                            "endpoint": job.endpoint.url,
                            "region": self._servers.rgw.region,
                            "allow_http": True,
                            "options": {
                                "aws_access_key_id": env["AWS_ACCESS_KEY_ID"],
                                "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"],
                            },
                        }
                    },
                    "pipelines": [
                        {
                            "name": "bench",
                            "root": str(job.inbox),
                            "prefix": PREFIX,
                            "destinations": ["rgw"],
                            "unit": {"dirs": "*"},
                            "mode": "cron",
                            "cron": "0 2 * * *",
                            "settle": "0s",
                            "unit_idle": "0s",
                            "finalize": {"action": "delete"},
                            "limits": {"files_in_flight": 64},
                        }
                    ],
                }
            )
        )

    def move(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        env = self._environment(job)
        if job.endpoint.ca_file:
            env["SSL_CERT_FILE"] = str(job.endpoint.ca_file)
        return [str(PROGRAMS / "ferry"), "--config", str(job.scratch / "ferry.yaml"), "run"], env


class AwsCli(_Peer):
    name = "aws s3 mv"
    knows = "the PUT answered 200"

    def version(self) -> str:
        return _said(str(PROGRAMS / "aws"), "--version").split()[0].rpartition("/")[2]

    def move(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        return self._command(job, "mv", str(job.inbox), f"s3://{job.bucket}/{PREFIX}/")

    def fetch(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        return self._command(job, "cp", f"s3://{job.bucket}/{PREFIX}/", str(job.target))

    def _command(self, job: Job, *arguments: str) -> tuple[Sequence[str], Mapping[str, str]]:
        settings = job.scratch / "aws-config"
        settings.write_text("[default]\ns3 =\n  max_concurrent_requests = 32\n")
        command = [str(PROGRAMS / "aws"), "--endpoint-url", job.endpoint.url, "s3", arguments[0], "--recursive"]
        env = self._environment(job) | {"AWS_CONFIG_FILE": str(settings)}
        return [*command, "--only-show-errors", *arguments[1:]], env


class Least(_Peer):
    """The floor (tests/bench/least.py): no peer, so it is run when it is asked for and is never the best one."""

    name = LEAST
    bundles = True
    knows = "the store's own ETag of every object; SHA-256 again"

    def version(self) -> str:
        return "of ours"

    def move(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        more = ["--bundled"] if job.layout == "bundled" else []
        return self._command(job, "move", job.inbox, more)

    def fetch(self, job: Job) -> tuple[Sequence[str], Mapping[str, str]]:
        return self._command(job, "fetch", job.target)

    def _command(
        self, job: Job, what: str, folder: Path, more: Sequence[str] = ()
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        command = [
            sys.executable,
            "-m",
            "tests.bench.least",
            what,
            *more,
            "--threads",
            str(job.endpoint.useful_threads),
        ]
        command += ["--ca", str(job.endpoint.ca_file or "")]
        env = self._environment(job) | {"PYTHONPATH": str(Path(__file__).parents[2])}
        return [*command, job.endpoint.url, self._servers.rgw.region, job.bucket, str(folder)], env


def _plain_environment() -> dict[str, str]:
    """The machine's environment without what a person may have set for these programs."""
    # PYTHONDONTWRITEBYTECODE, for one, has each process compile all that it imports: 0.35 s of CPU.
    theirs = ("AWS_", "RCLONE_", "FERRY_", "S3_", "DYNAMODB_", "PYTHON")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(theirs) and not name.lower().endswith("_proxy")
    }


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
