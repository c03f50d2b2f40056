"""A request and a new LoRA, relative to openvino_genai, which runs the same weights in the same OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.first_step import FirstStepTimer
from benchmarks.genai_environment import GenaiEnvironment
from benchmarks.genai_peer import GenaiPeer
from benchmarks.graphs import export_graphs
from benchmarks.lora_requests import LoraRequests
from benchmarks.models import RANK
from benchmarks.pairs import Samples, alternate, difference, ratio
from benchmarks.results import Figure, Outcome
from benchmarks.running_server import RunningServer
from runtime.settings import tools_folder

_LORAS = 2
# openvino_genai prepares LoRAs of each rank once. Of these, it has seen none.
_OTHER_RANKS = (4, 6, 8, 10, 12, 20, 24, 28, 32, 48)


def run(bench: Bench) -> Outcome:
    pixels, steps, rounds, new_loras = (64, 4, 2, 2) if bench.quick else (512, 8, 3, 10)
    environment = GenaiEnvironment(tools_folder() / "genai")
    environment.install()
    bench.progress("converting the checkpoint for openvino_genai: minutes, at its first use only")
    converted = bench.models.converted("sd15", environment.convert)
    model = bench.models.checkpoint("sd15")
    loras = [bench.models.kohya_lora(number) for number in range(_LORAS)]
    fresh = [bench.models.kohya_lora(number) for number in range(_LORAS, _LORAS + new_loras)]
    other_ranks = [bench.models.kohya_lora(number, _OTHER_RANKS[number]) for number in range(new_loras)]
    artifacts = export_graphs(bench, model)
    requests = LoraRequests(bench, model, loras, pixels, steps)
    with bench.server(engine="openvino", artifacts=str(artifacts)) as server:
        with GenaiPeer(environment, "pipeline", converted, loras) as peer:
            samples = _requests(bench, server, peer, requests, rounds)
        with GenaiPeer(environment, "unet", converted, loras) as peer:
            added = _new_loras(bench, server, peer, model, fresh, other_ranks)
        triton = server.triton_version()
    return Outcome(
        _figures(samples, added, f"SD 1.5, {pixels} px, {steps} steps, {_LORAS} LoRAs of rank {RANK}, OpenVINO"),
        {"requests": samples, "added": added},
        {"pixels": pixels, "steps": steps, "rank": RANK, "triton": triton, "peer": environment.versions()},
    )


def _requests(bench: Bench, server: RunningServer, peer: GenaiPeer, requests: LoraRequests, rounds: int) -> Samples:
    """Seconds of requests with LoRAs that are in use since the warm-up."""
    variants = {
        "ours": lambda: requests.seconds(server),
        "peer": lambda: peer.generate(requests.next(), requests.steps, requests.loras),
    }
    bench.progress("warming up: the server, openvino_genai")
    alternate(variants, range(1))
    return alternate(variants, bench.rounds(rounds))


def _new_loras(
    bench: Bench,
    server: RunningServer,
    peer: GenaiPeer,
    model: Path,
    fresh: Sequence[Path],
    other_ranks: Sequence[Path],
) -> dict[str, list[float]]:
    """Seconds until our first step, without a LoRA, with a new one and with a seen one; seconds of the peer's
    `set_adapters` with a new one and with a seen one. `other_ranks`: each has a rank that no earlier one has."""
    timer = FirstStepTimer(bench, server, model)
    names = ("without", "new", "seen", "peer, new", "peer, seen", "new rank", "peer, new rank")
    samples: dict[str, list[float]] = {name: [] for name in names}
    for path in (*fresh, *other_ranks):
        path.read_bytes()  # into the page cache: else the first side to use a file would wait for the disk alone
    bench.progress("warming up: requests of one step")
    for _ in range(2):
        timer.seconds("without")
    for number in bench.rounds(len(fresh), "LoRA"):
        samples["without"].append(timer.seconds("without"))
        samples["new"].append(timer.seconds("new", [fresh[number]]))
        samples["seen"].append(timer.seconds("seen", [fresh[number]]))
        new, seen = peer.set_adapters(fresh[number])
        samples["peer, new"].append(new)
        samples["peer, seen"].append(seen)
        samples["new rank"].append(timer.seconds("new rank", [other_ranks[number]]))
        samples["peer, new rank"].append(peer.set_adapters(other_ranks[number])[0])
    return samples


def _figures(requests: Samples, added: dict[str, list[float]], setup: str) -> list[Figure]:
    new, seen, rank = (difference(added[name], added["without"]) for name in ("new", "seen", "new rank"))
    lora, other = (f"LoRA of {what}, linear layers, OpenVINO" for what in (f"rank {RANK}", "a new rank"))
    peer = "openvino_genai's set_adapters"
    return [
        Figure(
            f"{setup}: request time, relative to openvino_genai", ratio(requests["ours"], requests["peer"]), at_most=1.0
        ),
        Figure(f"New {lora}: added time to first step", new, "s"),
        Figure(
            f"New {lora}: added time to first step, relative to {peer}", new / median(added["peer, new"]), at_most=0.5
        ),
        Figure(f"New {other}: added time to first step", rank, "s"),
        Figure(
            f"New {other}: added time to first step, relative to {peer}",
            rank / median(added["peer, new rank"]),
            at_most=0.5,
        ),
        Figure(f"Seen {lora}: added time to first step", seen, "s", at_most=0.02),
        Figure(f"Seen {lora}: {peer}", median(added["peer, seen"]), "s"),
    ]
