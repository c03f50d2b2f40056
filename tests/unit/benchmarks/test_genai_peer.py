"""openvino_genai in its own process: calls, failures, and the whole case on a tiny checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import genai_peer
from benchmarks.bench import Bench
from benchmarks.cases import run_case
from benchmarks.genai_environment import GenaiEnvironment
from benchmarks.genai_peer import GenaiPeer, PeerFailed
from benchmarks.models import Models
from benchmarks.unique_requests import UniqueRequests

# Answers as genai_worker.py does: a request takes as many seconds as it has LoRAs, and runs half of its steps.
_WORKER = """
import json, sys
for line in sys.stdin:
    call = json.loads(line)
    arguments = call["arguments"]
    if call["method"] == "generate":
        answer = {"seconds": len(arguments["loras"]), "unet_calls": arguments["num_inference_steps"] // 2}
        print(json.dumps({"result": answer}), flush=True)
    elif arguments["lora"] == "missing":
        print(json.dumps({"error": "Traceback: no such file"}), flush=True)
    else:
        sys.exit(3)
"""


class _ThisEnvironment(GenaiEnvironment):
    @property
    def python(self) -> Path:
        return Path(sys.executable)


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GenaiPeer]:
    worker = tmp_path / "worker.py"
    worker.write_text(_WORKER)
    monkeypatch.setattr(genai_peer, "_WORKER", worker)
    with GenaiPeer(_ThisEnvironment(tmp_path), "pipeline", tmp_path, []) as running:
        yield running


def test_a_request_is_timed_by_the_peer(peer: GenaiPeer) -> None:
    assert peer.generate(UniqueRequests().next(64), 4, [Path("a"), Path("b")]) == 2.0


def test_an_exception_of_the_peer_has_its_traceback(peer: GenaiPeer) -> None:
    with pytest.raises(PeerFailed, match="no such file"):
        peer.set_adapters(Path("missing"))


def test_the_end_of_the_peer_is_a_failure(peer: GenaiPeer) -> None:
    with pytest.raises(PeerFailed, match="status 3"):
        peer.set_adapters(Path("another"))


@pytest.mark.verify
def test_the_case_runs_on_a_tiny_checkpoint(tmp_path: Path) -> None:
    """Installs openvino_genai into the tools folder at its first run."""
    models = Models(tmp_path / "models", True, print)
    outcome = run_case("genai", Bench(True, models, tmp_path, tmp_path / "results", print))
    assert len(outcome.figures) == 7 and all(len(seconds) == 2 for seconds in outcome.raw["requests"].values())
