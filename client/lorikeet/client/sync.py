"""The synchronous client: runs the asyncio client in a background thread."""

from collections.abc import Callable, Mapping

from typing_extensions import Self

from lorikeet.client.aio import AsyncClient, Request
from lorikeet.client.event_loop import run
from lorikeet.client.job import AsyncJob
from lorikeet.client.result import Result
from lorikeet.schema import JobStatus


class Job:
    """One submitted request; see AsyncJob for the contracts."""

    def __init__(self, job: AsyncJob) -> None:
        self._job = job
        self.request_id = job.request_id
        self.job_token = job.job_token

    def result(self, timeout: float | None = None, on_progress: Callable[[JobStatus], None] | None = None) -> Result:
        """Wait for the result."""
        return run(self._job.result(timeout, on_progress))

    def status(self) -> JobStatus:
        """The status of the request."""
        return run(self._job.status())

    def cancel(self) -> JobStatus:
        """Cancel the request."""
        return run(self._job.cancel())


class Client:
    """A client of one Lorikeet server; see AsyncClient for the contracts.

    The background thread calls `on_progress`. Ctrl-C during `image_to_image` cancels the request on the server.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        self._client = AsyncClient(url, headers=headers)

    def image_to_image(
        self,
        request: Request = None,
        *,
        image: object = None,
        on_progress: Callable[[JobStatus], None] | None = None,
        request_id: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        **fields: object,
    ) -> Result:
        """Generate images and wait for them."""
        return run(
            self._client.image_to_image(
                request,
                image=image,
                on_progress=on_progress,
                request_id=request_id,
                priority=priority,
                timeout=timeout,
                **fields,
            )
        )

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
