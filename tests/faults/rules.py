"""What a fault is, which requests it meets, and what the proxy remembers of each request."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, unquote, urlsplit


class Fault(StrEnum):
    """What the proxy does to a request. "Committed" means that the server has done what it was asked."""

    DELAY = "delay"  # for the rule's seconds, or until it is taken away
    RESET_BEFORE = "reset-before"  # the server never sees it
    RESET_AFTER = "reset-after"  # committed, the answer is lost
    CUT_REQUEST = "cut-request"  # the server gets half of the body
    CORRUPT_REQUEST = "corrupt-request"  # one byte of the body is another one
    CUT_RESPONSE = "cut-response"  # committed, half of the answer's body arrives
    CORRUPT_RESPONSE = "corrupt-response"  # committed, one byte of the answer's body is another one
    ERROR_500 = "500"
    SLOW_DOWN = "503-slow-down"
    CONFLICT = "409"
    PRECONDITION = "412"
    EXPIRED_TOKEN = "403-expired-token"
    CLOCK_SKEW = "403-clock-skew"
    UNKNOWN_KEY = "403-unknown-key"
    THROTTLED = "400-throttled"  # DynamoDB's ProvisionedThroughputExceededException
    ERROR_IN_200 = "error-in-200"  # CompleteMultipartUpload: status 200, the body says that it failed
    NO_ENCRYPTION_ECHO = "no-encryption-echo"  # committed, the answer says nothing of encryption
    WRONG_SIZE = "wrong-size"  # HEAD: Content-Length; LIST: Size
    WRONG_ETAG = "wrong-etag"  # headers, LIST, and the answer to a completion
    WRONG_CHECKSUM = "wrong-checksum"  # headers
    NO_CHECKSUM_ECHO = "no-checksum-echo"  # committed, the answer says nothing of checksums
    ETAG_OF_KEY = "etag-of-key"  # the same: it stays when the content changes
    NOT_FOUND = "404"  # without asking the server
    DELETE_MARKER = "404-delete-marker"  # the same, as for an object under a delete marker
    MARKER_NAMED = "405-delete-marker"  # HEAD: as if the marker itself had been asked for
    OTHER_VERSION = "other-version"  # committed, the answer names a version that is not the current one
    EXPIRES = "expires"  # committed, the answer says when a rule will end the object
    REFUSED = "400-refused"  # for a reason that nobody knows


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule means: all given conditions hold. ``path`` is searched for in the decoded path.

    ``query``: each key must be there, with the given value unless that is None. ``target``: the operation in
    x-amz-target ("PutItem"). ``study``: what is about one study, by its key's prefix or by the key of its table item.
    """

    method: str | None = None
    path: str | None = None
    query: Mapping[str, str | None] = field(default_factory=dict)
    without_query: tuple[str, ...] = ()
    target: str | None = None
    study: str | None = None

    def __call__(self, request: Request) -> bool:
        return (
            (self.method is None or request.method == self.method)
            and (self.path is None or re.search(self.path, request.path) is not None)
            and all(k in request.query and v in (None, request.query[k]) for k, v in self.query.items())
            and not any(key in request.query for key in self.without_query)
            and (self.target is None or request.target == self.target)
            and (self.study is None or self.study == request.study)
        )


@dataclass(slots=True)
class Rule:
    """One fault, at matching requests number ``nth`` to ``nth + times - 1``. ``hits`` counts how often it struck."""

    fault: Fault
    match: Match = field(default_factory=Match)
    nth: int = 1
    times: int = 1
    seconds: float = 0.02
    seed: int = 0
    seen: int = 0
    hits: int = 0

    def strikes(self, request: Request) -> bool:
        """Counts the request when it matches; to be called under the proxy's lock."""
        if not self.match(request):
            return False
        self.seen += 1
        if not self.nth <= self.seen < self.nth + self.times:
            return False
        self.hits += 1
        return True

    def random(self) -> random.Random:
        return random.Random(f"{self.fault} {self.nth} {self.seed}")


@dataclass(slots=True)
class Request:
    """One request as it came in, and what became of it.

    ``status`` is what the client was told (0: nothing), ``server_status`` what the server said (0: it was not asked,
    or its answer did not come).
    """

    number: int
    method: str
    path: str
    query: dict[str, str]
    target: str
    size_bytes: int
    body_sha256: str  # of what the client sent
    sent_sha256: str = ""  # of what the server was sent; "" if it was sent nothing, or half of it
    status: int = 0
    server_status: int = 0
    fault: Fault | None = None
    study: str = ""  # the UID of the study that it is about

    @property
    def committed(self) -> bool:
        return 200 <= self.server_status < 300

    @property
    def operation(self) -> str:
        """A name for people: the method and what tells it from others of its kind."""
        if self.target:
            return self.target
        telling = ("uploads", "uploadId", "partNumber", "list-type", "versionId")
        extra = ",".join(key for key in telling if key in self.query)
        return f"{self.method}?{extra}" if extra else self.method


def parse_target(raw: str) -> tuple[str, dict[str, str]]:
    """(decoded path, query) of a request line's target."""
    parts = urlsplit(raw)
    return unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True))


_KEY_OF_STUDY = re.compile(r"/studies/([0-9.]+)/")
_ITEM_OF_STUDY = re.compile(rb'"pk": ?\{"S": ?"STUDY#([0-9.]+)"\}')


def study_of(path: str, query: Mapping[str, str], body: bytes) -> str:
    """The UID of the study that a request is about; "" if it is about none, or about several."""
    if found := _KEY_OF_STUDY.search(path) or _KEY_OF_STUDY.search("/" + query.get("prefix", "")):
        return found[1]
    items = set(_ITEM_OF_STUDY.findall(body))
    return items.pop().decode() if len(items) == 1 else ""


def applicable(request: Request) -> list[Fault]:
    """The faults that make sense at such a request."""
    always = [Fault.DELAY, Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.ERROR_500, Fault.REFUSED]
    if request.target:
        return [
            *always,
            Fault.CUT_RESPONSE,
            Fault.CORRUPT_RESPONSE,
            Fault.CUT_REQUEST,
            Fault.CORRUPT_REQUEST,
            Fault.THROTTLED,
            Fault.EXPIRED_TOKEN,
            Fault.CLOCK_SKEW,
        ]
    found = [
        *always,
        Fault.SLOW_DOWN,
        Fault.CONFLICT,
        Fault.PRECONDITION,
        Fault.EXPIRED_TOKEN,
        Fault.CLOCK_SKEW,
        Fault.UNKNOWN_KEY,
    ]
    if request.size_bytes:
        found += [Fault.CUT_REQUEST, Fault.CORRUPT_REQUEST]
    if request.method in ("GET", "POST"):
        found += [Fault.CUT_RESPONSE, Fault.CORRUPT_RESPONSE]
    if request.method == "HEAD":
        found += [Fault.WRONG_SIZE, Fault.WRONG_ETAG, Fault.ETAG_OF_KEY, Fault.MARKER_NAMED]
    if request.method == "HEAD" or (request.method == "GET" and not request.query):
        found += [Fault.NOT_FOUND, Fault.DELETE_MARKER]
    if request.method in ("HEAD", "PUT") or (request.method == "GET" and not request.query):
        found += [Fault.OTHER_VERSION, Fault.EXPIRES]
    if "list-type" in request.query or "versions" in request.query:
        found += [Fault.WRONG_SIZE, Fault.WRONG_ETAG, Fault.ETAG_OF_KEY]
    if request.method == "PUT":
        found += [Fault.WRONG_ETAG, Fault.ETAG_OF_KEY]
    if request.method == "PUT" or "uploads" in request.query:
        found.append(Fault.NO_ENCRYPTION_ECHO)
    if request.method == "POST" and "uploadId" in request.query:
        found += [Fault.ERROR_IN_200, Fault.WRONG_ETAG, Fault.ETAG_OF_KEY]
    if request.method in ("HEAD", "PUT") or (request.method == "POST" and "uploadId" in request.query):
        found += [Fault.WRONG_CHECKSUM, Fault.NO_CHECKSUM_ECHO]
    return found


def random_rules(seed: int, *, count: int, spread: int) -> list[Rule]:
    """``count`` faults somewhere among the next ``spread`` requests of any kind; the same seed gives the same."""
    rng = random.Random(f"faults {seed}")
    # A store that stops to encrypt ends the daemon, and one that refuses twice in a row is believed.
    healing = [fault for fault in Fault if fault not in (Fault.NO_ENCRYPTION_ECHO, Fault.REFUSED)]
    rules = [
        Rule(
            fault=rng.choice(healing),
            nth=rng.randint(1, spread),
            times=rng.choice((1, 1, 1, 3, 4)),
            seed=rng.getrandbits(16),
        )
        for _ in range(count)
    ]
    for rule in rules:
        if rule.fault is Fault.ERROR_IN_200:
            # Anywhere else it is a store that gives out other bytes, again and again: damage, and rightly called so.
            rule.match, rule.nth = Match(method="POST"), 1 + rule.nth % 3
    return rules
