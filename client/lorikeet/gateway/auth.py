"""Who calls: the id of an API key, from the Authorization header or from a token that the gateway signed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from lorikeet.gateway.api_error import ApiError
from lorikeet.gateway.browser_guard import refuse_other_sites
from lorikeet.gateway.services import Services, services_of

LOCAL = "local"  # the key id of every caller while there is no key
# Purposes of signed tokens. Their payloads have the `key_id` of the key that asked for them.
BROWSER_TOKEN = "browser"  # runs and queues the applications in `allowed_apps`
STORAGE_TOKEN = "storage"  # uploads files, and reads private ones
UPLOAD_TOKEN = "upload"  # sends the bytes of the file `name`

_WRONG = "invalid key credentials"


def key_id_of(request: Request) -> str:
    """The id of the caller's key. Raises ApiError (401)."""
    services = services_of(request)
    if services.keys.is_empty() and services.settings.is_loopback:
        refuse_other_sites(request, services.settings)
        return LOCAL
    if token := request.query_params.get("fal_jwt_token"):
        return _of_browser(services, token, request.url.path)
    credentials = _credentials(request)
    if credentials is None:
        raise ApiError(401, _anonymous(request.url.path))
    key_id = services.keys.find(credentials)
    return key_id if key_id is not None else _of_browser(services, credentials, request.url.path)


def storage_key_id_of(request: Request) -> str:
    """The id of the caller's key, which a storage token may stand for. Raises ApiError (401)."""
    services = services_of(request)
    payload = services.tokens.read(STORAGE_TOKEN, _credentials(request) or "")
    return key_id_of(request) if payload is None else _valid_key_id(services, payload)


def upload_of(request: Request, token: str, name: str) -> str:
    """The id of the key that began the upload of a file. Raises ApiError (401)."""
    services = services_of(request)
    payload = services.tokens.read(UPLOAD_TOKEN, token)
    if payload is None or payload["name"] != name:
        raise ApiError(401, "The address of the upload is wrong or has expired. Begin another one.")
    return _valid_key_id(services, payload)


def _credentials(request: Request) -> str | None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() or None if scheme.lower() in ("key", "bearer") else None


def _of_browser(services: Services, token: str, path: str) -> str:
    payload = services.tokens.read(BROWSER_TOKEN, token)
    if payload is None:
        raise ApiError(401, _WRONG)
    application = _application(path)
    alias = application.rpartition("/")[2]
    if not application or not {alias, application} & set(payload["allowed_apps"]):
        raise ApiError(401, _anonymous(path))
    return _valid_key_id(services, payload)


def _valid_key_id(services: Services, payload: dict[str, Any]) -> str:
    """The key id of a token, unless the key was revoked. Without any key, every caller is `LOCAL`."""
    key_id = str(payload["key_id"])
    is_local = services.keys.is_empty() and services.settings.is_loopback
    if not services.keys.is_valid(key_id) and not (is_local and key_id == LOCAL):
        raise ApiError(401, _WRONG)
    return key_id


def _application(path: str) -> str:
    """Owner and alias in a path of `/run` or `/queue`; "" for other paths."""
    parts = path.split("/")[1:4]
    return "/".join(parts[1:]) if parts[0] in ("run", "queue") else ""


def _anonymous(path: str) -> str:
    if application := _application(path):
        return f'Cannot access application "{application}". Authentication is required to access this application.'
    return "Authentication is required: send the header `Authorization: Key <id>:<secret>`."


KeyId = Annotated[str, Depends(key_id_of)]
StorageKeyId = Annotated[str, Depends(storage_key_id_of)]
