"""One attempt to deliver a webhook, to public addresses over https."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable

import httpcore

from lorikeet.gateway.webhooks.message import Webhook
from lorikeet.gateway.webhooks.signing import WebhookSigner
from lorikeet.net.guarded_backend import GuardedBackend, PrivateAddressError, is_allowed, is_private_literal
from lorikeet.net.transfer import FetchError, Limits, Transfer
from lorikeet.net.url import RefusedUrlError, Url, UrlError, parse_url
from lorikeet.protocol.shorten import shorten

_SECONDS = 15.0


class WebhookRefused(Exception):
    """The webhook can never be delivered: no later attempt may succeed."""


class WebhookFailed(Exception):
    """The receiver did not take the webhook; a later attempt may succeed."""


class WebhookSender:
    """`allow`: hosts (`name` or `name:port`) that may have private addresses or use http."""

    def __init__(self, signer: WebhookSigner, allow: Iterable[str]) -> None:
        self._signer, self._allow = signer, frozenset(allow)
        self._ssl = ssl.create_default_context()

    def check_url(self, text: str) -> Url:
        """The parsed URL of a webhook. Raises WebhookRefused when it can never be called."""
        try:
            url = parse_url(text)
        except (UrlError, RefusedUrlError) as error:
            raise WebhookRefused(str(error)) from error
        if url.scheme != "https" and not is_allowed(url.bare_host, url.effective_port, self._allow):
            raise WebhookRefused("only https URLs are called")
        if is_private_literal(url.bare_host) and not is_allowed(url.bare_host, url.effective_port, self._allow):
            raise WebhookRefused(f"{url.host} is not a public address")
        return url

    async def deliver(self, webhook: Webhook) -> None:
        """Send it once. Any 2xx means success. Raises WebhookRefused or WebhookFailed."""
        status = await asyncio.to_thread(self._post, webhook)
        if 300 <= status < 400:
            raise WebhookRefused(f"{shorten(webhook.url)} answered {status}: redirects are not followed")
        if not 200 <= status < 300:
            raise WebhookFailed(f"{shorten(webhook.url)} answered {status}")

    def _post(self, webhook: Webhook) -> int:
        url, body = self.check_url(webhook.url), webhook.body.encode()
        headers = {"Host": url.netloc, "Content-Type": "application/json", "Content-Length": str(len(body))}
        headers |= self._signer.headers(webhook.request_id, webhook.user_id, int(time.time()), body)
        transfer = Transfer(Limits(0, _SECONDS, patience=_SECONDS), time.monotonic())
        request = httpcore.Request(
            "POST",
            httpcore.URL(scheme=url.scheme, host=url.bare_host, port=url.port, target=url.target),
            headers=list(headers.items()),
            content=body,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write"), _SECONDS)},
        )
        backend = GuardedBackend(self._allow, transfer)
        try:
            with httpcore.ConnectionPool(ssl_context=self._ssl, network_backend=backend) as pool:
                response = pool.handle_request(request)
                response.close()  # the answer's body is of no interest
                return response.status
        except PrivateAddressError as error:
            raise WebhookRefused(str(error)) from error
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, FetchError, OSError) as error:
            raise WebhookFailed(f"{shorten(webhook.url)}: {error}") from error
