"""A storm of hostile requests: many at once from several clients, over gRPC and HTTP, to all models."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lorikeet.protocol.tensors import IMAGE_MODEL, JOBS_MODEL
from lorikeet.schema import ImageToImageInput, JobRequest
from tests.server.guarded import Guarded
from tests.server.hostile import Answer, Hostile, asking, encoded
from tests.server.hostile_fields import EXTRA_FIELDS, PARAMETERS
from tests.server.hostile_stages import PREPARE, STAGES, inputs_of, requests_to_all_models
from tests.server.wires import GrpcWire, HttpWire

STATUSES = {"OK", "INVALID_ARGUMENT", "UNAVAILABLE", "NOT_FOUND", "CANCELLED"}
_CLIENTS = 4  # of each protocol
_IN_FLIGHT = 24
_DRAWN = 20  # requests that are drawn together
_SHOWN = 1000  # how many requests pass between two lines of progress
_PATHS = ("/png", "/lora", "/junk", "/empty", "/none", "/plain", "/private", "/file", "/circle", "/announced")
_TENSORS = {name for model in (IMAGE_MODEL, PREPARE, JOBS_MODEL, *STAGES) for name in inputs_of(model)}
_NAMES = (
    *ImageToImageInput.model_fields,
    *JobRequest.model_fields,
    *EXTRA_FIELDS,
    *PARAMETERS,
    "request_id",
    *_TENSORS,
)


class Storm:
    """Sends hostile requests to one server. `statuses`: how often each one came; `wrong`: answers that must not be."""

    def __init__(self, guarded: Guarded, tiny: Path) -> None:
        self._guarded, self._tiny = guarded, tiny
        self.statuses: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lock, self._slots = threading.Lock(), threading.Semaphore(_IN_FLIGHT)

    def run(self, count: int) -> None:
        """Send `count` requests or a few more, and wait for all answers. The same count draws the same requests."""
        urls = [self._guarded.inside.url(path) for path in _PATHS]
        requests = requests_to_all_models(self._tiny, urls)
        server = self._guarded.server
        with ExitStack() as stack:
            clients: list[GrpcWire | HttpWire] = []
            for _ in range(_CLIENTS):
                clients += [GrpcWire(server.grpc), HttpWire(server.http)]
            for client in clients:
                stack.enter_context(closing(client))
            turns = itertools.cycle(clients)
            pool = stack.enter_context(ThreadPoolExecutor(_IN_FLIGHT))
            sent: list[Future[None]] = []

            @settings(
                max_examples=-(-count // _DRAWN),
                derandomize=True,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(st.lists(requests, min_size=_DRAWN, max_size=_DRAWN))
            def send(drawn: list[Hostile]) -> None:
                for request in drawn:
                    self._slots.acquire()
                    sent.append(pool.submit(self._send, next(turns), request))

            send()
            for future in sent:
                future.result()

    def _send(self, client: GrpcWire | HttpWire, request: Hostile) -> None:
        if isinstance(client, GrpcWire):
            # Triton before 2.57 can end with SIGSEGV when a gRPC call is closed at the moment of its answer
            # (server#8034). No stage can prevent it.
            request = replace(request, hangs_up=False)
        begun = time.monotonic()
        try:
            found = client.send(_completed(client, request))
        finally:
            self._slots.release()
        with self._lock:
            self.statuses[found.status] += 1
            if not is_fair(found):
                self.wrong.append(f"{found} after {time.monotonic() - begun:.1f} s to {request}")
            if (total := self.statuses.total()) % _SHOWN == 0:
                print(f"{total}: {dict(sorted(self.statuses.items()))}", flush=True)


def _completed(client: GrpcWire | HttpWire, request: Hostile) -> Hostile:
    """The request with the tensors that it takes from an answer of `prepare`, if `prepare` has given one."""
    first = client.send(replace(asking(), model=PREPARE)) if request.from_prepare else Answer("", "")
    return replace(
        request,
        tensors=tuple(
            first.tensors.get(tensor.name, tensor) if tensor.name in request.from_prepare else tensor
            for tensor in request.tensors
        ),
    )


def is_fair(found: Answer) -> bool:
    """Whether the answer has one of `STATUSES`, and a refusal is one clear text that says what is wrong."""
    if found.status not in STATUSES:
        return False
    is_clear = "Traceback" not in found.message and 'File "' not in found.message and len(found.message) < 4000
    return is_clear and (found.status != "INVALID_ARGUMENT" or _names_its_fault(found.message))


def _names_its_fault(message: str) -> bool:
    return message.startswith(("Invalid JSON", "the latents", "Unable to parse 'shape'")) or any(
        name in message for name in _NAMES
    )


def good(tiny: Path) -> Sequence[Hostile]:
    """Requests that must be answered the same for ever."""
    lora = {"path": str(tiny / "loras" / "sd15" / "peft.safetensors"), "scale": 0.7}
    return (
        asking(seed=1),
        asking([encoded()], seed=2, image_url="tensor:0", loras=[lora], num_inference_steps=3, scheduler="Euler A"),
        asking(seed=3, model_name="sdxl", num_images=2),
    )
