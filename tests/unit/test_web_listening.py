"""The port of dicomwatchd-web."""

from __future__ import annotations

import socket

from dicomwatchd.config.web import Web
from dicomwatchd.web.process import listen
from tests.servers.processes import free_port


def test_the_body_of_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    port = free_port()
    with (
        listen(Web.model_validate({"listen": f"127.0.0.1:{port}", "tokens": True})) as listening,
        socket.create_connection(("127.0.0.1", port), timeout=60),
    ):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
