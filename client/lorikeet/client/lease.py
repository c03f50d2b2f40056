"""Renews the leases of a client's jobs: the server ends a job whose client is gone."""

import json
import logging
import threading
import urllib.request
from collections.abc import Callable, Mapping

import tritonclient.grpc

from lorikeet.client.calls import InferCall, job_call
from lorikeet.client.transport import infer_inputs, split_url
from lorikeet.protocol.tensors import JOBS_MODEL, REQUEST
from lorikeet.schema import JobRequest

LEASE_SECONDS = 30.0
RENEWAL_SECONDS = LEASE_SECONDS / 3
_CALL_SECONDS = 5.0
# Without the proxies of the environment, which the other calls do not use either.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_log = logging.getLogger("lorikeet")

Job = tuple[str, str]  # request id and token


class LeaseKeeper:
    """Renews leases on a thread of its own: an event loop can be busy for longer than a lease.

    The thread ends when there are no jobs. After an error of a renewal, the next one may succeed: the first of several
    is a warning in the log.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url, self._headers = url, headers
        self._jobs: set[Job] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, job: Job) -> None:
        """Renew the lease of this job until `remove`."""
        with self._changed:
            self._jobs.add(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lorikeet-leases", daemon=True)
                self._thread.start()

    def remove(self, job: Job) -> None:
        with self._changed:
            self._jobs.discard(job)
            self._changed.notify_all()

    def _run(self) -> None:
        send, failed = _sender(self._url, self._headers), False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._jobs, timeout=RENEWAL_SECONDS)
                if not self._jobs:
                    self._thread = None
                    return
                jobs = list(self._jobs)
            for request_id, job_token in jobs:
                try:
                    send(job_call(JobRequest(action="renew", request_id=request_id, job_token=job_token)))
                    failed = False
                except Exception as error:
                    if not failed:
                        _log.warning("cannot renew the lease of request %s: %s", request_id, error)
                    failed = True


def _sender(url: str, headers: Mapping[str, str]) -> Callable[[InferCall], None]:
    """A function that sends a call of the model `jobs` and waits for the answer, over the protocol of the URL."""
    parts = split_url(url)
    if parts.scheme.startswith("http"):
        return lambda call: _send_http(f"{url.rstrip('/')}/v2/models/{JOBS_MODEL}/infer", headers, call)
    client = tritonclient.grpc.InferenceServerClient(parts.netloc, ssl=parts.scheme == "grpcs")
    return lambda call: _send_grpc(client, headers, call)


def _send_http(url: str, headers: Mapping[str, str], call: InferCall) -> None:
    text = call.inputs[REQUEST].flat[0].decode()
    tensor = {"name": REQUEST, "datatype": "BYTES", "shape": [1], "data": [text]}
    request = urllib.request.Request(url, json.dumps({"inputs": [tensor]}).encode(), dict(headers))
    with _opener.open(request, timeout=_CALL_SECONDS) as reply:
        reply.read()


def _send_grpc(client: tritonclient.grpc.InferenceServerClient, headers: Mapping[str, str], call: InferCall) -> None:
    tensors = infer_inputs(tritonclient.grpc, call)
    client.infer(call.model, tensors, headers=dict(headers), client_timeout=_CALL_SECONDS)
