"""A store's own checkout payload, turned into the standard one by the store's JSONPaths (RFC
9535).
"""

from typing import Any

import jsonpath

from server.errors import InvalidRequest

_TOP = ("orderNumber", "externalNumber")
_ITEM = ("orderItemId", "itemNumber", "storageName", "quantity", "type")


def check_paths(mapping: dict[str, str]) -> None:
    """Raises InvalidRequest naming each target whose path cannot be read."""
    broken = []
    for target, path in mapping.items():
        try:
            jsonpath.compile(path)
        except jsonpath.JSONPathError:
            broken.append((f"mapping[{target}]", f"is not a JSONPath: {path}"))
    if broken:
        raise InvalidRequest(broken)


def apply(mapping: dict[str, str], store: str, payload: object) -> dict[str, object]:
    """Returns the standard payload; a target without a path is read where the standard has it.

    Raises ValueError when a path cannot be looked for.
    """
    return {
        "store": store,
        **_read(payload, mapping, _TOP, ""),
        "items": [
            _read(element, mapping, _ITEM, "items.") for element in _elements(payload, mapping)
        ],
    }


def _elements(payload: object, mapping: dict[str, str]) -> list[object]:
    """Returns the items: the matches of the path, or the elements of the one list it matches."""
    found = _matches(mapping.get("items", "$.items"), payload)
    return found[0] if len(found) == 1 and isinstance(found[0], list) else found


def _read(
    payload: object, mapping: dict[str, str], names: tuple[str, ...], prefix: str
) -> dict[str, object]:
    values = {name: _matches(mapping.get(prefix + name, f"$.{name}"), payload) for name in names}
    return {
        name: _text(found[0]) for name, found in values.items() if found and found[0] is not None
    }


def _matches(path: str, payload: object) -> list[Any]:
    """Returns what a path finds; a scalar holds nothing to find. Raises ValueError when it cannot
    be looked for, as in a body that is nested too deeply.
    """
    try:
        return jsonpath.findall(path, payload) if isinstance(payload, dict | list) else []
    except (jsonpath.JSONPathError, RecursionError):
        raise ValueError(f"{path} cannot be looked for in this body") from None


def _text(value: object) -> object:
    """Returns numbers as text: a store's own ids may be numbers, the standard's are strings."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
