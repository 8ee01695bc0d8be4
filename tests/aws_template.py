"""etc/aws/archive.yaml as plain data, for tests that compare it with what the program does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).parents[1] / "etc" / "aws" / "archive.yaml"


class _Loader(yaml.SafeLoader):
    """Knows CloudFormation's short tags: `!Ref X` reads as "${X}", `!GetAtt X.Y` as "${X.Y}", others as they stand."""


def _function(loader: _Loader, name: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        text = str(loader.construct_scalar(node))
        return f"${{{text}}}" if name in ("Ref", "GetAtt") else text
    assert isinstance(node, yaml.SequenceNode)
    return {name: loader.construct_sequence(node, deep=True)}


_Loader.add_multi_constructor("!", _function)


def resources() -> dict[str, Any]:
    """Logical name -> the resource's properties."""
    template = yaml.load(PATH.read_text(), Loader=_Loader)  # a SafeLoader of our own
    return {name: resource["Properties"] for name, resource in template["Resources"].items()}


def statements(policy: str, effect: str) -> list[dict[str, Any]]:
    """The statements of one policy, each with its actions as a list."""
    found = [s for s in resources()[policy]["PolicyDocument"]["Statement"] if s["Effect"] == effect]
    return [{**s, "Action": [s["Action"]] if isinstance(s["Action"], str) else s["Action"]} for s in found]


def allowed(policy: str, service: str) -> set[str]:
    """The actions of a service that a policy allows, without the service's name."""
    actions = [action for statement in statements(policy, "Allow") for action in statement["Action"]]
    return {action.partition(":")[2] for action in actions if action.startswith(f"{service}:")}
