"""A receiver's port: who is let in, how many at once, and for how long somebody may stay who says nothing.

Each connection has a thread of its own, whose first seconds count: whoever has not asked for an association by then is
gone. Those who wait take places that associations do not need, few for each address, so that a thousand connections
from one cost the others nothing.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address, ip_address

from dicomwatchd.config.receivers import Receiver
from dicomwatchd.errors import Misconfigured
from dicomwatchd.ports import Clock, Log
from dicomwatchd.receiver import association
from dicomwatchd.receiver.association import Address, AssociationRequest, BadRequest, Rejection
from dicomwatchd.receiver.commitment import SYNTAXES, Taking
from dicomwatchd.receiver.folder import InboxFolder
from dicomwatchd.receiver.storage import Provider, Tally
from dicomwatchd.receiver.upper_layer import INVALID_PARAMETER, ConnectionOver, UpperLayer

#: TLS and A-ASSOCIATE-RQ, each (PS3.8 section 9.1.5, ARTIM).
ASSOCIATE_WITHIN_SECONDS = 10.0
#: Connections without an association: in all, and of one address.
WAITING_MOST, WAITING_MOST_OF_ONE = 128, 32
_BACKLOG = 128
#: How often the port looks whether it is to close.
_LOOK_SECONDS = 1.0
#: What a peer that was told no, or that ends, has to close its side.
_LINGER_SECONDS = 1.0
#: The kernel has no room for another connection.
_NO_CONNECTION = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Stopping:
    """The receiver's end, for all connections; and how many there are. Safe to be called from any thread."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def run(self, thread: threading.Thread) -> None:
        """Start a connection's thread. Raises RuntimeError where the system has none left."""
        with self._lock:
            self._threads = {one for one in self._threads if one.is_alive()}
            thread.start()
            self._threads.add(thread)

    def wait(self, seconds: float, clock: Clock) -> bool:
        """Whether all connections have ended in that time."""
        until = clock.monotonic() + seconds
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, until - clock.monotonic()))
        return not any(thread.is_alive() for thread in threads)


class _Places:
    """Who is here: without an association yet, and with one."""

    def __init__(self, associations: int) -> None:
        self._most = associations
        self._lock = threading.Lock()
        self._waiting: Counter[Address] = Counter()
        self._associated = 0

    def wait(self, address: Address) -> bool:
        with self._lock:
            if self._waiting.total() >= WAITING_MOST or self._waiting[address] >= WAITING_MOST_OF_ONE:
                return False
            self._waiting[address] += 1
            return True

    def waits_no_more(self, address: Address) -> None:
        with self._lock:
            self._waiting[address] -= 1
            self._waiting += Counter()  # nobody with nothing

    @contextmanager
    def associated(self) -> Iterator[bool]:
        """Whether there is a place; it is kept until the end of the context."""
        with self._lock:
            has_place = self._associated < self._most
            self._associated += has_place
        try:
            yield has_place
        finally:
            with self._lock:
                self._associated -= has_place


class Listener:
    """One receiver at its port. Raises Misconfigured where it cannot listen there."""

    def __init__(
        self,
        settings: Receiver,
        folder: InboxFolder,
        tls: ssl.SSLContext | None,
        commitments: Taking | None,
        stopping: Stopping,
        log: Log,
        clock: Clock,
    ) -> None:
        self.settings, self._folder, self._tls, self._commitments = settings, folder, tls, commitments
        self._stopping, self._log, self._clock = stopping, log, clock
        self._places = _Places(settings.max_associations)
        self._closed = threading.Event()
        host, port = settings.address
        try:
            self._socket = socket.create_server(
                (str(host), port),
                family=socket.AF_INET6 if host.version == 6 else socket.AF_INET,
                backlog=_BACKLOG,
                dualstack_ipv6=host.version == 6 and host.is_unspecified,
            )
        except OSError as error:
            raise Misconfigured(
                "a receiver cannot listen at its address",
                code="receiver-listen",
                hint="another program may have the port, or the address is not this machine's",
            ) from error
        self._socket.settimeout(_LOOK_SECONDS)
        self._thread = threading.Thread(target=self._accept, name=f"listen-{settings.name}", daemon=True)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Nobody else is let in; who has an association keeps it."""
        self._closed.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(2 * _LOOK_SECONDS)
        self._socket.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, name = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if error.errno in _NO_CONNECTION:
                    self._closed.wait(_LOOK_SECONDS)
                # What else there is, is of the connection that did not come about (accept(2)), or of the end.
                continue
            self._admit(connection, _address(name[0]))

    def _admit(self, connection: socket.socket, address: Address) -> None:
        if not association.may_connect(self.settings.allow, address):
            self._say_refused("address", address)
        elif not self._places.wait(address):
            self._say_refused("too-many-connections", address)
        else:
            thread = threading.Thread(target=self._serve, args=(connection, address), name="association", daemon=True)
            try:
                self._stopping.run(thread)
                return
            except RuntimeError:  # the system has no thread left
                self._places.waits_no_more(address)
                self._say_refused("too-many-connections", address)
        connection.close()

    # -- one connection, in its thread ------------------------------------------------------------------------------

    def _serve(self, plain: socket.socket, address: Address) -> None:
        connection = plain
        waiting = True
        try:
            connection = self._secured(plain)
            wire = UpperLayer(
                connection,
                self._clock,
                pdu_bytes=self.settings.max_pdu_bytes,
                idle_seconds=self.settings.idle_seconds,
                stopping=self._stopping.event.is_set,
            )
            try:
                request = AssociationRequest(wire.associate_request(ASSOCIATE_WITHIN_SECONDS))
                with self._places.associated() as has_place:
                    self._places.waits_no_more(address)
                    waiting = False
                    self._associate(wire, request, address, has_place)
            except BadRequest:
                self._say_refused("no-dicom", address)
                self._end(wire, INVALID_PARAMETER)
            except ConnectionOver as over:
                self._say_refused(over.reason, address)
                self._end(wire, over.abort)
        except OSError:
            self._say_refused("tls", address)  # ssl.SSLError is one
        finally:
            _close(connection, self._clock)
            if waiting:
                self._places.waits_no_more(address)

    def _secured(self, plain: socket.socket) -> socket.socket:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.settimeout(ASSOCIATE_WITHIN_SECONDS)
        if self._tls is None:
            return plain
        secured = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        try:
            secured.do_handshake()
        except OSError:
            secured.close()  # `plain` has nothing to close any more
            raise
        return secured

    def _associate(self, wire: UpperLayer, request: AssociationRequest, address: Address, has_place: bool) -> None:
        """Raises ConnectionOver, BadRequest before there is an association."""
        rejection = self._rejection(request, address, has_place)
        commitments = self._commitments
        offered = commitments is not None and commitments.offered_to(request.calling)
        answer, contexts = (
            (b"", {}) if rejection else request.accepted(self.settings.max_pdu_bytes, SYNTAXES if offered else ())
        )
        if rejection is None and not contexts:
            rejection = association.NO_CONTEXT
        if rejection is not None:
            self._say_refused(rejection.reason, address, request.calling)
            wire.send(rejection.pdu())
            return
        tally, since, end = Tally(), self._clock.monotonic(), "released"
        try:
            wire.send(answer)
            Provider(wire, contexts, request.calling, self._folder, tally, commitments).serve()
        except ConnectionOver as over:
            end = over.reason
            self._end(wire, over.abort)
        finally:
            self._say_ended(wire, tally, request.calling, address, end, self._clock.monotonic() - since)

    def _rejection(self, request: AssociationRequest, address: Address, has_place: bool) -> Rejection | None:
        if request.called != self.settings.ae_title:
            return association.CALLED_NOT_RECOGNISED
        if not association.may_associate(self.settings.allow, address, request.calling):
            return association.CALLING_NOT_RECOGNISED
        if self._stopping.event.is_set():
            return association.STOPPING
        return None if has_place else association.TOO_MANY

    def _end(self, wire: UpperLayer, abort: int | None) -> None:
        if abort is not None:
            with suppress(ConnectionOver):
                wire.send_abort(abort)

    # -- said -------------------------------------------------------------------------------------------------------

    def _say_refused(self, reason: str, address: Address, calling: str = "") -> None:
        self._log.warning(
            "association-refused",
            "a connection to a receiver was refused, or ended before there was an association",
            receiver=self.settings.name,
            peer=str(address),
            calling_ae_title=association.shown(calling),
            reason=reason,
        )

    def _say_ended(
        self, wire: UpperLayer, tally: Tally, calling: str, address: Address, end: str, seconds: float
    ) -> None:
        fields = {
            "receiver": self.settings.name,
            "peer": str(address),
            "calling_ae_title": association.shown(calling),
            "reason": end,
            "files": tally.stored,
            "refused_files": tally.refused,
            "code": tally.problem,
            "errno": tally.errno,
            "bytes": wire.received_bytes,
            "seconds": seconds,
        }
        if end == "released" and not tally.refused:
            self._log.info("association-ended", "an association has ended: {files} objects stored", **fields)
        else:
            self._log.warning(
                "association-ended",
                "an association has ended: {files} objects stored, {refused_files} refused, {reason}",
                **fields,
            )


def _address(text: str) -> Address:
    found = ip_address(text.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _close(connection: socket.socket, clock: Clock) -> None:
    """So that what was sent last, a rejection or an abort, reaches the peer, although it may have sent more than was
    read: a connection with unread bytes is reset."""
    until = clock.monotonic() + _LINGER_SECONDS
    with suppress(OSError):
        if not isinstance(connection, ssl.SSLSocket):
            connection.shutdown(socket.SHUT_WR)
            while (left := until - clock.monotonic()) > 0:
                connection.settimeout(left)
                if not connection.recv(64 * 1024):
                    break
    connection.close()
