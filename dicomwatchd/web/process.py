"""The web process: command line, signals, readiness, end. Builds and connects all its parts."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import ssl
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from starlette.types import ASGIApp

from dicomwatchd import __version__
from dicomwatchd.access.record import AccessRecord
from dicomwatchd.access.tokens import Tokens
from dicomwatchd.archive import factory
from dicomwatchd.config.loading import DEFAULT_PATH, load
from dicomwatchd.config.web import Web
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import ConfigError, DicomwatchdError, Misconfigured, StateFailed
from dicomwatchd.ports import Clock, SystemClock
from dicomwatchd.series.reader import SeriesReader
from dicomwatchd.telemetry.fields import error_fields
from dicomwatchd.telemetry.foreign import redirect_foreign_logging
from dicomwatchd.telemetry.health import Heartbeats, ServiceManager
from dicomwatchd.telemetry.journal import Journal, open_journal
from dicomwatchd.web import tls
from dicomwatchd.web.app import assemble
from dicomwatchd.web.audit import RecordedAccess
from dicomwatchd.web.login.admission import SESSION_COOKIE, Doors
from dicomwatchd.web.login.cookies import Cookie
from dicomwatchd.web.login.oidc import CALLBACK, Oidc
from dicomwatchd.web.login.oidc import COOKIE as LOGIN_COOKIE
from dicomwatchd.web.login.proxy import ProxysWord
from dicomwatchd.web.login.roles import known_by
from dicomwatchd.web.login.sessions import Sessions
from dicomwatchd.web.login.signed import Signed
from dicomwatchd.web.parts import Parts
from dicomwatchd.web.rates import Rate
from dicomwatchd.web.serving import Places, Server, server

DONE, FAILED, USAGE = 0, 1, 2
#: How many requests may wait for the archive at once; each takes a thread.
THREADS = 32
#: How many images are decoded at once.
PICTURES = 2
_BACKLOG = 128
_HEAD_SECONDS = 3600.0
_FAILED_LOGIN_SECONDS = 300.0
_SECRET_BYTES = 4096

EXITS = """exit status:
  0  normal end, after SIGTERM
  1  it could not start or go on: a port, the archive, its state or a certificate
  2  bad usage or configuration, no web: in it, or packages of the page are missing"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dicomwatchd-web",
        description="Shows the studies of the archive in a browser, and hands them out by DICOMweb.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default: {DEFAULT_PATH}")
    parser.add_argument("--version", action="version", version=f"dicomwatchd-web {__version__}")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config)
        if config.web is None:
            raise ConfigError([("web", "is missing")], source=str(options.config))
    except ConfigError as error:
        sys.stderr.write(error.lines("dicomwatchd-web", options.config))
        return USAGE
    journal = open_journal(sys.stderr, level=config.log_level, never=[str(config.web.state)])
    redirect_foreign_logging(journal, config.log_level)
    # What libraries say here is made of what clients have sent, and of nothing else.
    for library in ("authlib", "h11", "httpcore", "httpx", "multipart", "pydicom", "python_multipart", "uvicorn"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore", UserWarning)
    return Process(config, config.web, journal, SystemClock()).run()


class Process:
    def __init__(self, config: Config, web: Web, journal: Journal, clock: Clock) -> None:
        self._config, self._web, self._journal, self._clock = config, web, journal, clock
        self._service = ServiceManager.from_environment()
        self._heartbeats = Heartbeats(clock)  # none is registered: the loop's own ping is the sign
        self._told: float | None = None

    def run(self) -> int:
        os.umask(0o077)
        if self._web.aws_profile is not None:
            os.environ["AWS_PROFILE"] = self._web.aws_profile  # where botocore looks, of which we make no client here
        with ExitStack() as stack:
            try:
                context = None if self._web.tls is None else tls.server_context(self._web.tls)
                listening = stack.enter_context(listen(self._web))
                record = AccessRecord(self._web.state, writing=True)
                stack.callback(record.close)
                parts = self._parts(stack, record)
                app = assemble(parts, self._doors(), record, stack)
            except DicomwatchdError as error:
                self._refuse(error)
                return FAILED
            asyncio.run(self._serve(app, record, context, listening))
        self._journal.info("web-stopped", "the web process stops")
        return DONE

    async def _serve(
        self,
        app: ASGIApp,
        record: AccessRecord,
        context: ssl.SSLContext | None,
        listening: socket.socket,
    ) -> None:
        async def tick() -> None:
            self._service.ping(self._heartbeats)
            if self._head_is_due():
                await asyncio.to_thread(self._say_head, record)

        web, proxy = self._web, self._web.proxy
        places = Places(
            web.limits.connections,
            web.limits.connections_each,
            lambda address: proxy is not None and _is_address(address) and proxy.speaks_from(ip_address(address)),
            # Without TLS whoever else came over the network would send his log-in unencrypted.
            only_the_proxy=proxy is not None and web.tls is None and not web.address[0].is_loopback,
        )
        serving = server(app, places, context, tick)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, serving)
        loop.add_signal_handler(signal.SIGHUP, self._reload, context)
        readiness = asyncio.create_task(self._say_ready(serving))
        await serving.serve(sockets=[listening])
        readiness.cancel()

    async def _say_ready(self, serving: Server) -> None:
        while not serving.started:
            await asyncio.sleep(0.02)
        self._service.ready()
        self._journal.info("web-started", "the web process listens", version=__version__)

    def _reload(self, context: ssl.SSLContext | None) -> None:
        """SIGHUP: a new certificate, for new connections. What else has changed counts with the next start."""
        self._service.reloading()
        try:
            if context is not None and self._web.tls is not None:
                tls.load(context, self._web.tls)
        except DicomwatchdError as error:
            self._journal.error(
                "web-reload-refused",
                "the web process cannot use its new certificate; the old one stays in use",
                **error_fields(error),
            )
        else:
            self._journal.info("web-reloaded", "the web process uses its certificate as it is now")
        self._service.ready()

    def _stop(self, serving: Server) -> None:
        self._service.stopping()
        serving.should_exit = True

    def _parts(self, stack: ExitStack, record: AccessRecord) -> Parts:
        """Raises DicomwatchdError."""
        archive = self._config.archive
        store, catalogue = stack.enter_context(
            factory.opened(archive.store, archive.catalogue, connections=THREADS, from_memory=True)
        )
        assert catalogue is not None  # noqa: S101  a configuration has one
        threads = stack.enter_context(ThreadPoolExecutor(THREADS, thread_name_prefix="archive"))
        pictures = stack.enter_context(ThreadPoolExecutor(PICTURES, thread_name_prefix="pictures"))
        return Parts(
            config=self._config,
            web=self._web,
            store=store,
            catalogue=catalogue,
            series=SeriesReader(store, catalogue, monotonic=self._clock.monotonic),
            audit=RecordedAccess(record, self._clock),
            threads=threads,
            pictures=pictures,
            clock=self._clock,
            log=self._journal,
        )

    def _doors(self) -> Doors:
        """Raises Misconfigured."""
        web = self._web
        cookie = Cookie(SESSION_COOKIE, secure=web.origin.startswith("https:"))
        proxy = None
        if web.proxy is not None:
            secret = None if web.proxy.secret_file is None else _secret(web.proxy.secret_file)
            proxy = ProxysWord(web.proxy, secret, lambda name, groups: known_by(web.roles, name, groups))
        return Doors(
            origin=web.origin,
            sessions=Sessions(web.sessions, self._clock),
            cookie=cookie,
            tokens=Tokens(web.state, self._clock.now, self._say_unreadable) if web.tokens else None,
            proxy=proxy,
            oidc=self._oidc(web),
            failures=Rate(web.limits.failed_logins, _FAILED_LOGIN_SECONDS, self._clock),
            requests=Rate(web.limits.requests_each_minute, 60.0, self._clock),
            log=self._journal,
        )

    def _oidc(self, web: Web) -> Oidc | None:
        """Raises Misconfigured."""
        if web.oidc is None:
            return None
        with warnings.catch_warnings(record=True):  # Authlib's, about a name of its own
            from dicomwatchd.web.login.provider import Provider
        provider = Provider(web.oidc, _secret(web.oidc.client_secret_file), web.origin + CALLBACK, self._clock)
        cookie = Cookie(LOGIN_COOKIE, secure=web.origin.startswith("https:"))
        return Oidc(provider, Signed(secrets.token_bytes(32), self._clock), cookie, web.roles)

    def _say_unreadable(self, error: StateFailed) -> None:
        self._journal.error("web-tokens-unreadable", "no token is accepted", **error_fields(error))

    def _head_is_due(self) -> bool:
        now = self._clock.monotonic()
        if self._told is not None and now - self._told < _HEAD_SECONDS:
            return False
        self._told = now
        return True

    def _say_head(self, record: AccessRecord) -> None:
        """In the log, now and again: entries that are cut off from the record's end are missed there."""
        try:
            sequence, sha256 = record.head()
        except DicomwatchdError as error:
            self._journal.error("web-access-unreadable", "the record of access cannot be read", **error_fields(error))
            return
        self._journal.info(
            "web-access-head", "the newest entry of the record of access", audit_sequence=sequence, audit_sha256=sha256
        )

    def _refuse(self, error: DicomwatchdError) -> None:
        self._journal.error("web-start-refused", "the web process cannot start", **error_fields(error))
        if sys.stderr.isatty():
            sys.stderr.write(f"dicomwatchd-web: {error}\n")


def listen(web: Web) -> socket.socket:
    """Raises Misconfigured."""
    host, port = web.address
    family = socket.AF_INET if isinstance(host, IPv4Address) else socket.AF_INET6
    both = family == socket.AF_INET6 and host.is_unspecified and socket.has_dualstack_ipv6()
    try:
        listening = socket.create_server((str(host), port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise Misconfigured(
            "cannot listen at the address of web.listen", code="web-port", hint="is another program listening there?"
        ) from error
    # Connections have it from here. asyncio sets it for sockets that name their protocol, as this one does not, and an
    # answer's body would wait 40 ms for the other end to acknowledge its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _secret(path: Path) -> str:
    """Raises Misconfigured."""
    try:
        with path.open(encoding="utf-8") as file:
            found = file.read(_SECRET_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            "a file with a secret cannot be read", code="web-secret", hint="the user dicomwatchd-web must be able to"
        ) from error
    if len(found) < 16:
        raise Misconfigured("a secret has fewer than 16 characters", code="web-secret")
    return found


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
