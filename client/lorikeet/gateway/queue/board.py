"""The requests in memory: what status and result answer from. Ended ones are kept as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from lorikeet.gateway.queue.record import COMPLETED, IN_QUEUE, Record

_ENDED_KEPT = 1024


class Board:
    """Records by request id."""

    def __init__(self) -> None:
        self._live: dict[str, Record] = {}
        self._ended: OrderedDict[str, Record] = OrderedDict()

    def add(self, record: Record) -> Record:
        """Keep a record; one that is kept already stands."""
        known = self.get(record.request_id)
        if known is not None:
            return known
        (self._ended if record.state == COMPLETED else self._live)[record.request_id] = record
        self._trim()
        return record

    def get(self, request_id: str) -> Record | None:
        return self._live.get(request_id) or self._ended.get(request_id)

    def live(self) -> list[Record]:
        """The waiting and running ones, in the order in which they were added."""
        return list(self._live.values())

    def waiting(self) -> int:
        return sum(record.state == IN_QUEUE for record in self._live.values())

    def of_key(self, key_id: str) -> int:
        """Waiting and running requests of a key."""
        return sum(record.key_id == key_id for record in self._live.values())

    def archive(self, record: Record) -> None:
        """A record has ended."""
        if self._live.pop(record.request_id, None) is not None:
            self._ended[record.request_id] = record
            self._trim()

    def remove(self, request_ids: Iterable[str]) -> None:
        """Forget records."""
        for request_id in request_ids:
            self._live.pop(request_id, None)
            self._ended.pop(request_id, None)

    def position(self, record: Record) -> int:
        """The number of waiting requests ahead."""
        return sum(other.state == IN_QUEUE and other.place < record.place for other in self._live.values())

    def _trim(self) -> None:
        while len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)
