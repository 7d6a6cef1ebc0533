"""The rules of the protos, applied. They are written beside the fields; this only tells them to
the caller.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import protovalidate
from google.protobuf.message import Message

from server.errors import InvalidRequest

_validator = protovalidate.Validator()
# What a pattern asks for, by a part that only it has: callers need the rule, not its machine.
_PATTERNS = (("[:space:]", "must not be blank"), ("[Tt ]", "must be an RFC 3339 time"))


class Violation(NamedTuple):
    """A broken rule: the field as JSON spells it, the rule's id, and what is wrong."""

    field: str
    rule: str
    text: str


def check(request: Message, faults: Sequence[tuple[str, str]] = ()) -> None:
    """Raises InvalidRequest with every broken rule of a request, after the faults that are known
    already.
    """
    broken = violations(request)
    if broken or faults:
        raise InvalidRequest([*faults, *((each.field, each.text) for each in broken)])


def violations(request: Message) -> list[Violation]:
    """Returns every broken rule of a request."""
    found = _validator.collect_violations(request)
    return [_tell(request.DESCRIPTOR, violation.proto) for violation in found]


def _tell(message: Any, violation: Any) -> Violation:
    elements = violation.field.elements if violation.field else []
    return Violation(_path(message, elements), str(violation.rule_id), _sentence(violation))


def _sentence(violation: Any) -> str:
    rule, message = str(violation.rule_id), str(violation.message)
    if rule == "required" or (rule == "string.min_len" and " 1 " in message):
        return "is required"
    if rule == "string.pattern":
        return next(words for part, words in _PATTERNS if part in message)
    return message


def _path(message: Any, elements: list[Any]) -> str:
    """Returns a field's path in JSON names, such as `quoteItems[0].quantity`."""
    path = ""
    for element in elements:
        name, message = _step(message, element.field_name)
        path += f".{name}" if path else name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return path


@cache
def _step(message: Any, name: str) -> tuple[str, Any]:
    field = message.fields_by_name.get(name) if message else None
    if field is None and message and name in message.oneofs_by_name:
        field = message.oneofs_by_name[name].fields[0]
    return (field.json_name, field.message_type) if field else (name, None)
