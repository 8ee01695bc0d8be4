"""What pynetdicom raises for PDUs that nobody has checked before it: it names no errors of its own for them."""

from __future__ import annotations

import struct

FOREIGN: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    struct.error,
)
