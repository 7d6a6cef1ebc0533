"""What the load says about itself: the one place of the bench that knows credentials."""

import json
import subprocess
from functools import cache
from pathlib import Path

TILL = Path(__file__).parents[2] / ".venv/bin/till"


@cache
def headers() -> dict[str, str]:
    """Returns the headers of every call, the same for Till and its peers: the development
    client's, which Till checks and its peers do not.
    """
    told = subprocess.run([TILL, "credentials", "--json"], capture_output=True, check=True)
    known = json.loads(told.stdout)
    return {"authorization": f"Bearer {known['token']}", "x-api-key": known["api_key"]}
