"""Whether others on this machine may read the keys of the archive, or change what the daemon trusts: modes, owners."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from dicomwatchd.config.archive import DynamoDBSettings, S3Settings
from dicomwatchd.config.whole import Config
from dicomwatchd.unit import drop_in

#: (subject, outcome, detail), as the doctor's findings.
Found = tuple[str, str, str]

_PRIVATE_KEY = b"PRIVATE KEY-----"
_CA_FILE_MAX_BYTES = 4 << 20


def findings(config: Config, environment: Mapping[str, str]) -> Iterator[Found]:
    """Of every file with keys that this machine's service or this process would use, and of the CA's certificates.
    What may not be looked at from here is nobody's finding: then others may not either."""
    if not any(True for _ in drop_in.endpoints(config)):
        return  # an archive in a folder needs no keys
    for path in _key_files(environment):
        yield from _secret(path)
    yield from _in_the_environment(environment)
    store, catalogue = config.archive.store, config.archive.catalogue
    ca_files = {
        settings.ca_file for settings in (store, catalogue) if isinstance(settings, S3Settings | DynamoDBSettings)
    }
    for ca_file in sorted(filter(None, ca_files)):
        yield from _trusted(ca_file)


def everybody_may_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o004)
    except OSError:
        return False  # what may not be looked at from here others may not read either


def _key_files(environment: Mapping[str, str]) -> list[Path]:
    home = Path(environment.get("HOME", drop_in.HOME))
    handed_over = environment.get("CREDENTIALS_DIRECTORY")
    named = [
        drop_in.CREDENTIALS,
        drop_in.ENVIRONMENT_FILE,
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE", home / ".aws/credentials")),
        Path(environment.get("AWS_CONFIG_FILE", home / ".aws/config")),
    ]
    # What systemd hands over has the modes that systemd gives it.
    return [path for path in dict.fromkeys(named) if not (handed_over and path.is_relative_to(handed_over))]


def _secret(path: Path) -> Iterator[Found]:
    """A file with keys is root's, or of the user who asks, and nobody else may read or change it."""
    try:
        found = path.stat()
    except OSError:
        return
    subject = f"keys in {path}"
    wrong = [
        *_owner(found),
        *(["everybody may read it"] if found.st_mode & 0o004 else []),
        *(["others may change it"] if found.st_mode & 0o022 else []),
        *_folder(path),
    ]
    if wrong:
        yield subject, "bad", f"{', '.join(wrong)}: run chown root: and chmod 600 on it, then replace the keys"
    elif found.st_mode & 0o040:
        yield (
            subject,
            "note",
            f"the group {found.st_gid} may read them: chmod 600 unless all its members need them",
        )
    elif path == drop_in.ENVIRONMENT_FILE and _names_keys(path):
        yield subject, "note", f"they become part of the environment; {drop_in.CREDENTIALS} (LoadCredential=) is safer"
    else:
        yield subject, "good", "only the owner may read them"


def _names_keys(path: Path) -> bool:
    try:
        return "AWS_SECRET_ACCESS_KEY" in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False  # root's, as it should be: `_in_the_environment` sees what came of it


def _in_the_environment(environment: Mapping[str, str]) -> Iterator[Found]:
    if "AWS_SECRET_ACCESS_KEY" in environment:
        yield (
            "keys in the environment",
            "note",
            f"anyone who can inspect the process (/proc) or its memory dump can read them; {drop_in.CREDENTIALS} with"
            " LoadCredential= is safer: see docs/operations.md",
        )
    elif "INVOCATION_ID" in environment and os.access(drop_in.CREDENTIALS, os.F_OK):
        handed_over = os.path.join(environment.get("CREDENTIALS_DIRECTORY", "/nowhere"), "aws")
        if not os.access(handed_over, os.R_OK):
            yield _not_handed_over()


def _not_handed_over() -> Found:
    return (
        f"keys in {drop_in.CREDENTIALS}",
        "bad",
        "the service does not have them: run dicomwatchd-folders as root, then restart the service",
    )


def _trusted(path: Path) -> Iterator[Found]:
    """Whoever may change the CA's certificates may be the archive. They are no secret; a CA's key is one."""
    try:
        found = path.stat()
        holds_key = _PRIVATE_KEY in path.read_bytes()[:_CA_FILE_MAX_BYTES]
    except OSError:
        return  # whoever connects says so
    subject = f"ca_file {path}"
    wrong = [
        *_owner(found),
        *(["others may change it"] if found.st_mode & 0o022 else []),
        *_folder(path),
        *(["it holds a private key, which the daemon does not need; remove it"] if holds_key else []),
    ]
    if wrong:
        yield subject, "bad", ", ".join(wrong)
    else:
        yield subject, "good", "only its owner may change it"


def _owner(found: os.stat_result) -> list[str]:
    return [] if found.st_uid in (0, os.geteuid()) else [f"it belongs to user {found.st_uid}"]


def _folder(path: Path) -> list[str]:
    """Who may write in the folder puts another file in its place."""
    try:
        found = path.resolve().parent.stat()
    except OSError:
        return []
    shared = found.st_mode & (stat.S_IWOTH | stat.S_IWGRP) and not found.st_mode & stat.S_ISVTX
    return ["others may replace it with another file"] if shared or _owner(found) else []
