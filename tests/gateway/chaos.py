"""Random kills of gateways, tritonservers and stages while a queue of requests runs: nothing may be lost."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deploy.local_gateway import LocalGateway
from deploy.local_server import LocalServer
from lorikeet import Client
from tests.gateway import wire
from tests.gateway.webhook_receiver import WebhookReceiver
from tests.journeys.test_killed import STAGES, children, stub_of


class Chaos:
    """`gateways` share a database (or are one), `servers` are theirs. Its requests differ in their seeds."""

    def __init__(
        self,
        gateways: Sequence[LocalGateway],
        servers: Sequence[LocalServer],
        receiver: WebhookReceiver,
        body: dict[str, Any],
        seed: int,
    ) -> None:
        self._gateways, self._servers, self._receiver, self._body = gateways, servers, receiver, body
        self._random = random.Random(seed)
        self.killed: list[str] = []

    def run(self, requests: int, kills: int, pause: float) -> None:
        """Submit, kill `kills` times with pauses of about `pause` seconds, and check what the clients got."""
        ids: dict[int, str] = {}
        submitter = threading.Thread(target=lambda: ids.update(self._submit_all(requests)))
        submitter.start()
        for _ in range(kills):
            time.sleep(pause * self._random.uniform(0.5, 1.5))
            self._kill_one()
        submitter.join()
        results = {seed: self._result(request_id) for seed, request_id in ids.items()}
        assert len(set(ids.values())) == len(results) == requests
        expected = self._expected(results)
        for seed, result in results.items():
            assert result.status == 200, (seed, result)
            assert [image["sha256"] for image in result.body["images"]] == expected[seed], seed
        self._check_webhooks(ids)

    def _submit_all(self, requests: int) -> dict[int, str]:
        return {seed: self._submit(seed) for seed in range(requests)}

    def _submit(self, seed: int) -> str:
        """Submit as a careful client does: again with the same key until there is an answer."""
        query, key = f"?fal_webhook={self._receiver.url}", {"Idempotency-Key": f"job-{seed}"}

        def submit(gateway: str) -> wire.Answer:
            return wire.submit(gateway, {**self._body, "seed": seed}, query, key)

        answer = self._until_answered(submit)
        assert answer.status == 200, answer
        return str(answer.body["request_id"])

    def _result(self, request_id: str) -> wire.Answer:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            found = self._until_answered(lambda gateway: wire.status(gateway, request_id))
            assert found.status in (200, 202), found
            if found.body["status"] == "COMPLETED":
                return self._until_answered(lambda gateway: wire.result(gateway, request_id))
            time.sleep(0.2)
        raise AssertionError(f"{request_id} did not end: {found}")

    def _until_answered(self, call: Callable[[str], wire.Answer]) -> wire.Answer:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                return call(self._random.choice(self._gateways).url)
            except wire.UNREACHABLE:
                time.sleep(0.1)
        raise AssertionError("no gateway answers")

    def _kill_one(self) -> None:
        kind = self._random.choice(("gateway", "gateway", "tritonserver", "stage"))
        if kind == "gateway":
            gateway = self._random.choice(self._gateways)
            gateway.kill()
            gateway.start()
        else:
            server = self._random.choice(self._servers)
            ready = server.output().count("lorikeet: ready after")
            name = "tritonserver" if kind == "tritonserver" else self._random.choice(STAGES)
            os.kill(_tritonserver(server) if name == "tritonserver" else stub_of(server, name), signal.SIGKILL)
            kind = name
            server.wait_ready(times=ready + 1, timeout=120)
        self.killed.append(kind)
        print(f"killed {kind}", flush=True)

    def _expected(self, results: dict[int, wire.Answer]) -> dict[int, list[str]]:
        """The digests of the pictures that each seed gives when nothing fails."""
        with Client(self._servers[0].grpc) as client:
            jobs = {seed: client.submit({**self._body, "seed": seed}) for seed in results}
            return {seed: [str(x.sha256) for x in job.result().response.images] for seed, job in jobs.items()}

    def _check_webhooks(self, ids: dict[int, str]) -> None:
        """Each request's webhook came at least once, under its id, and said that it went well."""
        deadline = time.monotonic() + 60
        while (came := {x.message["request_id"] for x in self._receiver.deliveries}) != set(ids.values()):
            assert time.monotonic() < deadline, f"{len(came)} of {len(ids)} webhooks came"
            time.sleep(0.2)
        assert {x.message["status"] for x in self._receiver.deliveries} == {"OK"}


def _tritonserver(server: LocalServer) -> int:
    for pid in children(server.process.pid):
        if "tritonserver" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]:
            return pid
    raise AssertionError("no tritonserver")
