"""Certificates for the test servers, and a TLS front for a server that speaks plain HTTP only.

Also a program: `python tls.py PORT TARGET_PORT CERTIFICATE KEY` serves in the foreground until it is killed.
It therefore imports the standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server certificate for localhost, 127.0.0.1 and ::1, and the authority that clients are to trust."""

    ca_file: Path
    cert_file: Path
    key_file: Path


def make_certificate(directory: Path, *names: str, purpose: str = "serverAuth") -> Certificate:
    """Makes ca.pem, server-cert.pem and server-key.pem in `directory`, valid for 30 days; for these host names too.
    `purpose` is clientAuth for a client that shows one.

    The server's own certificate is signed by a throw-away authority and is none itself: strict clients
    (rustls, Python 3.13) refuse an authority's certificate as a server's. The authority's key is not kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ca, ca_key = directory / "ca.pem", directory / "ca-key.pem"
    made = Certificate(ca, directory / "server-cert.pem", directory / "server-key.pem")
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ]
    try:
        _openssl(
            *new, "-keyout", f"{ca_key}", "-out", f"{ca}", "-subj", "/CN=dicomwatchd test authority",
            "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
        _openssl(
            *new, "-keyout", f"{made.key_file}", "-out", f"{made.cert_file}", "-subj", "/CN=localhost",
            "-CA", f"{ca}", "-CAkey", f"{ca_key}",
            "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature",
            "-addext", f"extendedKeyUsage={purpose}",
            "-addext", ",".join(("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1", *(f"DNS:{n}" for n in names))),
        )  # fmt: skip
    finally:
        ca_key.unlink(missing_ok=True)
    return made


class TlsTerminator:
    """Accepts TLS on a loopback port and passes the plain bytes on to `target_port`, from a background thread.

    A target that is down shows as a connection closed right after the handshake.
    """

    def __init__(self, target_port: int, cert: Path, key: Path, port: int = 0) -> None:
        self._target_port = target_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        self._wanted_port = port
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port listened on; kept over stop() and start()."""
        if not self._wanted_port:
            raise RuntimeError("the TLS terminator has not been started")
        return self._wanted_port

    def start(self) -> Self:
        """Listens; raises OSError when the port is taken."""
        ready = threading.Event()
        failure: list[BaseException] = []

        async def main() -> None:
            try:
                server = await self._listen()
            except BaseException as error:
                failure.append(error)
                raise
            finally:
                ready.set()
            with contextlib.suppress(asyncio.CancelledError):
                await server.serve_forever()

        def run() -> None:
            with contextlib.suppress(OSError, asyncio.CancelledError), asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(main())

        self._thread = threading.Thread(target=run, name="tls-terminator", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            self._thread.join()
            raise failure[0]
        return self

    def stop(self) -> None:
        """Closes the port and every connection."""
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return

        def cancel_all() -> None:
            for task in asyncio.all_tasks(loop):
                task.cancel()

        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(cancel_all)
        thread.join()

    def serve_in_foreground(self) -> None:
        """Listens until the process is killed."""

        async def main() -> None:
            await (await self._listen()).serve_forever()

        asyncio.run(main())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._wanted_port, ssl=self._context, ssl_shutdown_timeout=1
        )
        self._wanted_port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        copies = [
            asyncio.create_task(_copy(reader, target_writer)),
            asyncio.create_task(_copy(target_reader, writer)),
        ]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            writer.close()  # sends what is still buffered
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            for copy in copies:
                copy.cancel()
            target_writer.transport.abort()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # ssl.SSLError is one; either side may go away at any time
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


def _openssl(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl failed: {done.stderr.strip()}")


if __name__ == "__main__":
    port, target_port, cert, key = sys.argv[1:]
    TlsTerminator(int(target_port), Path(cert), Path(key), int(port)).serve_in_foreground()
