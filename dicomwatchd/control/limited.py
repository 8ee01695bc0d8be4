"""What the user of the web process may ask the daemon for: no more than its pages need.

The control socket's mode says who may connect; of whoever may, only root and the daemon's own user may let it delete.
The web process speaks with browsers, so it gets less than other members of the group: whoever takes it over can neither
make the daemon try again nor cancel anything, and learns no more than the page shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dicomwatchd.control.peer import Request
from dicomwatchd.control.server import Command
from dicomwatchd.errors import Permanent

#: As the packages make it.
WEB_USER = "dicomwatchd-web"
WEB_COMMANDS = frozenset({"upload-folder", "upload-list", "upload-show", "show", "held", "attention", "prove"})


def limited(commands: Mapping[str, Command], user: str = WEB_USER) -> dict[str, Command]:
    """The commands, of which others than ``WEB_COMMANDS`` are refused to ``user``."""
    return {name: command if name in WEB_COMMANDS else _refusing(command, user) for name, command in commands.items()}


def _refusing(command: Command, user: str) -> Command:
    def ask(request: Mapping[str, Any], progress: Callable[[dict[str, Any]], None]) -> Any:
        if isinstance(request, Request) and request.asker().login == user:
            raise Permanent("the web process may not ask for that", code="not-yours")
        return command(request, progress)

    return ask
