"""What IAM would answer, by iam-simulate: it evaluates identity and resource policies with all condition operators.

Amazon's own simulator wants an account. This one comes out of the npm registry, with hashes, and is kept in the user's
cache like DynamoDB Local. It is a program of the tests alone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.servers import npm
from tests.servers.processes import ServerError

_NAME: Final = "iam-simulate"
_SOURCE: Final = Path(__file__).with_name("iam_simulate")
_FILES: Final = ("package.json", "package-lock.json", "simulate.mjs")


@dataclass(frozen=True)
class Asked:
    """A request with all that the answer depends on. ``context`` has the condition keys that the request would have."""

    principal: str
    action: str
    resource: str
    context: Mapping[str, str]
    identity_policy: Mapping[str, Any]
    resource_policy: Mapping[str, Any] | None
    account: str


@dataclass(frozen=True)
class Response:
    """``by`` are the Sids of the statements that deny it, or "Implicit" where nothing allows it."""

    allowed: bool
    by: tuple[str, ...]


def simulate(asked: Iterable[Asked]) -> list[Response]:
    """Raises ServerError for what is no policy or request, also for a condition key that the action does not have."""
    simulations = [_simulation(one) for one in asked]
    try:
        done = subprocess.run(
            ["node", "simulate.mjs"],
            cwd=_program(),
            input=json.dumps(simulations),
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"node: no end after {error.timeout:.0f} s") from error
    if done.returncode != 0:
        raise ServerError(f"iam-simulate failed: {done.stderr.strip()[-2000:]}")
    answers = []
    for simulation, (result, by, ignored) in zip(simulations, json.loads(done.stdout), strict=True):
        if result not in ("Allowed", "ImplicitlyDenied", "ExplicitlyDenied") or ignored:
            raise ServerError(f"{simulation['request']}: {result} {by} {ignored}")
        answers.append(Response(result == "Allowed", tuple(by)))
    return answers


def _simulation(asked: Asked) -> dict[str, Any]:
    policies = [{"name": "identity", "policy": asked.identity_policy}] if asked.identity_policy else []
    return {
        "request": {
            "principal": asked.principal,
            "action": asked.action,
            "resource": {"resource": asked.resource, "accountId": asked.account},
            "contextVariables": {"aws:PrincipalArn": asked.principal, **asked.context},
        },
        "identityPolicies": policies,
        "serviceControlPolicies": [],
        "resourceControlPolicies": [],
        **({"resourcePolicy": asked.resource_policy} if asked.resource_policy else {}),
    }


def cache_directory() -> Path:
    """Where the program is kept between test runs; another one for each list of hashes."""
    return npm.cached(_NAME, _SOURCE, _FILES)


def _program() -> Path:
    return npm.fetched(_NAME, _SOURCE, _FILES, "19 MB")
