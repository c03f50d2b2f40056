"""The synchronous client: runs the asyncio client in a background thread."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from typing_extensions import Self

from lorikeet.client.aio import AsyncClient, Request
from lorikeet.client.event_loop import run, run_with_events
from lorikeet.client.job import AsyncJob
from lorikeet.client.result import Result
from lorikeet.schema import JobStatus


class Job:
    """One submitted request; see AsyncJob for the contracts."""

    def __init__(self, job: AsyncJob) -> None:
        self._job = job
        self.request_id = job.request_id
        self.job_token = job.job_token

    def result(self, timeout: float | None = None, on_progress: Callable[[JobStatus], object] | None = None) -> Result:
        """Wait for the result."""
        if on_progress is None:
            return run(self._job.result(timeout))
        return run_with_events(lambda show: self._job.result(timeout, show), on_progress)

    def status(self) -> JobStatus:
        """The status of the request."""
        return run(self._job.status())

    def cancel(self) -> JobStatus:
        """Cancel the request."""
        return run(self._job.cancel())


class Client:
    """A client of one Lorikeet server; see AsyncClient for the contracts.

    The calling thread calls `on_progress`, which may call the client. Ctrl-C in `image_to_image` cancels the request
    on the server.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        self._client = AsyncClient(url, headers=headers)

    def image_to_image(
        self,
        request: Request = None,
        *,
        image: object = None,
        on_progress: Callable[[JobStatus], object] | None = None,
        request_id: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        **fields: object,
    ) -> Result:
        """Generate images and wait for them."""

        def send(show: Callable[[JobStatus], object] | None) -> Coroutine[Any, Any, Result]:
            return self._client.image_to_image(
                request,
                image=image,
                on_progress=show,
                request_id=request_id,
                priority=priority,
                timeout=timeout,
                **fields,
            )

        return run(send(None)) if on_progress is None else run_with_events(send, on_progress)

    def submit(
        self,
        request: Request = None,
        *,
        image: object = None,
        request_id: str | None = None,
        priority: int | None = None,
        deadline: float | None = None,
        **fields: object,
    ) -> Job:
        """Send a request and return its job at once."""
        sent = self._client.submit(
            request, image=image, request_id=request_id, priority=priority, deadline=deadline, **fields
        )
        return Job(run(sent))

    def status(self, request_id: str, job_token: str) -> JobStatus:
        """The status of a request."""
        return run(self._client.status(request_id, job_token))

    def cancel(self, request_id: str, job_token: str) -> JobStatus:
        """Cancel a request."""
        return run(self._client.cancel(request_id, job_token))

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server is ready for requests."""
        run(self._client.wait_ready(timeout))

    def close(self) -> None:
        """Close the connection."""
        run(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
