"""Small translations that several servicers need: times, wrappers, etags, page tokens."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from server.errors import InvalidRequest
from storage.revision import etag as etag

PAGE_SIZE = 100
"""Rows in a page when the caller does not say."""


def timestamp(epoch_ms: int) -> Timestamp:
    """Returns a time as protobuf carries it."""
    return Timestamp(seconds=epoch_ms // 1000, nanos=epoch_ms % 1000 * 1_000_000)


def moment(epoch_ms: int) -> str:
    """Returns a time as RFC 3339, UTC."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds")


def page_token(position: Any) -> str:
    """Returns an opaque token for where the next page starts."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def page_position(token: str, *kinds: type) -> Any:
    """Returns what a token was made of, a tuple if of several kinds, or None for the first page.

    Raises InvalidRequest for a foreign token.
    """
    if not token:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, RecursionError):
        position = None
    parts = position if isinstance(position, list) else [position]
    if [type(part) for part in parts] != [*kinds]:
        raise InvalidRequest([("page_token", "is not a token of this list")])
    return tuple(parts) if len(kinds) > 1 else parts[0]
