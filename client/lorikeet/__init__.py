"""Lorikeet's client. The names below load on first use, so that `lorikeet.schema` needs only pydantic."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorikeet.client.aio import AsyncClient
    from lorikeet.client.job import AsyncJob
    from lorikeet.client.result import Result
    from lorikeet.client.sync import Client, Job
    from lorikeet.protocol.errors import (
        Cancelled,
        DeadlineExceeded,
        InvalidRequest,
        LorikeetError,
        NotFound,
        Unavailable,
    )

_MODULES = {
    "AsyncClient": "client.aio",
    "AsyncJob": "client.job",
    "Cancelled": "protocol.errors",
    "Client": "client.sync",
    "DeadlineExceeded": "protocol.errors",
    "InvalidRequest": "protocol.errors",
    "Job": "client.sync",
    "LorikeetError": "protocol.errors",
    "NotFound": "protocol.errors",
    "Result": "client.result",
    "Unavailable": "protocol.errors",
}

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "InvalidRequest",
    "Job",
    "LorikeetError",
    "NotFound",
    "Result",
    "Unavailable",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
