"""Identifiers on the command line: ``-`` in the place of one reads it from standard input, one line.

What stands in the arguments of a process is for everybody on the machine to read (ps, /proc), and stays in the shell's
history: a patient's ID need not.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from dicomwatchd.errors import DicomwatchdError
from dicomwatchd.model import Uid

#: No identifier is longer; a line that is, is none.
_LONGEST_BYTES = 1024
_TAKEN = "dicomwatchd.cli.terminal.identifiers.taken"


class IdentifierType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Text that names something, as it stands or from standard input."""

    name = "identifier"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self.given(str(value), param, ctx)

    def given(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != "-":
            return value
        if ctx is not None:
            if _TAKEN in ctx.meta:
                self.fail("only one option can read standard input (-)", param, ctx)
            ctx.meta[_TAKEN] = True
        return self._line(param, ctx)

    def _line(self, param: click.Parameter | None, ctx: click.Context | None) -> str:
        line = sys.stdin.buffer.readline(_LONGEST_BYTES + 2).removesuffix(b"\n").removesuffix(b"\r")
        if not line:
            self.fail("standard input is empty; expected an identifier", param, ctx)
        if len(line) > _LONGEST_BYTES:
            self.fail("the identifier on standard input is too long", param, ctx)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            self.fail("the identifier on standard input is not UTF-8", param, ctx)


class UidType(IdentifierType):
    """A DICOM UID."""

    name = "uid"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Uid:
        try:
            return Uid(self.given(str(value), param, ctx))
        except DicomwatchdError as error:
            self.fail(error.message, param, ctx)


IDENTIFIER = IdentifierType()
UID = UidType()
