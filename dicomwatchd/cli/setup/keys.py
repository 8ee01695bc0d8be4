"""Where keys of the archive are read from: this person's own for making it, the service's for everything after.

None is ever asked for, printed, or written down here: keys are put where systemd or the AWS chain reads them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dicomwatchd.cli.setup.machine import Machine
from dicomwatchd.unit import drop_in

if TYPE_CHECKING:
    from botocore.session import Session

_OWN_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
#: What would be preferred to the service's file by whoever has it in the environment.
_NOT_THE_SERVICES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
)
_FILE = "AWS_SHARED_CREDENTIALS_FILE"

WHERE_THIS_PERSONS = (
    "put keys that may create a bucket and a table into ~/.aws/credentials ([default]) of the user who runs setup, or"
    " log in with a profile or role (AWS_PROFILE)"
)
WHERE_THE_SERVICES = (
    f"give the service keys: install -m 0600 /dev/null {drop_in.CREDENTIALS}, then write [default],"
    f" aws_access_key_id = ... and aws_secret_access_key = ... to it; or use the instance's role, or a profile with"
    f" credential_process in {drop_in.HOME}/.aws/config. See Keys of the service in docs/operations.md"
)


def borrowed(machine: Machine) -> tuple[str, ...]:
    """What stands before a command of this person's who has no keys: those of the service, if they may be read."""
    has_own = any(machine.environment.get(name) for name in _OWN_VARIABLES)
    has_profile = any((machine.home / ".aws" / name).exists() for name in ("credentials", "config"))
    if has_own or has_profile or not os.access(drop_in.CREDENTIALS, os.R_OK):
        return ()
    return ("env", f"{_FILE}={drop_in.CREDENTIALS}")


def session(machine: Machine) -> Session:
    """Of the same keys, in this process."""
    from dicomwatchd.archive.aws.clients import new_session

    made = new_session()
    if borrowed(machine):
        made.set_config_variable("credentials_file", str(drop_in.CREDENTIALS))
    return made


def as_the_service() -> tuple[str, ...] | None:
    """What stands before a command so that it has the service's keys and none of this person's; None where those are
    variables in the service's environment file, which only systemd reads."""
    if os.access(drop_in.ENVIRONMENT_FILE, os.F_OK) and not os.access(drop_in.CREDENTIALS, os.F_OK):
        return None
    without = [word for name in _NOT_THE_SERVICES for word in ("-u", name)]
    if os.access(drop_in.CREDENTIALS, os.F_OK):
        return ("env", *without, f"HOME={drop_in.HOME}", f"{_FILE}={drop_in.CREDENTIALS}")
    return ("env", *without, "-u", _FILE, "-u", "AWS_CONFIG_FILE", f"HOME={drop_in.HOME}")
