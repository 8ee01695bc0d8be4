"""Amazon's own DynamoDB Local on loopback, over http and (through a TLS front) over https.

The program comes out of the npm package amplify-dynamodb-simulator, is kept in the user's cache and fetched
once. Its licence allows development and testing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from tests.servers import processes
from tests.servers.processes import ServerError
from tests.servers.tls import Certificate, make_certificate

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

NPM_PACKAGE: Final = "amplify-dynamodb-simulator@2.9.30"
NPM_PACKAGE_SHA256: Final = "3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9"

_HERE: Final = Path(__file__).parent
_START_TIMEOUT_SECONDS: Final = 60.0


class DynamoDBLocal:
    """The server. `directory` must be new or empty; close() removes it.

    stop() and start() again is an outage: same ports, same tables. The context manager starts, and closes at
    the end. `certificate` is made when none is given. `detached` servers outlive this process (see `attach`);
    others are killed when the thread that started them ends. Any credentials serve.
    """

    region: Final = "us-east-1"

    def __init__(self, directory: Path, *, certificate: Certificate | None = None, detached: bool = False) -> None:
        self.directory = directory.absolute()
        self.access_key = f"TEST{secrets.token_hex(8).upper()}"
        self.secret_key = secrets.token_hex(20)
        self._http_port = processes.free_port()
        self._https_port = processes.free_port()
        self._certificate = certificate
        self._detached = detached

    @classmethod
    def attach(cls, directory: Path) -> Self:
        """The detached server that another process has started in `directory`."""
        state = json.loads((directory / "state.json").read_text())
        dynamodb = cls(directory, detached=True)
        dynamodb._http_port, dynamodb._https_port = state["http_port"], state["https_port"]
        dynamodb._certificate = Certificate(*(Path(path) for path in state["certificate"]))
        return dynamodb

    @property
    def http_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http_port}"

    @property
    def https_endpoint(self) -> str:
        return f"https://localhost:{self._https_port}"

    @property
    def ca_file(self) -> Path:
        """The authority to trust for `https_endpoint`."""
        if self._certificate is None:
            raise RuntimeError("DynamoDB Local has not been started")
        return self._certificate.ca_file

    def env(self) -> dict[str, str]:
        """Credentials and region as the AWS SDKs read them; endpoints and the CA file are the caller's to pass."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, *, tls: bool = False, **settings: Any) -> DynamoDBClient:
        """A boto3 client that ignores AWS settings of the environment; `settings` go to botocore's Config."""
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(self.access_key, self.secret_key, region_name=self.region)
        return session.client(
            "dynamodb",
            endpoint_url=self.https_endpoint if tls else self.http_endpoint,
            verify=str(self.ca_file),
            config=Config(**settings),
        )

    def pids(self) -> dict[str, int]:
        """The live processes: java and its TLS front."""
        return processes.running_pids(self.directory)

    def start(self) -> Self:
        """Takes about 2 s (more when the program must first be fetched).

        Raises ServerError, with everything stopped again, when it fails; a first start that fails removes the
        directory too.
        """
        first_start = not (self.directory / "state.json").exists()
        if first_start:
            processes.claim_directory(self.directory)
        try:
            if first_start:
                self._prepare()
            self._start_processes(dynamodb_local_program())
        except BaseException:
            if first_start:
                self.close()
            else:
                self.stop()
            raise
        return self

    def stop(self) -> None:
        """An outage: both endpoints refuse connections, the tables stay. May be called more than once."""
        processes.end(self.directory, "tls", grace_seconds=0)
        processes.end(self.directory, "java", grace_seconds=5)

    def close(self) -> None:
        """Stops the server for good and removes its directory."""
        self.stop()
        processes.remove_directory(self.directory)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        certificate = self._certificate = self._certificate or make_certificate(self.directory)
        (self.directory / "tables").mkdir()
        (self.directory / "state.json").write_text(
            json.dumps(
                {
                    "http_port": self._http_port,
                    "https_port": self._https_port,
                    "certificate": [
                        str(certificate.ca_file),
                        str(certificate.cert_file),
                        str(certificate.key_file),
                    ],
                }
            )
        )

    def _start_processes(self, program: Path) -> None:
        certificate = self._certificate
        assert certificate is not None
        java = [
            "java", "-Xms32m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Djava.net.preferIPv4Stack=true", "-Djava.library.path=DynamoDBLocal_lib",
            "-cp", "DynamoDBLocal.jar:DynamoDBLocal_lib/*", str(_HERE / "LoopbackDynamoDB.java"),
            "-port", str(self._http_port), "-dbPath", str(self.directory / "tables"),
            "-sharedDb", "-disableTelemetry",
        ]  # fmt: skip
        front = [
            sys.executable, str(_HERE / "tls.py"), str(self._https_port), str(self._http_port),
            str(certificate.cert_file), str(certificate.key_file),
        ]  # fmt: skip
        processes.spawn(self.directory, "java", java, detached=self._detached, cwd=program)
        processes.spawn(self.directory, "tls", front, detached=self._detached)
        processes.wait_for_http(self.directory, ["java", "tls"], self._http_port, _START_TIMEOUT_SECONDS)
        processes.wait_for_listener(self.directory, "tls", self._https_port, _START_TIMEOUT_SECONDS)


def cache_directory() -> Path:
    """Where DynamoDBLocal.jar and its libraries are kept between test runs."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "dicomwatchd-tests" / "dynamodb-local"


def dynamodb_local_program() -> Path:
    """The directory that holds DynamoDBLocal.jar, fetched from the npm registry when the cache has none.

    The cache entry appears by one rename, complete, and under a lock: test runs that start together fetch it
    once.
    """
    cache = cache_directory()
    if (cache / "DynamoDBLocal.jar").exists():
        return cache
    cache.parent.mkdir(parents=True, exist_ok=True)
    with (cache.parent / "dynamodb-local.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (cache / "DynamoDBLocal.jar").exists():
            return cache
        with tempfile.TemporaryDirectory(prefix="dynamodb-local.", dir=cache.parent) as scratch:
            print(f"fetching {NPM_PACKAGE} (56 MB) into {cache} ...", file=sys.stderr)
            _call(["npm", "pack", "--silent", NPM_PACKAGE], Path(scratch))
            (tarball,) = Path(scratch).glob("*.tgz")
            if hashlib.sha256(tarball.read_bytes()).hexdigest() != NPM_PACKAGE_SHA256:
                raise ServerError(f"{NPM_PACKAGE}: what the npm registry sent is not the package this project knows")
            _call(["tar", "-xzf", tarball.name], Path(scratch))
            shutil.rmtree(cache, ignore_errors=True)  # a leftover without the jar
            (Path(scratch) / "package" / "emulator").rename(cache)
    return cache


def _call(command: list[str], directory: Path) -> None:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"{command[0]}: no end after {error.timeout:.0f} s") from error
    if done.returncode != 0:
        raise ServerError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
