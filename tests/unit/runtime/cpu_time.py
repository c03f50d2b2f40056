"""How much time of a processor some work takes, for tests of what a hostile input may cost."""

import time
from collections.abc import Callable

TRIES = 3


def least_cpu_seconds(work: Callable[[], object]) -> float:
    """The least of three tries: what else runs on the machine makes one of them slower, and never faster."""

    def seconds() -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    return min(seconds() for _ in range(TRIES))
