"""The test servers are what the other tests take them for."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.conftest import skip_unless_available
from tests.servers import DEBIAN_PACKAGES, processes
from tests.servers.ceph import KMS_KEY_ID, CephRgw
from tests.servers.dynamodb import DynamoDBLocal
from tests.servers.processes import ServerError
from tests.servers.systemd import SystemdLab
from tests.servers.tls import TlsTerminator

PROJECT = Path(__file__).parents[2]


def test_rgw_returns_over_verified_https_what_was_put(rgw: CephRgw, bucket: str) -> None:
    client = rgw.client(tls=True)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a", Body=b"bytes")
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"bytes"
    assert rgw.client().get_object(Bucket=bucket, Key="a")["Body"].read() == b"bytes"


@pytest.mark.parametrize("tls", [False, True])
def test_rgw_encrypts_with_the_kms_key_that_was_asked_for(rgw: CephRgw, bucket: str, tls: bool) -> None:
    client = rgw.client(tls=tls)
    client.create_bucket(Bucket=bucket)
    put = client.put_object(
        Bucket=bucket, Key="a", Body=b"bytes", ServerSideEncryption="aws:kms", SSEKMSKeyId=KMS_KEY_ID
    )
    head = client.head_object(Bucket=bucket, Key="a")
    for answer in (put, head):
        assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY_ID)
    with pytest.raises(ClientError):
        client.put_object(Bucket=bucket, Key="b", Body=b"", ServerSideEncryption="aws:kms", SSEKMSKeyId="other")


def test_rgw_creates_an_object_only_once_when_asked_so(rgw: CephRgw, bucket: str) -> None:
    client = rgw.client()
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="a", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"first"


def test_rgw_refuses_other_credentials(rgw: CephRgw) -> None:
    stranger = CephRgw.__new__(CephRgw)
    stranger.__dict__.update(rgw.__dict__, secret_key="wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.client().list_buckets()


def test_rgw_comes_back_from_an_outage_with_its_objects(rgw: CephRgw, bucket: str) -> None:
    client = rgw.client(retries={"total_max_attempts": 1})
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a", Body=b"bytes")
    rgw.pause_gateway()
    try:
        for tls in (False, True):
            with pytest.raises(BotoCoreError):
                rgw.client(tls=tls, retries={"total_max_attempts": 1}).list_buckets()
    finally:
        rgw.resume_gateway()
    assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"bytes"
    assert rgw.client(tls=True).head_object(Bucket=bucket, Key="a")["ContentLength"] == 5


@pytest.mark.parametrize("tls", [False, True])
def test_dynamodb_keeps_items_and_conditions(dynamodb: DynamoDBLocal, table_name: str, tls: bool) -> None:
    make_table(dynamodb, table_name)
    client = dynamodb.client(tls=tls)
    item = {"pk": {"S": "STUDY#1"}, "sk": {"S": "STUDY"}}
    client.put_item(TableName=table_name, Item=item, ConditionExpression="attribute_not_exists(pk)")
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        client.put_item(TableName=table_name, Item=item, ConditionExpression="attribute_not_exists(pk)")
    assert client.get_item(TableName=table_name, Key=item, ConsistentRead=True)["Item"] == item


def test_dynamodb_comes_back_from_an_outage_with_its_tables(dynamodb: DynamoDBLocal, table_name: str) -> None:
    make_table(dynamodb, table_name)
    endpoints = dynamodb.http_endpoint, dynamodb.https_endpoint
    dynamodb.stop()
    try:
        for tls in (False, True):
            with pytest.raises(BotoCoreError):
                dynamodb.client(tls=tls, retries={"total_max_attempts": 1}).list_tables()
    finally:
        dynamodb.start()
    assert (dynamodb.http_endpoint, dynamodb.https_endpoint) == endpoints
    for tls in (False, True):
        found = dynamodb.client(tls=tls).describe_table(TableName=table_name)["Table"]
        assert found["TableName"] == table_name


def test_https_refuses_a_client_that_trusts_other_authorities(rgw: CephRgw, dynamodb: DynamoDBLocal) -> None:
    for endpoint in (rgw.https_endpoint, dynamodb.https_endpoint):
        done = subprocess.run(
            [sys.executable, "-c", f"import urllib.request as r; r.urlopen({endpoint!r})"],
            capture_output=True,
            text=True,
        )
        assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_the_server_certificate_passes_strict_checks_for_name_and_address(rgw: CephRgw) -> None:
    context = ssl.create_default_context(cafile=rgw.ca_file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    port = int(rgw.https_endpoint.rpartition(":")[2])
    for name in ("localhost", "127.0.0.1"):
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname=name),
        ):
            pass
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "basicConstraints", "-in", rgw.ca_file.with_name("server-cert.pem")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "CA:FALSE" in text


def test_servers_listen_on_loopback_only(rgw: CephRgw, dynamodb: DynamoDBLocal) -> None:
    for server, expected in ((rgw, {"mon", "osd", "mgr", "rgw"}), (dynamodb, {"java", "tls"})):
        pids = server.pids()
        assert set(pids) == expected
        for name, pid in pids.items():
            addresses = listening_addresses(pid)
            assert addresses, f"{name} listens nowhere"
            assert all(address.is_loopback for address in addresses), f"{name} listens on {addresses}"


def test_servers_env_leads_to_the_servers(servers_env: dict[str, str]) -> None:
    assert set(servers_env) >= {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
        *("S3_ENDPOINT", "S3_TLS_ENDPOINT", "S3_CA"),
        *("DYNAMODB_ENDPOINT", "DYNAMODB_TLS_ENDPOINT", "DYNAMODB_CA"),
    }
    script = (
        "import boto3, os as o; e = o.environ\n"
        "boto3.client('s3', endpoint_url=e['S3_TLS_ENDPOINT'], verify=e['S3_CA']).list_buckets()\n"
        "boto3.client('dynamodb', endpoint_url=e['DYNAMODB_TLS_ENDPOINT'], verify=e['DYNAMODB_CA'])"
        ".list_tables()\n"
    )
    subprocess.run([sys.executable, "-c", script], env={**os.environ, **servers_env}, check=True)


def test_up_leaves_servers_running_and_down_ends_exactly_those(short_directory: Path) -> None:
    skip_unless_available("rgw")
    skip_unless_available("dynamodb")
    directory, module = short_directory / "up", [sys.executable, "-m", "tests.servers"]
    up = subprocess.run([*module, "up", "all", str(directory)], cwd=PROJECT, capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    found = dict(line.split("=", 1) for line in up.stdout.splitlines())
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        servers = CephRgw.attach(directory / "rgw"), DynamoDBLocal.attach(directory / "dynamodb")
        assert servers[0].client(tls=True).list_buckets()["Buckets"] == []
        assert servers[1].client(tls=True).list_tables()["TableNames"] == []
        assert found["S3_TLS_ENDPOINT"] == servers[0].https_endpoint
        assert found["DYNAMODB_TLS_ENDPOINT"] == servers[1].https_endpoint
        pids = [pid for server in servers for pid in server.pids().values()]
        assert len(pids) == 6
    finally:
        subprocess.run([*module, "down", str(directory)], cwd=PROJECT, check=True)
        final_check = bystander.poll() is None
        bystander.kill()
        bystander.wait()
    assert final_check
    assert not any(is_alive(pid) for pid in pids)
    assert not directory.exists()


def test_a_stopped_server_leaves_no_process_and_no_file(short_directory: Path) -> None:
    skip_unless_available("dynamodb")
    directory = short_directory / "dynamodb"
    with DynamoDBLocal(directory) as server:
        pids = list(server.pids().values())
        assert len(pids) == 2
    assert not any(is_alive(pid) for pid in pids)
    assert not directory.exists()


def test_a_failed_start_says_why_and_leaves_nothing(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_available("rgw")
    directory = short_directory / "rgw"
    server, stopped = CephRgw(directory), []
    original = processes.spawn

    def spawn_but_break_the_gateway(directory: Path, name: str, command: list[str], **options: Any) -> int:
        if name == "rgw":
            command = ["sh", "-c", "echo the gateway is broken; exit 1"]
        pid = original(directory, name, command, **options)
        stopped.append(pid)
        return pid

    monkeypatch.setattr(processes, "spawn", spawn_but_break_the_gateway)
    with pytest.raises(ServerError, match="rgw ended") as failure:
        server.start()
    assert "the gateway is broken" in str(failure.value)
    assert len(stopped) == 4
    assert not any(is_alive(pid) for pid in stopped)
    assert not directory.exists()


def test_a_directory_that_is_somebody_elses_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    for server in (CephRgw(tmp_path), DynamoDBLocal(tmp_path)):
        with pytest.raises(ServerError, match="not empty"):
            server.start()
    CephRgw(tmp_path).stop()
    DynamoDBLocal(tmp_path).close()
    assert (tmp_path / "precious").exists()


def test_a_pid_file_with_another_start_time_kills_nobody(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "rgw.pid").write_text(f"{stranger.pid} 1\n")
        processes.end(tmp_path, "rgw", grace_seconds=0)
        assert stranger.poll() is None
        stranger.kill()


def test_servers_die_with_a_killed_test_run(short_directory: Path) -> None:
    script = (
        "import pathlib, time; from tests.servers import processes as p\n"
        f"directory = pathlib.Path({str(short_directory)!r})\n"
        "print(p.spawn(directory, 'tied', ['sleep', '60'], detached=False), flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert is_alive(pid)
        run.kill()
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)


def test_the_tls_front_passes_bytes_both_ways_and_stops(rgw: CephRgw, dynamodb: DynamoDBLocal) -> None:
    context = ssl.create_default_context(cafile=rgw.ca_file)
    target = int(dynamodb.http_endpoint.rpartition(":")[2])
    certificate = rgw.ca_file.with_name("server-cert.pem"), rgw.ca_file.with_name("server-key.pem")
    front = TlsTerminator(target, *certificate)
    for _ in range(2):
        with front:
            port = front.port
            with (
                socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert connection.recv(5) == b"HTTP/"
                with pytest.raises(OSError, match="in use"), TlsTerminator(target, *certificate, port=port):
                    pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


@pytest.fixture(scope="module")
def lab() -> Iterator[SystemdLab]:
    skip_unless_available("systemd")

    def prepare(root: Path) -> None:
        (root / "etc/systemd/system/hello.service").write_text(
            "[Service]\nType=oneshot\nExecStart=/usr/bin/echo hello from the lab\n"
        )

    with (
        tempfile.TemporaryDirectory(prefix="dicomwatchd-lab.") as directory,
        SystemdLab(Path(directory) / "lab", prepare=prepare) as running,
    ):
        yield running


def test_the_systemd_lab_is_up_and_journals(lab: SystemdLab) -> None:
    assert lab.sh("systemctl", "is-system-running").stdout.strip() == "running", lab.sh("systemctl", "--failed").stdout
    assert lab.sh("cat", "/proc/1/comm").stdout == "systemd\n"
    lab.sh("systemctl", "start", "hello.service")
    lab.sh("journalctl", "--sync")
    assert "hello from the lab\n" in lab.sh("journalctl", "-u", "hello.service", "-o", "cat").stdout


def test_the_systemd_lab_cannot_reach_the_machine(lab: SystemdLab) -> None:
    lab.sh("touch", "/etc/written-in-the-lab", "/tmp/written-in-the-lab", "/run/written-in-the-lab")
    for directory in ("etc", "tmp", "run"):
        assert not Path("/", directory, "written-in-the-lab").exists()
        assert (lab.root / directory / "written-in-the-lab").exists()
    assert not Path("/etc/systemd/system/hello.service").exists()
    interfaces = lab.sh("ls", "/sys/class/net").stdout.split()
    assert interfaces == ["lo"]


def test_the_systemd_lab_leaves_no_process_mount_or_cgroup(short_directory: Path) -> None:
    skip_unless_available("systemd")
    directory = short_directory / "lab"
    with SystemdLab(directory) as lab:
        pids, cgroup = list(lab.pids().values()), lab._cgroup
        assert len(pids) == 2
        assert cgroup is not None
        with pytest.raises(ServerError, match="ended with 3"):
            lab.sh("sh", "-c", "exit 3")
    assert not any(is_alive(pid) for pid in pids)
    assert not cgroup.exists()
    assert not directory.exists()
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()


def test_a_systemd_lab_whose_preparation_fails_is_taken_down(short_directory: Path) -> None:
    skip_unless_available("systemd")
    directory = short_directory / "lab"

    def prepare(_root: Path) -> None:
        unprepared.sh("touch", "/etc/not-here")

    unprepared = SystemdLab(directory, prepare=prepare)
    with pytest.raises(ServerError, match="not up"):
        unprepared.up()
    assert not directory.exists()
    assert not Path("/etc/not-here").exists()


@pytest.mark.parametrize(
    ("settings", "code", "beside"),
    [
        ({}, 0, "-n0"),
        ({"CI": ""}, 0, "-n0"),
        ({"CI": "true"}, 1, "-n0"),
        ({"DICOMWATCHD_TEST_NO_SKIP": "1"}, 1, "-n0"),
        ({}, 0, "-n2"),
        ({"CI": "true"}, 1, "-n2"),
    ],
)
def test_a_skip_is_named_and_fails_the_run_where_none_is_allowed(
    tmp_path: Path, settings: dict[str, str], code: int, beside: str
) -> None:
    (tmp_path / "test_sample.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_skipped(): pytest.skip('no such server here')\n"
        "@pytest.mark.xfail\n"
        "def test_known_to_fail(): assert False\n"
    )
    done = run_tests(tmp_path, beside, settings)
    assert done.returncode == code, done.stdout + done.stderr
    assert "1 NOT TESTED" in done.stdout
    assert re.search(r"^no such server here\n +test_sample.py::test_skipped$", done.stdout, re.MULTILINE)


def run_tests(directory: Path, beside: str, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Those of this directory, under the hooks of all tests."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "DICOMWATCHD_TEST_NO_SKIP") and not name.startswith("PYTEST_")
    }
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "tests.conftest"]
    return subprocess.run(
        [*command, beside, "--rootdir", str(directory), str(directory)],
        cwd=PROJECT,
        env=inherited | settings,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("beside", ["-n0", "-n2"])
def test_whoever_leaves_many_descriptors_open_is_named(tmp_path: Path, beside: str) -> None:
    (tmp_path / "test_sample.py").write_text(
        "import os\ndef test_passes(): pass\ndef test_leaves_many(): [os.open('/dev/null', 0) for _ in range(400)]\n"
    )
    done = run_tests(tmp_path, beside, {})
    assert done.returncode == 1 and "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert re.search(r"^ERROR .*test_sample.py::test_leaves_many", done.stdout, re.MULTILINE)
    assert re.search(r"^4\d\d descriptors are open: \[\('/dev/null', 40", done.stdout, re.MULTILINE)


def test_the_setup_script_installs_what_the_servers_need() -> None:
    listed = subprocess.run(
        [PROJECT / "scripts/setup-test-machine", "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(listed) == {package for packages in DEBIAN_PACKAGES.values() for package in packages}


@pytest.fixture
def short_directory(servers_directory: Path, request: pytest.FixtureRequest) -> Path:
    """An existing, empty directory with a short path."""
    directory = servers_directory / re.sub(r"\W+", "-", request.node.name)[:40]
    directory.mkdir()
    return directory


def make_table(dynamodb: DynamoDBLocal, name: str) -> None:
    dynamodb.client().create_table(
        TableName=name,
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        BillingMode="PAY_PER_REQUEST",
    )


def is_alive(pid: int) -> bool:
    """Whether a process has this pid; its zombie does not count."""
    return processes._start_time(pid) is not None


def listening_addresses(pid: int) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses of the TCP sockets on which process `pid` listens."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(descriptor)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    addresses: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = re.findall("........", fields[1].partition(":")[0])
                packed = b"".join(bytes.fromhex(word)[::-1] for word in words)
                address = ipaddress.ip_address(packed)
                mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
                addresses.add(mapped or address)
    return addresses
