"""What the load says about itself: the one place of the bench that knows credentials."""


def headers() -> dict[str, str]:
    """Returns the headers of every call, the same for Till and its peers."""
    return {"authorization": "Bearer x", "x-api-key": "k"}
