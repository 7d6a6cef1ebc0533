"""A row's revision counts its changes; callers see it as an etag, and name the one they saw."""

from storage.errors import EtagMismatch


def etag(revision: int) -> str:
    """Returns the etag of a revision."""
    return f'"{revision}"'


def check(seen: str, revision: int) -> None:
    """Raises EtagMismatch unless the caller has seen this revision; an empty etag means any."""
    check_etag(seen, etag(revision))


def check_etag(seen: str, current: str) -> None:
    """Raises EtagMismatch unless the caller has seen this etag; an empty one means any."""
    if seen not in ("", current):
        raise EtagMismatch(current)
