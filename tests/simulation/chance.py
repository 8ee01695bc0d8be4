"""What a seed decides, the virtual time, and the hook through which everything else happens in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any, ClassVar, Protocol, TypeVar

from dicomwatchd.pipeline.shipment import Bundling

#: Virtual now starts far ahead of the real time that the kernel stamps files with, so that every file looks old.
BASE_SECONDS = 2_200_000_000.0


class Killed(BaseException):
    """The simulated process is gone. Nothing may catch it, and nothing works until it is started again."""


class Violation(BaseException):
    """An invariant does not hold. No part of the program may take it for an error of its own, and go on; one in whose
    place another error has come, in a `finally`, is raised again by the story (see `raised`)."""

    raised: ClassVar[list[Violation]] = []

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.raised.append(self)


class VirtualClock:
    def __init__(self) -> None:
        self._monotonic = 1000.0
        self._offset = BASE_SECONDS

    def now(self) -> float:
        return self._offset + self._monotonic

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock; the monotonic one does not notice."""
        self._offset += seconds


@dataclass(frozen=True)
class Plan:
    """What kind of world a seed makes."""

    inboxes: int
    leases: bool
    settle_seconds: float
    trust_ctime: bool
    full_look: bool
    quiet_seconds: float
    #: For each inbox: 0 deletes at once, None keeps for good, other numbers keep for so many seconds.
    keep_seconds: tuple[float | None, ...]
    etag_is_content: bool
    checksum_on_head: bool
    versions: bool
    single_put_bytes: int
    studies: int
    steps: int
    transient_rate: float
    damage_rate: float
    kill_rate: float
    actor_rate: float
    jumps: bool
    sends_early: bool
    #: None: each instance is an object of its own. The instances here have some 600 bytes.
    bundling: Bundling | None

    @classmethod
    def drawn(cls, random: Random, layout: Random) -> Plan:
        inboxes = 1 + (random.random() < 0.5)
        leases = random.random() < 0.7
        # Without leases nothing but the settling tells of a slow writer, and none is let loose then.
        return cls(
            inboxes=inboxes,
            leases=leases,
            settle_seconds=random.choice((0.0, 0.0, 2.0)),
            trust_ctime=random.random() < 0.7,
            full_look=random.random() < 0.3,
            quiet_seconds=random.choice((0.0, 5.0, 60.0)),
            keep_seconds=tuple(random.choice((0.0, 0.0, 0.0, None, 100.0)) for _ in range(inboxes)),
            etag_is_content=random.random() < 0.6,
            checksum_on_head=random.random() < 0.3,
            versions=random.random() < 0.3,
            single_put_bytes=random.choice((1 << 20, 1 << 20, 200)),
            studies=random.randint(1, 3),
            steps=random.randint(10, 24),
            transient_rate=random.choice((0.0, 0.02, 0.05, 0.15)),
            damage_rate=random.choice((0.0, 0.05, 0.2)),
            kill_rate=random.choice((0.0, 0.002, 0.01, 0.03)),
            actor_rate=random.choice((0.0, 0.03, 0.1, 0.2)),
            jumps=random.random() < 0.3,
            sends_early=random.random() < 0.6,
            bundling=Bundling(layout.choice((600, 4096)), layout.choice((2500, 3500, 16_000)))
            if layout.random() < 0.4
            else None,
        )


@dataclass(frozen=True)
class More:
    """What else there may be in a world. Drawn from a number of its own: a seed's world is otherwise what it was."""

    daemons: int
    #: Whether the inboxes' file system knows a rename that replaces nothing.
    strict_rename: bool
    #: Folders are handed in.
    uploads: bool
    #: Somebody deletes and overwrites objects of a versioned store.
    meddles: bool
    #: Inboxes are mounted anew, under other device numbers.
    remounts: bool
    #: Inboxes hang for a time.
    hangs: bool
    #: Some studies are answered with an error for ever, in the end.
    poisoned: bool
    #: How long the store may take for an answer.
    slow_seconds: float
    #: Time passes by days, for months.
    months: bool
    #: A rule of the bucket would end objects, now and then; and whether the daemons may read the rules.
    expires: bool
    may_read_rules: bool
    #: The record of deletions is published and sealed, and what is old is pruned.
    upkeep: bool
    #: The daemons get on with their work in the midst of it all, and others come in where it hurts most.
    busy: bool
    #: One small folder of images after the other is handed in.
    small_uploads: bool
    #: Somebody releases the studies that are held because their files name two patients.
    releases: bool
    #: What the probe has shown of the store: `Capabilities` of the same names.
    etag_follows_content: bool
    lists_versions: bool
    etag_follows_parts: bool

    @classmethod
    def drawn(cls, random: Random, plan: Plan) -> More:
        return cls(
            daemons=1 + (random.random() < 0.12),
            strict_rename=random.random() < 0.8,
            uploads=random.random() < 0.2,
            meddles=random.random() < 0.7 and plan.versions and None not in plan.keep_seconds,
            remounts=random.random() < 0.15,
            slow_seconds=random.choice((0.0,) * 9 + (600.0,)),
            months=random.random() < 0.015,
            hangs=random.random() < 0.15,
            poisoned=random.random() < 0.025,
            # Where they are asked for: see test_simulation.RARE.
            expires=False,
            may_read_rules=random.random() < 0.6,
            upkeep=False,
            busy=False,
            small_uploads=False,
            releases=random.random() < 0.5,
            etag_follows_content=random.random() < 0.5,
            lists_versions=random.random() < 0.5,
            etag_follows_parts=random.random() < 0.5,
        )


@dataclass
class Trace:
    """What happened, in order. Holds nothing that two runs of a seed may differ in."""

    keep: bool = False
    tell: Callable[[str], None] | None = None
    count: int = 0
    lines: list[str] = field(default_factory=list)
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, *words: object) -> None:
        line = " ".join(map(str, words))
        self.count += 1
        self._hash.update(line.encode() + b"\n")
        if self.keep:
            self.lines.append(line)
        if self.tell is not None:
            self.tell(line)

    def digest(self) -> str:
        return self._hash.hexdigest()


_World = TypeVar("_World", Plan, More)


def _forced(drawn: _World, forced: Mapping[str, Any]) -> _World:
    names = {part.name for part in fields(drawn)}
    return replace(drawn, **{name: value for name, value in forced.items() if name in names})


class Mortal(Protocol):
    """A process that may be killed."""

    dead: bool


class Fate:
    """Draws what goes wrong and what happens in between. `at` is called by everything simulated at each of its
    calls; ``act`` is then what may happen meanwhile."""

    def __init__(self, seed: int, trace: Trace, forced: Mapping[str, Any] | None = None) -> None:
        """``forced`` are parts of the plan that are not left to the seed."""
        self.random = Random(f"world {seed}")
        # The layout from a number of its own: the world of a seed is the same in both.
        plan = Plan.drawn(self.random, Random(f"layout {seed}"))
        self.plan = _forced(plan, forced or {})
        self.more = _forced(More.drawn(Random(f"more {seed}"), self.plan), forced or {})
        self.clock = VirtualClock()
        self.trace = trace
        self.poisoned: tuple[str, ...] = ()  # beginnings of keys that the store has nothing but trouble with
        self.at_work: list[Mortal] = []  # the processes that are in the midst of a call, the innermost last
        self.calm = False  # from now on nothing goes wrong any more
        self.kills = self.faults = self.hooks = 0
        self.act: Callable[[], None] = lambda: None
        self._acting = 0

    def at(self, place: str, *, actors: bool = True, hot: bool = False) -> None:
        """Somebody is at this place of the code: time passes, others act, the process may be killed here; more often
        where it is ``hot``."""
        if not self.at_work or self.at_work[-1].dead:  # nobody: what a dead one has left, and is cleared away
            raise Killed(place)
        who = self.at_work[-1]
        self.hooks += 1
        self.trace.add("at", place)
        self.clock.advance(0.01)
        if self.calm:
            return
        rate = 5.0 if hot else 1.0
        if actors and self._acting < 2 and self.random.random() < self.plan.actor_rate * rate:
            self._acting += 1
            try:
                self.act()
            finally:
                self._acting -= 1
        if self.random.random() < self.plan.kill_rate * rate:
            who.dead = True
            self.kills += 1
            self.trace.add("killed", place)
            raise Killed(place)

    def strikes(self, what: str, rate: float) -> bool:
        """Whether this fault happens here."""
        if self.calm or not rate or self.random.random() >= rate:
            return False
        self.faults += 1
        self.trace.add("fault", what)
        return True
