"""Lorikeet's client. The names below load on first use, so that `lorikeet.schema` needs only pydantic."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorikeet.aio import AsyncClient
    from lorikeet.errors import (
        Cancelled,
        DeadlineExceeded,
        InvalidRequest,
        LorikeetError,
        NotFound,
        Unavailable,
    )
    from lorikeet.job import AsyncJob
    from lorikeet.result import Result
    from lorikeet.sync import Client, Job

_MODULES = {
    "AsyncClient": "aio",
    "AsyncJob": "job",
    "Cancelled": "errors",
    "Client": "sync",
    "DeadlineExceeded": "errors",
    "InvalidRequest": "errors",
    "Job": "sync",
    "LorikeetError": "errors",
    "NotFound": "errors",
    "Result": "result",
    "Unavailable": "errors",
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
