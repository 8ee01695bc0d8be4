"""How a command gets at the daemon: through the control socket that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dicomwatchd.cli.app import Invocation
from dicomwatchd.cli.terminal import output
from dicomwatchd.control.client import ControlClient, DaemonNotRunning
from dicomwatchd.errors import ConfigError, Fatal

_Function = TypeVar("_Function", bound=Callable[..., Any])


def socket_option(function: _Function) -> _Function:
    return click.option(
        "--socket",
        "socket_path",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The daemon's control socket; the configuration is then not read.",
    )(function)


def client(invocation: Invocation, socket_path: Path | None) -> ControlClient:
    """Raises ConfigError when the configuration is needed and cannot be used."""
    try:
        return ControlClient(socket_path or _configured_socket(invocation.config_path))
    except ConfigError as error:
        error.hint = "use --config FILE for another one, or --socket FILE for none"
        raise


def _configured_socket(config_path: Path) -> Path:
    """The socket that the configuration names. Only where none is there is the configuration checked, which takes
    longer than all the rest of a command that asks the daemon: it is to say what is wrong. Raises ConfigError."""
    from dicomwatchd.config.text import named_socket, read_file

    data = read_file(config_path)
    named = named_socket(data)
    if named is not None and _is_socket(named):
        return named
    from dicomwatchd.config import loading

    return loading.parse(data, source=str(config_path)).socket_path


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except OSError:
        return False  # a folder above may not be entered


def ask(
    invocation: Invocation,
    socket_path: Path | None,
    command: str,
    note: Callable[[str], None] = output.note,
    answer_seconds: float = 30.0,
    **arguments: Any,
) -> Any:
    """The answer to a command that only reads: the daemon's or, while it is not running, what its state says, which
    ``note`` is told.

    Raises DaemonUnreachable where there is neither, ConfigError, DaemonRefused.
    """
    connection = client(invocation, socket_path)
    try:
        return connection.call(command, answer_seconds=answer_seconds, **arguments)
    except DaemonNotRunning as unreachable:
        if socket_path is not None:
            raise
        answer = _from_the_state(invocation, command, arguments, unreachable)
        note("the daemon is not running; this is its last saved state")
        return answer


def _from_the_state(
    invocation: Invocation, command: str, arguments: dict[str, Any], unreachable: DaemonNotRunning
) -> Any:
    from dicomwatchd.archive.factory import open_store
    from dicomwatchd.audit.proving import Prover
    from dicomwatchd.config import loading
    from dicomwatchd.daemon.commands import reading
    from dicomwatchd.ports import SystemClock
    from dicomwatchd.queue import open_queue_to_read
    from dicomwatchd.unit.receivers import names_by_inbox

    loaded = loading.load(invocation.config_path)
    try:
        queue = open_queue_to_read(loaded.state_directory, SystemClock())
    except (OSError, Fatal) as error:
        raise unreachable from error
    if queue is None:
        raise unreachable

    store = open_store(loaded.archive.store, connections=2)
    try:
        prover = Prover(queue.audit, queue.segments, store, queue.binding.archive_id() or "")
        return reading(queue, prover, names_by_inbox(loaded))[command](arguments, lambda _progress: None)
    finally:
        queue.close()
        store.close()
