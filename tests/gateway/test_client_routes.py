"""The ways in which a JavaScript client is pointed at a gateway: each makes a picture."""

from __future__ import annotations

from deploy.local_server import LocalServer
from tests.gateway.fal_clients import JavaScriptClient
from tests.gateway.features import feature
from tests.gateway.inputs import quick
from tests.gateway.target import Target
from tests.gateway.test_client_calls import STEP_NUMBERS, check_output, steps_of


@feature("configured by `requestMiddleware`")
def test_request_middleware(client: JavaScriptClient, keyed_gateway: Target, triton: LocalServer) -> None:
    check_route("middleware", client, keyed_gateway, triton)


@feature("configured by `fetch`")
def test_fetch(client: JavaScriptClient, keyed_gateway: Target, triton: LocalServer) -> None:
    check_route("fetch", client, keyed_gateway, triton)


@feature("configured by `proxyUrl`")
def test_proxy(client: JavaScriptClient, keyed_gateway: Target, triton: LocalServer) -> None:
    """The object form with `when: "always"`, which this client has from 1.10.0 on."""
    check_route("proxy", client, keyed_gateway, triton)
    answer = client.call(keyed_gateway, "streamStatus", input=quick(), route="proxy")
    assert steps_of([line for event in answer["events"] for line in event["messages"]]) == STEP_NUMBERS


def check_route(route: str, client: JavaScriptClient, keyed_gateway: Target, triton: LocalServer) -> None:
    body = quick()
    answer = client.call(keyed_gateway, "queue", input=body, route=route)
    check_output(answer["output"], body, triton)
    assert answer["submitted"]["status_url"].startswith(keyed_gateway.url)
