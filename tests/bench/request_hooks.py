"""Where the program asks its store and its catalogue: each request can be watched there, by data plane or botocore."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from botocore.client import BaseClient

from dicomwatchd.archive.stores.s3 import fast_path
from dicomwatchd.archive.stores.s3.data_plane import S3DataPlane

#: Makes the request, which is called by this name ("PutObject", "UpdateItem"), and gives its answer. The client of
#: botocore's that makes it, or None.
Watch = Callable[[str, Any, Callable[[], Any]], Any]
_Named = Callable[..., tuple[str, Any]]


def install(watch: Watch) -> None:
    """From now on, for the whole process. What is asked within a request belongs to it."""
    at = threading.local()

    def watched(named: _Named, do: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(do)
        def asked(*args: Any, **kwargs: Any) -> Any:
            if getattr(at, "work", False):
                return do(*args, **kwargs)
            at.work = True
            try:
                return watch(*named(*args, **kwargs), lambda: do(*args, **kwargs))
            finally:
                at.work = False

        return asked

    for operation, function in of_the_data_plane().items():
        setattr(fast_path, function.__name__, watched(lambda *_, said=operation, **__: (said, None), function))
    S3DataPlane.get = watched(lambda *_, **__: ("GetObject", None), S3DataPlane.get)  # type: ignore[method-assign]
    client: Any = BaseClient
    client._make_api_call = watched(lambda client, operation, _: (operation, client), client._make_api_call)


def of_the_data_plane() -> dict[str, Callable[..., Any]]:
    """Its functions that make a request each, by the request's name. GetObject is a method of its own: the answer is
    read later."""
    return {
        "".join(map(str.capitalize, name.split("_"))): function
        for name, function in inspect.getmembers(fast_path, inspect.isfunction)
        if next(iter(inspect.signature(function).parameters), "") == "data_plane"
    }


def service(client: Any) -> str:
    """ "s3" for the data plane, which is of no client of botocore's."""
    return "s3" if client is None else str(client.meta.service_model.service_name)
