"""What the load says about itself: the one place of the bench that knows credentials."""

import json
import subprocess
from functools import cache
from pathlib import Path

TILL = Path(__file__).parents[2] / ".venv/bin/till"
BY_TOKEN = {"lines", "spread", "hot"}
"""Work on POST /orders, whose document wants a token beside the key; the others know none."""


def headers(work: str) -> dict[str, str]:
    """Returns the headers of a kind of work, the same for Till and its peers: the development
    client's, which Till checks and its peers do not.
    """
    known = _credentials()
    key = {"x-api-key": known["api_key"]}
    return key | {"authorization": f"Bearer {known['token']}"} if work in BY_TOKEN else key


@cache
def _credentials() -> dict[str, str]:
    told = subprocess.run([TILL, "credentials", "--json"], capture_output=True, check=True)
    return dict(json.loads(told.stdout))
