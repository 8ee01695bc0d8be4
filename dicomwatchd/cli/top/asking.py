"""The question that `top` asks, and a daemon that does not know it."""

from __future__ import annotations

from typing import Any

from dicomwatchd.control.client import ControlClient, DaemonRefused

#: A daemon that takes longer is said not to answer; it is asked again.
_ANSWER_SECONDS = 10.0


class DaemonTooOld(DaemonRefused):
    code = "daemon-too-old"


def ask(connection: ControlClient) -> dict[str, Any]:
    """Raises DaemonUnreachable, DaemonTooOld, DaemonRefused."""
    try:
        said: dict[str, Any] = connection.call("top", answer_seconds=_ANSWER_SECONDS)
    except DaemonRefused as error:
        from dicomwatchd.control.peer import NO_SUCH_COMMAND, BadRequest

        if (error.code, error.message) == (BadRequest.code, NO_SUCH_COMMAND):
            raise DaemonTooOld(
                "this dicomwatchctl is newer than the running daemon",
                hint="restart it: systemctl restart dicomwatchd",
            ) from error
        raise
    return said
