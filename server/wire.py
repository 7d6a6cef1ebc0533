"""Small translations that several servicers need: times, etags, page tokens."""

import base64
import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from server.errors import InvalidRequest
from storage.revision import etag as etag

PAGE_SIZE = 100
"""Rows in a page when the caller does not say."""
FIRST_MS, END_MS = -62_135_596_800_000, 253_402_300_800_000
"""What a protobuf time may say: the years 1 to 9999."""


def timestamp(epoch_ms: int) -> Timestamp:
    """Returns a time as protobuf carries it."""
    return Timestamp(seconds=epoch_ms // 1000, nanos=epoch_ms % 1000 * 1_000_000)


def epoch_ms(name: str, value: Timestamp) -> int:
    """Returns a time as the store keeps it. Raises InvalidRequest for one that no calendar has."""
    ms = value.seconds * 1000 + value.nanos // 1_000_000
    if not FIRST_MS <= ms < END_MS or not 0 <= value.nanos < 10**9:
        raise InvalidRequest([(name, "must be a time of the years 1 to 9999")])
    return ms


def moment(epoch_ms: int) -> str:
    """Returns a time as RFC 3339, UTC."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds")


def content_etag(message: Message) -> str:
    """Returns an etag for a message whose row counts no revisions: its content, hashed."""
    content = message.SerializeToString(deterministic=True)
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def page_token(position: Any) -> str:
    """Returns an opaque token for where the next page starts."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def parsed(text: bytes) -> Any:
    """Returns what JSON says. Raises ValueError when it is none, or says what no text or number can
    hold.
    """
    try:
        found = json.loads(text.decode(), parse_constant=_no_number, parse_float=_finite)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found


def page_position(token: str, *kinds: type) -> Any:
    """Returns what a token was made of, a tuple if of several kinds, or None for the first page.

    Raises InvalidRequest for a foreign token.
    """
    if not token:
        return None
    try:
        position = parsed(base64.urlsafe_b64decode(token))
    except ValueError:
        position = None
    parts = position if isinstance(position, list) else [position]
    if [type(part) for part in parts] != [*kinds] or not all(map(_fits, parts)):
        raise InvalidRequest([("page_token", "is not a token of this list")])
    return tuple(parts) if len(kinds) > 1 else parts[0]


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _no_number(text)


def _fits(part: object) -> bool:
    """Whether a database can compare with it."""
    return not isinstance(part, int) or abs(part) < 1 << 63
