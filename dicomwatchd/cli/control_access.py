"""How a command gets at the daemon: through the control socket that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dicomwatchd.cli.app import Invocation
from dicomwatchd.control_client import ControlClient
from dicomwatchd.errors import ConfigError

_Function = TypeVar("_Function", bound=Callable[..., Any])


def socket_option(function: _Function) -> _Function:
    return click.option(
        "--socket",
        "socket_path",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The daemon's control socket; no configuration is read then.",
    )(function)


def client(invocation: Invocation, socket_path: Path | None) -> ControlClient:
    """Raises ConfigError when the configuration is needed and cannot be used."""
    if socket_path is not None:
        return ControlClient(socket_path)
    from dicomwatchd import config

    try:
        return ControlClient(config.load(invocation.config_path).socket_path)
    except ConfigError as error:
        error.hint = "--config FILE names another one; --socket FILE does without"
        raise
