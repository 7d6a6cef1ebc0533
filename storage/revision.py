"""A row's revision counts its changes; callers see it as an etag, and name the one they saw."""

from storage.errors import EtagMismatch


def etag(revision: int) -> str:
    """Returns the etag of a revision."""
    return f'"{revision}"'


def check(seen: str, revision: int) -> None:
    """Raises EtagMismatch unless the caller has seen this revision; an empty etag means any."""
    if seen not in ("", etag(revision)):
        raise EtagMismatch(etag(revision))
