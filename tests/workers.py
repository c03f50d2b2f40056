"""Two processes share the tests (pytest-xdist): one runs those that have a server, the other the unit tests.

Tests of servers stay in one process: they share its servers, and would disturb those of another. The tests of exported
graphs have a server of their own. They go to the other process, so that both end at about the same time.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

_BY_FILE = ("tests/unit/", "tests/server/test_openvino.py")


class ServersTogether(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no type marker
    """Hands out the unit tests by file, and all others as one piece of work."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::", 1)[0] if nodeid.startswith(_BY_FILE) else "servers"


def pytest_xdist_make_scheduler(config: Any, log: Any) -> ServersTogether:
    return ServersTogether(config, log)
