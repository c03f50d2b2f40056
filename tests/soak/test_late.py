"""Thousands of deadlines that pass in every stage end nothing but their own requests.

Where stages of the ensemble could fail side by side, Triton died after some hundreds of these."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from deploy.local_server import LocalServer
from lorikeet import Client, LorikeetError

REQUESTS = 4000
IN_FLIGHT = 24
SECONDS = (0.005, 0.12)  # the first stage takes about 10 ms, the encoders some dozen, and the steps the rest


def test_late_requests_end_nothing_else(server: LocalServer) -> None:
    drawn = random.Random(1)
    deadlines = [drawn.uniform(*SECONDS) for _ in range(REQUESTS)]
    with Client(server.grpc) as client:

        def late(deadline: float) -> str:
            slow = {"model_name": "sd15", "prompt": "a boat", "num_inference_steps": 100}
            try:
                client.submit(slow, deadline=deadline).result()
            except LorikeetError as error:
                return error.status
            return "OK"

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            ends = Counter(pool.map(late, deadlines))
        assert ends == {"DEADLINE_EXCEEDED": REQUESTS}
        assert client.image_to_image(model_name="sd15", prompt="a boat", num_inference_steps=1).images
