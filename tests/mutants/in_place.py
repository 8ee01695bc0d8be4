"""Puts a mutation into a program that is loaded already: where it changes the bodies of functions and nothing else,
each function of that text gets the changed code. What is run at the import (constants, defaults, decorators, classes)
must be the same in both, for it is over; a module that has a part of it changed has to be loaded anew.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from dataclasses import dataclass
from inspect import CO_OPTIMIZED
from types import CodeType, FunctionType

#: All of a code object but its constants, its names' places in the text, and the numbers of its lines.
_PARTS = (
    "co_name",
    "co_qualname",
    "co_code",
    "co_exceptiontable",
    "co_flags",
    "co_argcount",
    "co_kwonlyargcount",
    "co_posonlyargcount",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
)
#: File, qualified name, first line.
_Place = tuple[str, str, int]


class NotInPlace(Exception):
    """The mutation changes more than bodies of functions that are there."""


@dataclass(frozen=True)
class Swap:
    """Functions, and the code that they get."""

    functions: tuple[tuple[FunctionType, CodeType], ...]

    def make(self) -> None:
        for function, code in self.functions:
            function.__code__ = code


class Loaded:
    """All functions that there are, by where they were written. To be made before `gc.freeze`, which hides them."""

    def __init__(self) -> None:
        self._functions: dict[_Place, list[FunctionType]] = defaultdict(list)
        for function in gc.get_objects():
            if type(function) is FunctionType:
                self._functions[_place(function.__code__)].append(function)

    def swap(self, path: str, source: str, changed: str) -> Swap:
        """What makes ``changed`` of ``source``, the text of the file that is loaded. Raises NotInPlace."""
        before, after = (compile(text, path, "exec", dont_inherit=True) for text in (source, changed))
        swaps: list[tuple[FunctionType, CodeType]] = []
        for old, new in _differing_functions(before, after):
            if not self._loaded(old):
                raise NotInPlace(f"{old.co_qualname} is gone: it was run at the import, or stands in another's place")
            swaps += self._swaps(old, new)
        if not swaps:
            raise NotInPlace("no function differs")
        return Swap(tuple(swaps))

    def _loaded(self, code: CodeType) -> list[FunctionType]:
        functions = self._functions.get(_place(code), [])
        if not all(_same(function.__code__, code) for function in functions):
            raise NotInPlace(f"{code.co_qualname} is not the function that is loaded")
        return functions

    def _swaps(self, old: CodeType, new: CodeType) -> list[tuple[FunctionType, CodeType]]:
        """Of functions with this code, and of those that one that has run has made within it."""
        if _same(old, new):
            return []
        functions = self._loaded(old)
        if functions and (old.co_name, old.co_freevars) != (new.co_name, new.co_freevars):
            raise NotInPlace(f"{old.co_qualname} is another function, or needs other variables of what is around it")
        swaps = [(function, new) for function in functions]
        within, now_within = ([one for one in code.co_consts if isinstance(one, CodeType)] for code in (old, new))
        for number, one in enumerate(within):
            if number < len(now_within):
                swaps += self._swaps(one, now_within[number])
            elif self._loaded(one):
                raise NotInPlace(f"{one.co_qualname} is not there any more")
        return swaps


def _place(code: CodeType) -> _Place:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _differing_functions(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]]:
    """Of a module, or of a class in it. Raises NotInPlace where what is run at the import differs."""
    if not _same_but_constants(old, new):
        raise NotInPlace(f"{old.co_qualname} itself is changed")
    found = []
    for one, other in zip(old.co_consts, new.co_consts, strict=True):
        if not isinstance(one, CodeType) or not isinstance(other, CodeType):
            if not _same_constant(one, other):
                raise NotInPlace(f"a constant of {old.co_qualname} is changed")
        elif not one.co_flags & CO_OPTIMIZED:  # the body of a class
            found += _differing_functions(one, other)
        elif not _same(one, other):
            found.append((one, other))
    return found


def _same(old: CodeType, new: CodeType) -> bool:
    return _same_but_constants(old, new) and all(map(_same_constant, old.co_consts, new.co_consts))


def _same_but_constants(old: CodeType, new: CodeType) -> bool:
    same = all(getattr(old, part) == getattr(new, part) for part in _PARTS)
    return same and len(old.co_consts) == len(new.co_consts)


def _same_constant(one: object, other: object) -> bool:
    if isinstance(one, CodeType) and isinstance(other, CodeType):
        return _same(one, other)
    return type(one) is type(other) and repr(one) == repr(other)  # 1, 1.0 and True are equal
