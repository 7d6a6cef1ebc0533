"""Replays contracts/*.json, the documents' examples and their edges, through the real Envoy.

A file is {"document", "headers"?, "steps"}; its headers go with every step, null takes one away.
A step is {"name", "request": {"method", "path", "headers"?, "json"? | "text"?}, "response",
"save"?, "eventually"?: repeated until it holds}. What a response may ask for:
  status   a number, or a list of allowed ones
  json     the whole body; 110 is not 110.0
  like     a part of it: objects may hold more keys; lists hold these elements in any order
  sizes    {"dotted.path": the length of the list or object there}
  text     the body, byte for byte
  headers  null means absent
Placeholders: <int> <text> <list> <time> <uuid> <re:pattern>, which matches a value's whole text.
"save" keeps values for later steps of its file, {"name": "dotted.path"}, where "$text" is the body
and "header:name" a header; {{name}} gives them back. {{authorization}} and {{apiKey}} are known,
{{channelToken}} and {{channelCode}} too; {{uuid}} is always new, {{200*x}} repeats x. Where only an
operator may go, the step goes as one unless it says otherwise.
"""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest
from callers import CALLER, KNOWN
from conftest import Stack, eventually

PATHS = sorted(Path(__file__).parent.glob("contracts/*.json"))
FILES = {path: json.loads(path.read_text("utf-8")) for path in PATHS}
STEPS = [(path, step) for path, file in FILES.items() for step in file["steps"]]
NAMES = [f"{path.stem}: {step['name']}" for path, step in STEPS]
OPERATORS = ("/v1/stores", "/v1/products", "/v1/inventory", "/v1/operations?")
OPERATOR = {"Authorization": "{{authorization}}"}
TEMPLATE = re.compile(r"\{\{(?:(\d+)\*(.+?)|(\w+))\}\}", re.DOTALL)


@pytest.fixture(scope="module")
def saved() -> dict[Path, dict[str, Any]]:
    """What the steps of each file have saved so far, and the credentials of the orders document."""
    known = {
        "authorization": CALLER["authorization"],
        "apiKey": CALLER["x-api-key"],
        "channelToken": KNOWN["channel_token"],
        "channelCode": KNOWN["channel_code"],
    }
    return {path: dict(known) for path in FILES}


@pytest.mark.parametrize(("path", "step"), STEPS, ids=NAMES)
def test_the_contract_is_kept(
    path: Path, step: dict[str, Any], stack: Stack, saved: dict[Path, dict[str, Any]]
) -> None:
    values, headers = saved[path], FILES[path].get("headers", {})

    def play() -> httpx.Response:
        answer = send(stack.rest, headers, step["request"], values)
        check(answer, fill(step["response"], values))
        return answer

    answer = eventually(play) if step.get("eventually") else play()
    values |= {name: pick(answer, source) for name, source in step.get("save", {}).items()}


def send(rest: httpx.Client, defaults: Any, request: Any, values: dict[str, Any]) -> httpx.Response:
    """Sends a step's request as it is written."""
    path = fill(request["path"], {name: quote(str(value)) for name, value in values.items()})
    operator = OPERATOR if request["path"].startswith(OPERATORS) else {}
    headers = (
        {"Content-Type": "application/json"} | defaults | operator | request.get("headers", {})
    )
    given = {name: fill(value, values) for name, value in headers.items() if value is not None}
    body = fill(request.get("text"), values)
    if "json" in request:
        body = json.dumps(fill(request["json"], values), ensure_ascii=False)
    return rest.request(request["method"], path, headers=given, content=body and body.encode())


def check(answer: httpx.Response, wanted: dict[str, Any]) -> None:
    """Asserts all that a step asks of its answer."""
    told = f"\n{answer.status_code} {dict(answer.headers)}\n{answer.text}"
    status = wanted["status"]
    assert answer.status_code in (status if isinstance(status, list) else [status]), told
    assert answer.headers.get("content-type", "").startswith("application/json"), told
    body = answer.json()
    kinds = wanted.keys() & {"json", "like"}
    problems = [difference(wanted[kind], body, kind == "json") for kind in kinds]
    for name, value in wanted.get("headers", {}).items():
        problems.append(difference(value, answer.headers.get(name), True, f"header {name}"))
    assert not any(problems), f"{'; '.join(filter(None, problems))}{told}"
    for place, size in wanted.get("sizes", {}).items():
        assert len(find(body, place)) == size, f"{place} has not {size}{told}"
    assert answer.text == wanted.get("text", answer.text), told


def difference(wanted: Any, given: Any, exact: bool, at: str = "") -> str:
    """Returns the first place where a value is not what was wanted, or an empty text."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        keys = set(wanted) ^ set(given) if exact else set(wanted) - set(given)
        if keys:
            return f"{at} differs in the keys {sorted(keys)}"
        pairs = [(wanted[key], given[key], f"{at}.{key}") for key in wanted]
    elif isinstance(wanted, list) and isinstance(given, list) and exact:
        if len(wanted) != len(given):
            return f"{at} has {len(given)} elements, not {len(wanted)}"
        pairs = [(w, g, f"{at}[{i}]") for i, (w, g) in enumerate(zip(wanted, given, strict=True))]
    elif isinstance(wanted, list) and isinstance(given, list):
        missing = [w for w in wanted if all(difference(w, g, exact) for g in given)]
        return f"{at} lacks {missing[0]!r}" if missing else ""
    else:
        return "" if fits(wanted, given) else f"{at} is {given!r}, not {wanted!r}"
    return next(filter(None, (difference(w, g, exact, place) for w, g, place in pairs)), "")


def fits(wanted: Any, given: Any) -> bool:
    """Tells whether a value is the one wanted, or one that the placeholder takes."""
    try:
        match wanted:
            case "<int>" | "<list>":
                return isinstance(given, {"<int>": int, "<list>": list}[wanted])
            case "<text>":
                return isinstance(given, str) and given != ""
            case "<time>":
                return isinstance(given, str) and datetime.fromisoformat(given).tzinfo is not None
            case "<uuid>":
                return str(UUID(given)) == given
            case str() if pattern := re.fullmatch("<re:(.*)>", wanted, re.DOTALL):
                scalar = isinstance(given, str | int) and not isinstance(given, bool)
                return scalar and bool(re.fullmatch(pattern[1], str(given), re.DOTALL))
    except (ValueError, AttributeError):
        return False
    return type(wanted) is type(given) and bool(wanted == given)


def fill(value: Any, values: dict[str, Any]) -> Any:
    """Returns a value with its templates filled in; one that stands alone keeps the saved type."""
    if isinstance(value, dict):
        return {key: fill(part, values) for key, part in value.items()}
    if not isinstance(value, str):
        return [fill(part, values) for part in value] if isinstance(value, list) else value
    if value[2:-2] in values and value == f"{{{{{value[2:-2]}}}}}":
        return values[value[2:-2]]
    known = {**values, "uuid": uuid4()}
    return TEMPLATE.sub(lambda t: t[2] * int(t[1]) if t[1] else str(known[t[3]]), value)


def pick(answer: httpx.Response, source: str) -> Any:
    """Returns what a step saves: the body's text, a header, or a place in the body."""
    if source.startswith("header:"):
        return answer.headers[source.removeprefix("header:")]
    return answer.text if source == "$text" else find(answer.json(), source)


def find(body: Any, place: str) -> Any:
    """Returns the value at a dotted path."""
    for part in place.split("."):
        body = body[int(part)] if isinstance(body, list) else body[part]
    return body
