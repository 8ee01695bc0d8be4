"""The configuration: YAML in, frozen models out, every problem at once with its path in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dicomwatchd import resolved_paths
from dicomwatchd.config import alarms, destinations, metrics, receivers, web
from dicomwatchd.config.archive import CatalogueSettings, StoreSettings
from dicomwatchd.config.basics import PATTERNS, Model
from dicomwatchd.config.text import SOCKET_NAME, STATE_DATABASE, as_written, plain_path, problem, read_file
from dicomwatchd.config.whole import Config
from dicomwatchd.errors import ConfigError
from dicomwatchd.resolved_paths import ResolvedPath

DEFAULT_PATH = Path("/etc/dicomwatchd/config.yaml")

#: sun_path of sockaddr_un, less its final NUL (unix(7))
_SOCKET_PATH_MAX_BYTES = 107


def load(path: Path, *, folders: bool = False, silent: list[str] | None = None) -> Config:
    """Read and check a configuration file; ``folders``: also whether what the daemon needs on disk is there, and where
    links lead. What does not answer is let pass, and its place in the file appended to ``silent``. Without ``folders``
    no file system but the file's own is asked, so that a share that hangs holds up no command.

    Raises ConfigError with all problems.
    """
    data = read_file(path)
    if folders and isinstance(data, dict) and (refused := list(alarms.cross_checks(data, path))):
        raise ConfigError(refused, source=str(path))
    return parse(data, source=str(path), folders=folders, silent=silent)


def parse(data: Any, *, source: str | None = None, folders: bool = False, silent: list[str] | None = None) -> Config:
    """A configuration from plain data, as `load`. Raises ConfigError with all problems."""
    if not isinstance(data, dict):
        raise ConfigError([("", "must be a mapping with archive: and inboxes:")], source=source)
    # Not on the finished model: there is none when anything is wrong, and all problems are wanted at once.
    named = dict(_named_folders(data))
    found = resolved_paths.resolve(named.values()) if folders else {}
    problems = [*_cross_checks(data, found), *(_missing_folders(data, named, found) if folders else ())]
    if silent is not None:
        silent += [where for where, path in named.items() if folders and not found[path].answers]
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        errors = error.errors()
        problems[:0] = [problem(item, data, PATTERNS, _every_key()) for item in errors]
        raise ConfigError(problems, source=source, paths={**named, **as_written(errors, data)}) from error
    if problems:
        raise ConfigError(problems, source=source, paths=named)
    return config


def parse_archive(
    archive: Mapping[str, Any],
) -> tuple[StoreSettings, CatalogueSettings | None]:
    """What stands in ``archive:``, by itself, for whoever only reads; ``catalogue`` may be left out. Raises ConfigError
    with all problems."""
    # A configuration always has a catalogue; where none is asked for this one is checked and not used.
    unused = {"kind": "sqlite", "path": "/unused"}
    found = parse({"archive": {"catalogue": unused, **archive}}).archive
    return found.store, found.catalogue if "catalogue" in archive else None


def _every_key() -> set[str]:
    found, waiting = set[str](), list[type[BaseModel]]([Model])
    while waiting:
        model = waiting.pop()
        found |= model.model_fields.keys()
        waiting += model.__subclasses__()
    return found


def _named_folders(data: dict[Any, Any]) -> Iterator[tuple[str, Path]]:
    """Every path that must not lie in another: (place in the file, path). Raw data, as in `_cross_checks`."""
    inboxes = data.get("inboxes")
    boxes = [box if isinstance(box, dict) else {} for box in inboxes] if isinstance(inboxes, list | tuple) else []
    archive = data.get("archive")
    store, catalogue = (
        part if isinstance(part, dict) else {}
        for part in ((archive.get("store"), archive.get("catalogue")) if isinstance(archive, dict) else (None, None))
    )
    named = [
        *((f"inboxes[{index}].path", box.get("path")) for index, box in enumerate(boxes)),
        *receivers.commitment_folders(data),
        ("state_directory", data.get("state_directory", Config.model_fields["state_directory"].default)),
        ("control_socket", data.get("control_socket")),
        ("web.state", page.get("state", web.DEFAULT_STATE) if isinstance(page := data.get("web"), dict) else None),
        ("archive.store.path", store.get("path") if store.get("kind") == "directory" else None),
        ("archive.catalogue.path", catalogue.get("path") if catalogue.get("kind") == "sqlite" else None),
    ]
    for where, given in named:
        if isinstance(given, str | Path):
            with suppress(ValueError):
                yield where, plain_path(Path(given))


def _missing_folders(
    data: dict[Any, Any], named: dict[str, Path], found: dict[Path, ResolvedPath]
) -> Iterator[tuple[str, str]]:
    """What the daemon needs on disk and is not there."""
    if not data.get("inboxes"):
        yield "inboxes", "must name at least one inbox"
    for where, path in named.items():
        if where.startswith(("inboxes", "state_directory")) and found[path].is_folder is False:
            yield where, "is not a folder" + ("" if found[path].exists else ": no such file or folder")


def _cross_checks(data: dict[Any, Any], found: dict[Path, ResolvedPath]) -> Iterator[tuple[str, str]]:
    """What no field can see by itself. ``data`` may be anything; what is wrong in itself is passed over. ``found`` says
    where paths lead, as far as the file systems were asked."""
    inboxes = data.get("inboxes")
    boxes = [box if isinstance(box, dict) else {} for box in inboxes] if isinstance(inboxes, list | tuple) else []
    leading = {
        where: found[path].real if path in found else resolved_paths.by_text(path)
        for where, path in _named_folders(data)
    }
    of_inboxes = [(where, path) for where, path in leading.items() if where.startswith("inboxes")]
    for index, (where, path) in enumerate(of_inboxes):
        yield from ((where, f"overlaps {other}") for other, place in of_inboxes[:index] if _overlap(path, place))
    names = [box.get("name") for box in boxes]
    for index, name in enumerate(names):
        if isinstance(name, str) and names.index(name) != index:
            yield f"inboxes[{index}].name", f"is used by inboxes[{names.index(name)}] already"

    yield from destinations.cross_checks(data)
    for where, ours in leading.items():
        if not where.startswith("inboxes"):
            yield from ((where, f"overlaps {inbox}") for inbox, place in of_inboxes if _overlap(ours, place))
    catalogue, folder = leading.get("archive.catalogue.path"), leading.get("state_directory")
    if catalogue is not None and folder is not None and catalogue == folder / STATE_DATABASE:
        yield "archive.catalogue.path", "is the daemon's own state; name another file"
    state = data.get("state_directory", Config.model_fields["state_directory"].default)
    socket = data.get("control_socket")
    if socket is None and isinstance(state, str | Path):
        socket = Path(state) / SOCKET_NAME
    if isinstance(socket, str | Path) and len(str(socket).encode(errors="replace")) > _SOCKET_PATH_MAX_BYTES:
        yield "control_socket", f"is too long for a socket: at most {_SOCKET_PATH_MAX_BYTES} bytes"
    yield from receivers.cross_checks(data)
    yield from metrics.cross_checks(data)
    yield from web.cross_checks(data)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
