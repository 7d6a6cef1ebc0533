"""The rules of the protos, as callers hear of them."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from buf.validate import validate_pb2
from conftest import ROOT
from google.protobuf.message_factory import GetMessageClass

from server.check import violations

PROTOS = sorted((ROOT / "protos/till/v1").glob("*.proto"))
FILES = [import_module(f"till.v1.{path.stem}_pb2") for path in PROTOS]
WORDS = {"must not be blank", "must be an RFC 3339 time"}


def patterned() -> Iterator[Any]:
    """Yields every field that has a pattern."""
    for file in FILES:
        for message in file.DESCRIPTOR.message_types_by_name.values():
            for field in message.fields:
                if field.GetOptions().Extensions[validate_pb2.field].string.pattern:
                    yield field


@pytest.mark.parametrize("field", [*patterned()], ids=lambda field: field.full_name)
def test_a_pattern_is_told_in_words(field: Any) -> None:
    request = GetMessageClass(field.containing_type)()
    if field.message_type:
        getattr(request, field.name).value = " "
    else:
        setattr(request, field.name, " ")
    told = [each.text for each in violations(request) if each.field == field.json_name]
    assert len(told) == 1 and told[0] in WORDS
