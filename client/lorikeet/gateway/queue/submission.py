"""An accepted request, as the database keeps it."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any

from typing_extensions import Self

from lorikeet.gateway.files.store import Lifecycle

NORMAL, LOW = "normal", "low"
_RANKS = {NORMAL: 10, LOW: 20}
DEDUPLICATION_SECONDS = 10.0


@dataclass(frozen=True)
class Options:
    """What a submit's headers and query say.

    `start_timeout`: seconds until the request must have started. `keeps_payloads`: False removes the request from the
    database soon after its end.
    """

    webhook: str | None = None
    priority: str = NORMAL
    start_timeout: float | None = None
    may_retry: bool = True
    keeps_payloads: bool = True
    lifecycle: Lifecycle = field(default_factory=lambda: Lifecycle(None))

    @property
    def rank(self) -> int:
        """Priority in the queue: requests with a smaller one start first."""
        return _RANKS[self.priority]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**{**data, "lifecycle": Lifecycle(**data["lifecycle"])})


@dataclass(frozen=True)
class Submission:
    """`body`: the input with its seed. `submitted_at`: Unix seconds."""

    request_id: str
    endpoint: str
    key_id: str
    body: dict[str, Any]
    options: Options
    submitted_at: float
    digest: str

    @property
    def start_deadline(self) -> float | None:
        """Unix seconds until which the request must have started."""
        timeout = self.options.start_timeout
        return None if timeout is None else self.submitted_at + timeout

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**{**data, "options": Options.from_json(data["options"])})


def has_seed(body: dict[str, Any]) -> bool:
    """Whether the input names its seed, so that equal inputs mean equal pictures."""
    return body.get("seed") not in (None, -1, "-1")


def seeded(body: dict[str, Any]) -> dict[str, Any]:
    """The input with a seed: a request that runs again gives the same pictures."""
    # Below 2**32, as JavaScript reads whole numbers exactly only up to 2**53.
    return body if has_seed(body) else {**body, "seed": secrets.randbelow(2**32)}


def digest(endpoint: str, body: dict[str, Any], options: Options) -> str:
    """The same for equal submits. A webhook or a priority of its own makes a submit differ."""
    content = json.dumps([endpoint, body, asdict(options)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


class RequestIds:
    """Request ids. Those of repeated submits are equal, so that the database keeps one request.

    `secret`: shared by the gateways of one database; without it, ids of other keys' requests could be computed.
    """

    def __init__(self, secret: bytes) -> None:
        self._namespace = uuid.UUID(bytes=hashlib.sha256(secret).digest()[:16], version=5)

    def keyed(self, key_id: str, idempotency_key: str) -> str:
        """The id of all submits with this Idempotency-Key."""
        return self._derived("key", key_id, idempotency_key)

    def recent(self, key_id: str, submit_digest: str) -> tuple[str, str]:
        """The ids of equal submits in this window of 10 s, and in the one before."""
        window = int(time.time() // DEDUPLICATION_SECONDS)
        this, before = (self._derived("seed", key_id, submit_digest, str(at)) for at in (window, window - 1))
        return this, before

    def is_recent(self, submitted_at: float) -> bool:
        """Whether a submit of this moment repeats one of `submitted_at` (Unix seconds)."""
        return time.time() - submitted_at < DEDUPLICATION_SECONDS

    def new(self) -> str:
        return str(uuid.uuid4())

    def _derived(self, *parts: str) -> str:
        return str(uuid.uuid5(self._namespace, json.dumps(parts)))
