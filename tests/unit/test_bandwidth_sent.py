"""The limit on sending at a server that counts what arrives, and when: objects, parts, and what botocore sends."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dicomwatchd.archive.aws import deadlines
from dicomwatchd.archive.stores.port import Buffer
from dicomwatchd.archive.stores.s3 import fast_path
from dicomwatchd.archive.stores.s3.connection import Connection
from dicomwatchd.archive.stores.s3.probe import _Probe
from dicomwatchd.archive.stores.s3.store import S3Store
from dicomwatchd.archive.stores.uplink import Uplink
from dicomwatchd.config.archive import S3Settings
from dicomwatchd.config.bandwidth import schedule_of
from dicomwatchd.errors import Stopping, Transient
from dicomwatchd.model import Digest
from dicomwatchd.ports import SystemClock

MB = 1_000_000
_XML = '<?xml version="1.0"?><{0} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{1}</{0}>'


class Counting(BaseHTTPRequestHandler):
    """As much of S3 as a PUT of any size asks for; nothing is kept."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def _take(self) -> str:
        left, md5 = int(self.headers.get("content-length", 0)), hashlib.md5(usedforsecurity=False)
        while left:
            piece = self.rfile.read1(min(left, 65536))
            if not piece:
                self.server.broken += 1
                raise ConnectionError
            self.server.note(len(piece))
            md5.update(piece)
            left -= len(piece)
        return md5.hexdigest()

    def _answer(self, status: int, body: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_HEAD(self) -> None:
        self._answer(200 if self.path.strip("/") == "bucket" else 404)

    def do_GET(self) -> None:
        self._answer(200, _XML.format("ListMultipartUploadsResult", "<IsTruncated>false</IsTruncated>"))

    def do_PUT(self) -> None:
        if self.server.refuses:
            self.server.refuses -= 1
            self._take()
            self._answer(503)
            return
        self._answer(200, ETag=f'"{self._take()}"')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.endswith("?uploads"):
            self._answer(200, _XML.format("InitiateMultipartUploadResult", "<UploadId>1</UploadId>"))
        else:
            self._answer(200, _XML.format("CompleteMultipartUploadResult", "<ETag>&quot;x-1&quot;</ETag>"))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Counting)
        self.arrived: list[tuple[float, int]] = []
        self.broken = self.refuses = 0
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        pass

    def note(self, size_bytes: int) -> None:
        with self._lock:
            self.arrived.append((time.monotonic(), size_bytes))

    @property
    def total(self) -> int:
        return sum(size for _, size in self.arrived)

    def most_in(self, seconds: float) -> int:
        """The most bytes in any window of this length."""
        most = total = first = 0
        for at, size in self.arrived:
            total += size
            while self.arrived[first][0] <= at - seconds:
                total -= self.arrived[first][1]
                first += 1
            most = max(most, total)
        return most

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Content:
    """Bytes that are not in memory yet, so that many of them go in parts."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.digest = Digest(hashlib.sha256(data).hexdigest(), len(data))

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def fill(self, offset: int, view: memoryview) -> None:
        view[:] = self._data[offset : offset + len(view)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with closing(Server()) as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes longer than a second is too late, so that a wait that counted would be seen."""
    monkeypatch.setattr(deadlines, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(deadlines, "BODY_BYTES_PER_SECOND", 1 << 30)


def limited(rate: str) -> Uplink:
    uplink = Uplink(SystemClock())
    uplink.follow(schedule_of({"default": rate}))
    return uplink


def store_at(server: Server, uplink: Uplink | None, **options: Any) -> closing[S3Store]:
    endpoint = f"http://127.0.0.1:{server.server_port}"
    settings = S3Settings.model_validate(
        {"kind": "s3", "bucket": "bucket", "insecure_http": True, "endpoint_url": endpoint}
    )
    return closing(S3Store(settings, connections=64, uplink=uplink, **options))


def elapsed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


@pytest.mark.usefixtures("impatient")
def test_sixty_four_workers_keep_to_the_limit_together_and_nothing_is_late(server: Server) -> None:
    data = Buffer(bytes(250_000))
    with store_at(server, limited("4MB/s")) as store, ThreadPoolExecutor(64) as workers:
        seconds = elapsed(lambda: list(workers.map(lambda n: store.put(f"studies/{n}", data), range(64))))
    # All went once, by the data plane: what it gives up goes again by botocore.
    assert server.total == 64 * 250_000
    assert server.broken == 0
    assert 3.8 < seconds < 9.0
    assert server.most_in(2.0) <= 8 * MB * 1.2
    assert server.most_in(0.25) <= 2.5 * MB


@pytest.mark.usefixtures("impatient")
def test_the_parts_of_a_large_file_keep_to_it(server: Server) -> None:
    content: Any = Content(bytes(12 * MB))
    options = {"single_put_bytes": 1 << 20, "part_bytes": 5 << 20}
    with store_at(server, limited("4MB/s"), **options) as store:
        seconds = elapsed(lambda: store.put("studies/large", content))
    assert server.total == 12 * MB
    assert 2.8 < seconds < 8.0
    assert server.most_in(2.0) <= 8 * MB * 1.2


def test_what_botocore_sends_keeps_to_it_and_so_do_its_further_attempts(server: Server) -> None:
    data = Buffer(bytes(500_000))
    server.refuses = 1
    with store_at(server, limited("2MB/s"), with_fast_path=False) as store, ThreadPoolExecutor(8) as workers:
        seconds = elapsed(lambda: list(workers.map(lambda n: store.put(f"studies/{n}", data), range(8))))
    assert server.total == 9 * 500_000
    assert 2.0 < seconds < 9.0
    assert server.most_in(2.0) <= 4 * MB * 1.2


def test_the_fault_of_a_server_is_seen_although_it_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that the limit takes is no deadline's, but that of a server still is."""
    monkeypatch.setattr(deadlines, "ANSWER_SECONDS", 0.5)
    over = threading.Event()

    def late(self: Counting) -> None:
        self._take()
        over.wait(30)

    monkeypatch.setattr(Counting, "do_PUT", late)
    with store_at(server, limited("1MB/s")) as store:
        data = bytes(500_000)
        began = time.monotonic()
        assert store._data_plane is not None
        found = fast_path.put_object(store._data_plane, "a", data, hashlib.sha256(data).hexdigest(), {})
        assert found is None
        assert 0.8 < time.monotonic() - began < 20
        over.set()


def test_another_limit_holds_in_the_midst_of_an_upload(server: Server) -> None:
    content: Any = Content(bytes(20 * MB))
    uplink = limited("1MB/s")
    options = {"single_put_bytes": 1 << 20, "part_bytes": 5 << 20}
    with store_at(server, uplink, **options) as store, ThreadPoolExecutor(1) as worker:
        began = time.monotonic()
        upload = worker.submit(store.put, "studies/large", content)
        time.sleep(1.5)
        slow, slowly_until = server.total, time.monotonic()
        uplink.follow(schedule_of({"default": "8MB/s"}))
        while server.total - slow < 4 * MB and time.monotonic() - slowly_until < 60:
            time.sleep(0.01)
        fast, fast_until = server.total - slow, time.monotonic()
        uplink.follow(schedule_of({"default": "1MB/s"}))
        uplink.follow(None)
        seconds = elapsed(upload.result)
    assert slow < (slowly_until - began) * MB + 0.3 * MB
    assert fast < (fast_until - slowly_until) * 8 * MB + 1.6 * MB
    assert fast_until - slowly_until < 3.5, "with the limit of before it would be four seconds"
    assert seconds < 8.0, "with the last one more than ten"
    # It is one upload: nothing was sent twice.
    assert server.total == 20 * MB


def test_whoever_stops_leaves_at_once(server: Server) -> None:
    stopping = threading.Event()
    for fast in (True, False):
        stopping.clear()
        with (
            store_at(server, limited("64kB/s"), stopping=stopping.is_set, with_fast_path=fast) as store,
            ThreadPoolExecutor(4) as workers,
        ):
            puts = [workers.submit(store.put, f"studies/{n}", Buffer(bytes(10 * MB))) for n in range(4)]
            time.sleep(0.5)
            stopping.set()
            began = time.monotonic()
            for put in puts:
                with pytest.raises(Stopping if fast else (Stopping, Transient)):
                    put.result()
            assert time.monotonic() - began < (2.5 if fast else 10)


def test_without_a_limit_nothing_is_asked_on_the_way(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes go out of the very object that holds them, as before there were limits: no callback, no lock."""
    uplink = Uplink(SystemClock())

    def never_called(*_: object, **__: object) -> int:
        raise AssertionError

    monkeypatch.setattr(Connection, "_on_send", never_called)
    monkeypatch.setattr(uplink, "take", never_called)
    monkeypatch.setattr(uplink, "look", never_called)
    monkeypatch.setattr(uplink, "_lock", None)
    with store_at(server, uplink) as store:
        for number in range(10):
            store.put(f"studies/{number}", Buffer(bytes(300_000)))
    assert server.total == 10 * 300_000


@pytest.mark.parametrize("operation", ["PutObject", "UploadPart"])
def test_the_probe_alters_what_is_sent_at_a_limit_as_well(
    server: Server, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Else a store that compares what arrives would pass for one that does not, and each object would be read back."""
    with store_at(server, limited("64MB/s"), with_fast_path=False) as store:
        sent: list[bytes] = []
        monkeypatch.setattr(Counting, "_take", lambda self: _whole(self, sent))
        trying = _Probe(store._bucket, "probe/x/")
        with trying._altering(operation) as signed:
            if operation == "PutObject":
                trying._put("altered", signed)
            else:
                trying._upload("1", signed, False)
    assert [len(one) for one in sent] == [len(signed)]
    assert sent[0][:-1] == signed[:-1] and sent[0] != signed


def _whole(handler: Counting, sent: list[bytes]) -> str:
    data = handler.rfile.read(int(handler.headers.get("content-length", 0)))
    sent.append(data)
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
