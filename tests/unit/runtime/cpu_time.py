"""How much time of a processor some work takes, for tests of what a hostile input may cost."""

from __future__ import annotations

import time
from collections.abc import Callable

TRIES = 3
REFERENCE_SECONDS = 0.0155  # of `_reference` on an idle core (AMD EPYC, AVX2, 2.4 GHz)


def least_cpu_seconds(work: Callable[[], object]) -> float:
    """The least of three tries, in seconds of an idle core of the machine that `REFERENCE_SECONDS` names.

    On a busy machine a processor's seconds do less. So each try is compared with a reference before and after it.
    """

    def scaled() -> float:
        before, seconds, after = _seconds(_reference), _seconds(work), _seconds(_reference)
        return seconds * 2 * REFERENCE_SECONDS / (before + after)

    return min(scaled() for _ in range(TRIES))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _reference() -> dict[str, tuple[str, str, str]]:
    """What reading a file of many names does in Python: texts, tuples and a dict."""
    names = (f"layers.{number}.weight" for number in range(25_000))
    return {name.replace(".", "_"): name.rpartition(".") for name in names}
