"""The rules of the house, as tests: who imports whom, how large things are, what the papers say."""

import ast
import re
import statistics
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from till.v1.error_pb2 import ErrorReason

from server import errors
from server.app import SERVICES
from server.config import Config
from storage.checkout_request import Code

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
FUNCTION_LINES_MEDIAN = 8
HALVES = {"stock": ["hold", "movement"]}
"""Stems that are two files in storage: what is kept back, and what moves."""


def sources(*rooms: str) -> list[Path]:
    """Returns the Python files of some rooms."""
    return sorted(path for room in rooms for path in (ROOT / room).glob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yields the full names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yields the functions of a file and how many lines they have, their docstrings left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            body = (
                node.body[1:]
                if isinstance(first, ast.Expr) and ast.get_docstring(node)
                else node.body
            )
            start = body[0].lineno if body else node.lineno
            yield f"{path.name}:{node.name}", (node.end_lineno or start) - start + 1


def routes() -> dict[str, list[str]]:
    """Returns `METHOD path` of every RPC of ours, by Service.Method."""
    found = {}
    images = descriptor_pb2.FileDescriptorSet.FromString(
        (ROOT / "generated/descriptors.pb").read_bytes()
    )
    for file in images.file:
        for service in file.service if file.package == "till.v1" else []:
            for method in service.method:
                rule = method.options.Extensions[annotations_pb2.http]
                every = [rule, *rule.additional_bindings]
                patterns = [(r.WhichOneof("pattern") or "", r) for r in every]
                found[f"{service.name}.{method.name}"] = [
                    f"{kind.upper()} {getattr(r, kind)}" for kind, r in patterns if kind
                ]
    return found


@pytest.mark.parametrize("path", sources("storage"), ids=lambda path: path.name)
def test_storage_knows_no_grpc_and_no_messages(path: Path) -> None:
    strangers = {"grpc", "google", "till", "buf", "server", "tests", "protovalidate"}

    assert not {name for name in imports(path) if name.split(".")[0] in strangers}


@pytest.mark.parametrize("path", sources("server"), ids=lambda path: path.name)
def test_the_server_speaks_no_sql(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in {"peewee", "sqlite3"}}


@pytest.mark.parametrize("path", sources("server"), ids=lambda path: path.name)
def test_no_servicer_imports_another(path: Path) -> None:
    stems = {"order", "lifecycle", "checkout", "draft", "draft_item", "inventory", "stock", "store"}
    stems |= {"tenant", "operation"}
    others = {f"server.{stem}" for stem in stems - {path.stem}}

    assert path.stem == "app" or not others & set(imports(path))


def test_transactions_are_begun_by_the_engines_sides_and_migrations_alone() -> None:
    begun = re.compile(r"\batomic\(|\"(BEGIN|COMMIT|ROLLBACK|SAVEPOINT)")

    assert [
        path.name for path in sources("server", "storage") if begun.search(path.read_text())
    ] == ["group_commit.py", "lease.py", "migrate.py", "mysql.py", "pool.py", "sqlite.py"]


@pytest.mark.parametrize("path", sources("server", "storage", "tests"), ids=lambda path: path.name)
def test_a_file_fits_in_the_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


def test_functions_are_short() -> None:
    sizes = dict(size for path in sources("server", "storage") for size in functions(path))

    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES_MAX} == {}
    assert statistics.median(sizes.values()) <= FUNCTION_LINES_MEDIAN


@pytest.mark.parametrize("path", sources("server", "storage"), ids=lambda path: path.name)
def test_public_things_say_what_they_mean(path: Path) -> None:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    top = [node for node in tree.body if isinstance(node, kinds) and node.name[0] != "_"]
    owners = [node for node in top if isinstance(node, ast.ClassDef)]
    methods = [node for owner in owners for node in owner.body if isinstance(node, kinds[:2])]
    public = [node for node in (*top, *methods) if node.name[0] != "_"]
    silent = [node.name for node in public if not ast.get_docstring(node)]

    assert ast.get_docstring(tree)
    assert silent == []


def test_one_stem_has_four_rooms() -> None:
    stems = (
        "order",
        "lifecycle",
        "checkout",
        "draft",
        "draft_item",
        "inventory",
        "stock",
        "store",
        "tenant",
    )
    for stem in stems:
        rooms = [f"protos/till/v1/{stem}.proto", f"server/{stem}.py", f"tests/test_{stem}.py"]
        rooms += [f"storage/{half}.py" for half in HALVES.get(stem, [stem])]
        assert [room for room in rooms if not (ROOT / room).exists()] == []


def test_envoy_transcodes_every_service() -> None:
    text = (ROOT / "envoy/envoy.yaml").read_text()
    yaml.safe_load(text)

    assert [service for service in SERVICES if service not in text] == []


def test_readme_tells_every_route() -> None:
    missing = [
        f"{method} {path}"
        for method, paths in routes().items()
        for path in paths
        if f"{path}`" not in README and f"`{path.split()[1]}`" not in README
    ]

    assert missing == []
    assert [method for method in routes() if f"`{method}`" not in README] == []


def test_readme_tells_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(TILL_\w+)` \| `(.*?)` \|", README, re.MULTILINE)

    assert rows == [(f"TILL_{field.name.upper()}", str(field.default)) for field in fields(Config)]


def test_readme_tells_every_checkout_error() -> None:
    section = README.split("## Checkout errors")[1].split("##")[0]

    assert [int(n) for n in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)] == [*Code]


def test_every_error_has_a_published_reason() -> None:
    reasons = {reason for _, reason in errors.TABLE.values()} | {"INTERNAL"}
    published = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - an enum, no dict

    assert reasons == published - {"UNSPECIFIED"}
