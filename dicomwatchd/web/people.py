"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """``READ``: find, look at and fetch studies. ``UPLOAD``: hand in folders. ``ADMINISTRATE``: search the record of
    who has looked at what. None contains another."""

    READ = "read"
    UPLOAD = "upload"
    ADMINISTRATE = "administrate"


@dataclass(frozen=True, slots=True)
class Person:
    """``name`` is what the access audit calls whoever asks: a name of the hospital's directory, or that of a token."""

    name: str
    roles: frozenset[Role]

    def may(self, role: Role) -> bool:
        return role in self.roles
