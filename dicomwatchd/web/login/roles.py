"""From what a proxy or a provider says of somebody, and from a token, to a person with roles."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import normalize

from dicomwatchd.access.tokens import Token
from dicomwatchd.config.web import EVERYBODY, WebRoles
from dicomwatchd.web.people import Person, Role

#: Before the name of a token, so that no person of the directory can pass for one.
TOKEN = "token:"  # noqa: S105
_MOST_CHARACTERS = 128


def known_by(roles: WebRoles, name: str, groups: Sequence[str]) -> Person | None:
    """None for what is no name of a person: empty, too long, with characters that are not seen, or a token's, also one
    that only looks like it. Of the ways that Unicode has to write a letter with its accent the person gets one, so that
    he is one in the record of access, whichever way he has come."""
    name = normalize("NFC", name)
    if not name or len(name) > _MOST_CHARACTERS or not name.isprintable() or name != name.strip():
        return None
    if normalize("NFKC", name).casefold().startswith(TOKEN):
        return None
    has = {*(normalize("NFC", one) for one in groups), EVERYBODY}
    granted = {Role.READ: roles.read, Role.UPLOAD: roles.upload, Role.ADMINISTRATE: roles.administrate}
    return Person(
        name, frozenset(role for role, wanted in granted.items() if has & {normalize("NFC", one) for one in wanted})
    )


def of_token(token: Token) -> Person:
    return Person(TOKEN + token.name, frozenset(Role(one) for one in token.roles))
