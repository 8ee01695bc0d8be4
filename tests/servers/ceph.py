"""A real Ceph object gateway (S3) on loopback out of Debian's packages: one mon, one osd, one mgr, one radosgw.

Nothing of it outlives stop(): keys, certificate, data and logs all lie in the one directory that it is given.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from tests.servers import processes
from tests.servers.processes import ServerError
from tests.servers.tls import Certificate, make_certificate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KMS_KEY_ID: Final = "testkey-1"
"""The one key of the gateway's SSE-KMS testing back end."""

_START_TIMEOUT_SECONDS: Final = 90.0

_CONFIGURATION: Final = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}]
mon initial members = a
ms bind msgr1 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = {directory}/keyring
run dir = {directory}
crash dir = {directory}/crash
log to file = false
log to stderr = true
# a socket's path may not exceed 107 characters, and a test's directory often does
admin socket =
# one osd holds the only copy of everything
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 1
# a lone mon has nobody to wait for; with the default of a second each, start and the making of pools crawl
paxos propose interval = 0.05
paxos min wait = 0.02
# nobody but itself says that it is alive: after a stall of the machine longer than the lease made of this (16 s by
# default) its placement groups stay "laggy", and every request waits for ever
osd heartbeat grace = 600
osd objectstore = bluestore
bluestore block create = true
# a sparse file
bluestore block size = 21474836480
osd memory target = 939524096
# Debian's build has a relative path here
osd class dir = {class_directory}
[mon.a]
mon data = {directory}/mon
[osd.0]
osd data = {directory}/osd
[mgr.x]
mgr data = {directory}/mgr
[client.rgw]
rgw data = {directory}/rgw
debug rgw = 0
# without tcp_nodelay every GET waits 40 ms for an acknowledgement
rgw frontends = beast tcp_nodelay=1 endpoint=127.0.0.1:{http_port} ssl_endpoint=127.0.0.1:{https_port} \
ssl_certificate=gateway-cert.pem ssl_private_key=gateway-key.pem
{naming}rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = {kms_key_id}={kms_key}
"""


class CephRgw:
    """The gateway. `directory` must be new or empty; stop() removes it.

    `certificate` is made when none is given. `warm` makes the pools that the first requests would otherwise
    wait for. `detached` servers outlive this process (see `attach`); others are killed when the thread that
    started them ends. With a `name` buckets are reached below it, as part of the host's name, and it takes every other
    host's name for a bucket; an address stays an address.
    """

    region: Final = "us-east-1"

    def __init__(
        self,
        directory: Path,
        *,
        warm: bool = True,
        certificate: Certificate | None = None,
        detached: bool = False,
        name: str = "",
    ) -> None:
        self.directory = directory.absolute()
        self.access_key = f"TEST{secrets.token_hex(8).upper()}"
        self.secret_key = secrets.token_hex(20)
        self._http_port = processes.free_port()
        self._https_port = processes.free_port()
        self._warm = warm
        self._certificate = certificate
        self._detached = detached
        self._name = name

    @classmethod
    def attach(cls, directory: Path) -> Self:
        """The detached gateway that another process has started in `directory`."""
        state = json.loads((directory / "state.json").read_text())
        rgw = cls(directory, detached=True)
        rgw.access_key, rgw.secret_key = state["access_key"], state["secret_key"]
        rgw._http_port, rgw._https_port = state["http_port"], state["https_port"]
        rgw._certificate = Certificate(*(Path(path) for path in state["certificate"]))
        return rgw

    @property
    def http_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http_port}"

    @property
    def https_endpoint(self) -> str:
        return f"https://localhost:{self._https_port}"

    def named_endpoint(self, *, tls: bool) -> str:
        return f"https://{self._name}:{self._https_port}" if tls else f"http://{self._name}:{self._http_port}"

    @property
    def ca_file(self) -> Path:
        """The authority to trust for `https_endpoint`."""
        return self._require_certificate().ca_file

    def env(self) -> dict[str, str]:
        """Credentials and region as the AWS SDKs read them; endpoints and the CA file are the caller's to pass."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, *, tls: bool = False, user: Mapping[str, str] | None = None, **settings: Any) -> S3Client:
        """A boto3 client that ignores AWS settings of the environment; `settings` go to botocore's Config. `user` is
        what `add_user` gave; without it, the user who owns the buckets of tests."""
        import boto3
        from botocore.config import Config

        env = user or self.env()
        session = boto3.session.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name=self.region)
        return session.client(
            "s3",
            endpoint_url=self.https_endpoint if tls else self.http_endpoint,
            verify=str(self.ca_file),
            config=Config(s3={"addressing_style": "path"}, **settings),
        )

    def add_user(self, name: str) -> dict[str, str]:
        """Another user, who may do nothing in others' buckets but what their policies allow to
        arn:aws:iam:::user/NAME; the variables with the user's credentials."""
        access_key, secret_key = f"TEST{secrets.token_hex(8).upper()}", secrets.token_hex(20)
        self._run(
            "radosgw-admin", "user", "create", "--uid", name, "--display-name", name,
            "--access-key", access_key, "--secret-key", secret_key,
        )  # fmt: skip
        return {**self.env(), "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}

    def pids(self) -> dict[str, int]:
        """The live processes: mon, osd, mgr, rgw."""
        return processes.running_pids(self.directory)

    def start(self) -> Self:
        """Takes about 10 s; raises ServerError, with everything stopped again and removed, when it fails."""
        processes.claim_directory(self.directory)
        try:
            self._configure()
            self._start_cluster()
            self._start_gateway()
            if self._warm:
                self._make_pools()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kills the four daemons and removes the directory; may be called at any time and more than once."""
        with contextlib.ExitStack() as everything:  # also when one of them fails
            everything.callback(processes.remove_directory, self.directory)
            for name in ("mon", "osd", "mgr", "rgw"):
                everything.callback(processes.end, self.directory, name, grace_seconds=0)

    def pause_gateway(self) -> None:
        """An outage: both endpoints refuse connections, what is stored stays."""
        processes.end(self.directory, "rgw", grace_seconds=10)

    def resume_gateway(self) -> None:
        """Ends the outage; returns once the gateway answers on its old ports."""
        self._start_gateway()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _configure(self) -> None:
        for name in ("mon", "osd", "mgr", "rgw", "crash"):
            (self.directory / name).mkdir()
        self._certificate = self._certificate or make_certificate(
            self.directory, *((self._name, f"*.{self._name}") if self._name else ())
        )
        # the gateway's settings cannot express a path with a space: names in its working directory
        shutil.copy(self._certificate.cert_file, self.directory / "gateway-cert.pem")
        shutil.copy(self._certificate.key_file, self.directory / "gateway-key.pem")
        self._mon_port = processes.free_port()
        self._fsid = str(uuid.uuid4())
        (self.directory / "ceph.conf").write_text(
            _CONFIGURATION.format(
                directory=self.directory,
                fsid=self._fsid,
                mon_port=self._mon_port,
                http_port=self._http_port,
                https_port=self._https_port,
                class_directory=class_directory(),
                kms_key_id=KMS_KEY_ID,
                naming=f"rgw dns name = {self._name}\n" if self._name else "",
                kms_key=base64.b64encode(secrets.token_bytes(32)).decode(),
            )
        )
        (self.directory / "state.json").write_text(
            json.dumps(
                {
                    "access_key": self.access_key,
                    "secret_key": self.secret_key,
                    "http_port": self._http_port,
                    "https_port": self._https_port,
                    "certificate": [
                        str(self._certificate.ca_file),
                        str(self._certificate.cert_file),
                        str(self._certificate.key_file),
                    ],
                }
            )
        )
        self._write_keyring()

    def _write_keyring(self) -> None:
        keyring = self.directory / "keyring"
        keyring.touch(mode=0o600)
        capabilities = {
            "mon.": {"mon": "allow *"},
            "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
            "client.rgw": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
            "mgr.x": {"mon": "allow profile mgr", "osd": "allow *"},
            "osd.0": {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"},
        }
        for entity, allowed in capabilities.items():
            caps = [word for kind, what in allowed.items() for word in ("--cap", kind, what)]
            self._run("ceph-authtool", str(keyring), "--gen-key", "-n", entity, *caps)

    def _start_cluster(self) -> None:
        monmap, keyring = str(self.directory / "monmap"), str(self.directory / "keyring")
        address = f"[v2:127.0.0.1:{self._mon_port}]"
        self._run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._spawn("mon", "ceph-mon", "-f", "-i", "a")
        # the osd must be made with the very id that the mon knows, or it never comes up
        osd_uuid = str(uuid.uuid4())
        self._run("ceph", "--connect-timeout", "30", "osd", "new", osd_uuid)
        self._spawn("mgr", "ceph-mgr", "-f", "-i", "x")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_uuid)
        self._spawn("osd", "ceph-osd", "-f", "-i", "0")
        # makes the first pools too, which radosgw and this would race for if they ran side by side
        self._run(
            "radosgw-admin", "user", "create", "--uid", "test", "--display-name", "test",
            "--access-key", self.access_key, "--secret-key", self.secret_key,
        )  # fmt: skip

    def _start_gateway(self) -> None:
        self._spawn("rgw", "radosgw", "-f", "-n", "client.rgw")
        processes.wait_for_http(self.directory, ["rgw"], self._http_port, _START_TIMEOUT_SECONDS)

    def _make_pools(self) -> None:
        client, bucket = self.client(), f"warm-{secrets.token_hex(6)}"
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key="object", Body=b"x")
        client.delete_object(Bucket=bucket, Key="object")
        upload = client.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
        client.abort_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload)
        client.delete_bucket(Bucket=bucket)
        client.close()

    def _spawn(self, name: str, program: str, *arguments: str) -> None:
        command = [program, "-c", str(self.directory / "ceph.conf"), *arguments]
        processes.spawn(self.directory, name, command, detached=self._detached, env=_environment())

    def _run(self, program: str, *arguments: str) -> None:
        """Runs one of Ceph's tools to its end; ServerError carries what it said, and what the daemons said."""
        own_config = ["-c", str(self.directory / "ceph.conf")] if program not in ("ceph-authtool", "monmaptool") else []
        try:
            done = subprocess.run(
                [program, *own_config, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_START_TIMEOUT_SECONDS,
                cwd=self.directory,
                env=_environment(),
            )
            said, failed = done.stderr, done.returncode != 0
        except subprocess.TimeoutExpired as error:
            said, failed = f"no end after {error.timeout:.0f} s", True
        if failed:
            logs = "\n".join(processes.log_tail(self.directory, name, 10) for name in self.pids())
            raise ServerError(f"{program} failed: {said.strip()[-2000:]}\n{logs}")

    def _require_certificate(self) -> Certificate:
        if self._certificate is None:
            raise RuntimeError("the gateway has not been started")
        return self._certificate


def class_directory() -> str:
    """Where the packages keep the object classes that the osd loads; empty when they are not installed."""
    found = sorted(Path("/usr/lib").glob("*/rados-classes")) + sorted(Path("/usr/lib64").glob("rados-classes"))
    return str(found[0]) if found else ""


def _environment() -> Mapping[str, str]:
    """Without the settings of a cluster that the machine's owner may really have (CEPH_ARGS, CEPH_CONF)."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CEPH")}
