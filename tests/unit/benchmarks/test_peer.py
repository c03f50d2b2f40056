"""A peer answers from a process of its own, and tells what went wrong there."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.peer import Peer, PeerFailed


def test_a_peer_is_made_once_and_asked_often() -> None:
    with Peer(Counter, "abba") as peer:
        peer.call("update", "aa")
        assert peer.call("most_common", 1) == [("a", 4)]


def test_an_exception_comes_back_with_its_trace_and_the_peer_lives_on() -> None:
    with Peer(Counter) as peer:
        with pytest.raises(PeerFailed, match="dictionary is empty"):
            peer.call("popitem")
        assert peer.call("total") == 0
