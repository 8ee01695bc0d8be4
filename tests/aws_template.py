"""etc/aws/archive.yaml as plain data, for tests that compare it with what the program does or ask what it allows."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).parents[1] / "etc" / "aws" / "archive.yaml"
_NO_VALUE = "${AWS::NoValue}"


class _Loader(yaml.SafeLoader):
    """Knows CloudFormation's short tags: `!Ref X` reads as "${X}", `!GetAtt X.Y` as "${X.Y}", others as they stand."""


def _function(loader: _Loader, name: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        text = str(loader.construct_scalar(node))
        return f"${{{text}}}" if name in ("Ref", "GetAtt") else text
    assert isinstance(node, yaml.SequenceNode)
    return {name: loader.construct_sequence(node, deep=True)}


_Loader.add_multi_constructor("!", _function)


@functools.cache
def _template() -> dict[str, Any]:
    """Not to be changed."""
    template: dict[str, Any] = yaml.load(PATH.read_text(), Loader=_Loader)  # a SafeLoader of our own
    return template


def parameters() -> dict[str, Any]:
    """Name -> the parameter's definition."""
    found: dict[str, Any] = copy.deepcopy(_template()["Parameters"])
    return found


def resources() -> dict[str, Any]:
    """Logical name -> the resource's properties."""
    return copy.deepcopy({name: resource["Properties"] for name, resource in _template()["Resources"].items()})


def statements(policy: str, effect: str) -> list[dict[str, Any]]:
    """The statements of one policy, each with its actions as a list; also those that a parameter has to ask for."""
    every = [s["If"][1] if "If" in s else s for s in resources()[policy]["PolicyDocument"]["Statement"]]
    found = [s for s in every if s["Effect"] == effect]
    return [{**s, "Action": [s["Action"]] if isinstance(s["Action"], str) else s["Action"]} for s in found]


def allowed(policy: str, service: str) -> set[str]:
    """The actions of a service that a policy allows, without the service's name."""
    actions = [action for statement in statements(policy, "Allow") for action in statement["Action"]]
    return {action.partition(":")[2] for action in actions if action.startswith(f"{service}:")}


ACCOUNT = "123456789012"


def built(**parameters: Any) -> dict[str, Any]:
    """Logical name -> the resource's properties, as a stack with these parameters has them. Several values: a list."""
    template = _template()
    values: dict[str, Any] = {
        "AWS::Partition": "aws",
        "AWS::Region": "eu-central-1",
        "AWS::URLSuffix": "amazonaws.com",
        "AWS::AccountId": ACCOUNT,
    }
    for name, parameter in template["Parameters"].items():
        value = parameters.pop(name, parameter.get("Default"))
        assert value is not None, f"{name} has to be given"
        several = parameter["Type"] == "CommaDelimitedList"
        values[name] = value.split(",") if several and isinstance(value, str) else value
        for one in values[name] if several else [values[name]]:
            assert re.fullmatch(parameter.get("AllowedPattern", ".*"), str(one)), f"{name}: {one}"
            assert one in parameter.get("AllowedValues", [one])
    assert not parameters, f"there is no such parameter: {parameters}"
    values["Bucket"], values["Table"] = values["BucketName"], values["TableName"]
    values["Bucket.Arn"] = f"arn:aws:s3:::{values['Bucket']}"
    values["Table.Arn"] = f"arn:aws:dynamodb:eu-central-1:{ACCOUNT}:table/{values['Table']}"
    values["Key.Arn"] = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/made-here"
    values["ReplicationRole.Arn"] = f"arn:aws:iam::{ACCOUNT}:role/copies"
    values["AccessLog"] = values["AccessLogBucketName"]
    values["AccessLog.Arn"] = f"arn:aws:s3:::{values['AccessLog']}"
    conditions = template["Conditions"]
    return {
        name: _resolved(resource["Properties"], values, conditions)
        for name, resource in template["Resources"].items()
        if "Condition" not in resource or _holds(resource["Condition"], values, conditions)
    }


def _holds(condition: Any, values: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    if isinstance(condition, str):
        return _holds(conditions[condition], values, conditions)
    ((function, arguments),) = condition.items()
    match function:
        case "Equals":
            left, right = (_resolved(argument, values, conditions) for argument in arguments)
            return bool(left == right)
        case "Not":
            return not _holds(arguments[0], values, conditions)
        case "Or":
            return any(_holds(argument, values, conditions) for argument in arguments)
    raise AssertionError(f"no such function is known here: {function}")


def _resolved(node: Any, values: Mapping[str, Any], conditions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [found for item in node if (found := _resolved(item, values, conditions)) != _NO_VALUE]
    if isinstance(node, dict):
        if set(node) == {"If"}:
            condition, then, otherwise = node["If"]
            return _resolved(then if _holds(condition, values, conditions) else otherwise, values, conditions)
        if set(node) == {"Join"}:
            between, parts = node["Join"]
            return between.join(_resolved(parts, values, conditions))
        if set(node) == {"Split"}:
            between, text = node["Split"]
            return _resolved(text, values, conditions).split(between)
        pairs = ((name, _resolved(value, values, conditions)) for name, value in node.items())
        return {name: value for name, value in pairs if value != _NO_VALUE}
    if not isinstance(node, str) or node == _NO_VALUE:
        return node
    whole = re.fullmatch(r"\$\{([^}]+)\}", node)
    if whole:
        return values[whole[1]]
    return re.sub(r"\$\{([^}]+)\}", lambda match: str(values[match[1]]), node)
