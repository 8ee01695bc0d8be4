"""The configuration as text: YAML to plain data, and what pydantic finds wrong to sentences with their place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from dicomwatchd.errors import ConfigError

#: Of `whole.Config`, and here for whoever needs to know no more of a configuration than where the daemon listens.
STATE_DIRECTORY = Path("/var/lib/dicomwatchd")
SOCKET_NAME = "control.sock"
#: As `queue.database.schema` calls it.
STATE_DATABASE = "state.db"

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
#: As those of `bandwidth`, which are days and times, rightly written or not.
_TIMES_KEY = re.compile(r"[A-Za-z0-9:, -]{1,64}")
_A_KEY = "a key"
#: Of pydantic's errors, those that are about a key.
_ENDS_IN_KEY = ("missing", "extra_forbidden")


def named_socket(data: Any) -> Path | None:
    """The control socket that a configuration names, in plain data that nobody has checked; None where that is not
    plain to see."""
    if not isinstance(data, dict):
        return None
    socket, state = data.get("control_socket"), data.get("state_directory", str(STATE_DIRECTORY))
    if socket is None and isinstance(state, str) and state:
        socket = f"{state}/{SOCKET_NAME}"
    return Path(socket) if isinstance(socket, str) and socket.startswith("/") else None


def plain_path(path: Path) -> Path:
    """Raises ValueError."""
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(path)):
        raise ValueError("must not hold control characters")
    return path


def read_file(path: Path) -> Any:
    """Plain data from a YAML file. Raises ConfigError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError([("", f"cannot be read: {os.strerror(error.errno or 0)}")], source=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError([("", "is not UTF-8 text")], source=str(path)) from error
    return read_yaml(text, source=str(path))


def read_yaml(text: str, *, source: str | None = None) -> Any:
    """Plain data from YAML text. Raises ConfigError, also for a key that is given twice: YAML would take the last one
    and drop an inbox without a word."""
    loader = yaml.SafeLoader("")
    written: list[tuple[str, str]] = []
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        problems = []
        for key in _repeated_keys(node):
            where, name = f"line {key.start_mark.line + 1}", _named(key.value)
            problems.append((where, f"has {name if name == _A_KEY else f'the key {name}'} a second time"))
            if name == _A_KEY:
                written.append((where, key.value))
        if not problems:
            return loader.construct_document(node) if node is not None else None
    except RecursionError as error:
        raise ConfigError([("", "is nested too deeply")], source=source) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else ""
        raise ConfigError([(where, _not_yaml(text, error))], source=source) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML's own stumbles over a value that does not fit its tag: 2026-99-99, !!timestamp x
        raise ConfigError([("", "is not valid YAML")], source=source) from error
    finally:
        loader.dispose()
    raise ConfigError(problems, source=source, paths=_joined(written))


def _not_yaml(text: str, error: yaml.YAMLError) -> str:
    """In the parser's words where they tell nothing of what is written there."""
    mark, said = getattr(error, "problem_mark", None), getattr(error, "problem", None) or ""
    # At the end of the text the mark is a line behind the last.
    line = "".join(text.splitlines()[mark.line : mark.line + 1]) if mark is not None else ""
    if "\t" in line.partition("#")[0]:
        return "is not valid YAML: it is indented with a tab, but YAML allows only spaces"
    if mark is None or not said.isascii() or any(character in said for character in "'\"\\"):
        return "is not valid YAML"
    return (
        f"is not valid YAML ({said}); look at the indentation of this line and the one above, and at colons and quotes"
    )


def problem(
    item: Any, data: dict[Any, Any], patterns: Mapping[str, str], known: Collection[str] = ()
) -> tuple[str, str]:
    """One of pydantic's errors: where in ``data`` it is, and our words for it (``patterns``: those for a regular
    expression that did not match; ``known``: every key that there is, for who has mistyped one)."""
    kind, context = item["type"], item.get("ctx", {})
    where = _where(item["loc"], data, ends_in_key=kind in _ENDS_IN_KEY)
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        where += ".kind"
    text = "must be text; put it in quotes"
    mapping = "must be a mapping"
    unknown = "is not a known key" + _meant(item["loc"][-1] if item["loc"] else "", known)
    reasons = {
        "missing": "is missing",
        "extra_forbidden": unknown,
        "invalid_key": unknown,
        "greater_than_equal": f"must be >= {context.get('ge', 0):g}",
        "greater_than": f"must be > {context.get('gt', 0):g}",
        "less_than_equal": f"must be <= {context.get('le', 0):g}",
        "finite_number": "must be a finite number",
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "string_type": text,
        "path_type": text,
        "tuple_type": "must be a list",
        "model_type": mapping,
        "dict_type": mapping,
        "model_attributes_type": mapping,
        "too_short": "must not be empty",
        "string_too_long": f"must be at most {context.get('max_length')} characters long",
        "string_pattern_mismatch": patterns.get(context.get("pattern", ""), item["msg"]),
        "literal_error": f"must be {context.get('expected')}".replace("'", ""),
        "union_tag_not_found": "is missing",
        "union_tag_invalid": f"must be {context.get('expected_tags')}".replace("'", "").replace(", ", " or "),
        "value_error": str(context.get("error")),
    }
    return where, reasons.get(kind, item["msg"])


def as_written(items: Iterable[Any], data: dict[Any, Any]) -> dict[str, str]:
    """Where in ``data`` pydantic's errors are, by the places that `problem` names; only those that leave a key out."""
    places = [
        [_where(item["loc"], data, ends_in_key=item["type"] in _ENDS_IN_KEY, named=named) for named in (_named, str)]
        for item in items
    ]
    return _joined((where, whole) for where, whole in places if where != whole)


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for where, text in pairs:
        found[where] = f"{found[where]}, {text}" if where in found else text
    return found


def _named(key: object) -> str:
    """For what may be logged: a key that nobody knows may be a path, or a name, where somebody forgot ``path:``."""
    return str(key) if _PLAIN_KEY.fullmatch(str(key)) else _A_KEY


def _meant(key: object, known: Collection[str]) -> str:
    close = get_close_matches(str(key), known, 1, 0.75)
    return f"; did you mean {close[0]}?" if close else ""


def _where(
    location: tuple[str | int, ...], data: Any, *, ends_in_key: bool, named: Callable[[object], str] = _named
) -> str:
    """The path in the file. pydantic's has the names of unions' members in it, which ``data`` has not."""
    where, current = "", data
    for index, part in enumerate(location):
        if isinstance(current, list | tuple) and isinstance(part, int):
            where += f"[{part}]"
            current = current[part] if part < len(current) else None
        elif isinstance(current, dict):
            known = part in current
            if known or (ends_in_key and index == len(location) - 1):
                name = str(part) if where == "bandwidth" and _TIMES_KEY.fullmatch(str(part)) else named(part)
                where += f".{name}" if where else name
                current = current[part] if known else None
    return where


def _repeated_keys(root: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Keys that the same mapping has before, in any mapping of the document. Anchors may make it a graph."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = set()
            for key, value in node.value:
                waiting.append(value)
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, key.value) in keys:
                        yield key
                    keys.add((key.tag, key.value))
