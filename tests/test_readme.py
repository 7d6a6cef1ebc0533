"""README's commands, run as they are printed, against a stack of the test's own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from conftest import PATIENCE_SECONDS, ROOT, Stack, environment
from databases import rows
from mariadb import MariaDB

BIN = str(Path(sys.executable).parent)
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"\s*(curl|\S*grpcurl) ", line)
]
SCRIPTS = [
    line
    for block in BLOCKS
    for line in block.splitlines()
    if re.match(r"(TILL_\S+ )?\.venv/bin/till ", line)
]
MAKE = sorted(set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE)))


PRELUDE = [line.strip() for line in README.splitlines() if line.startswith("eval ")]
"""What makes the credentials known to the commands after it."""


def run(stack: Stack, command: str) -> str:
    """Runs a command with the stack's addresses in it, and returns what it printed."""
    rest = f"{stack.rest.base_url.host}:{stack.rest.base_url.port}"
    told = command.replace("127.0.0.1:8080", rest).replace("127.0.0.1:8081", stack.grpc)
    told = re.sub(r"^curl ", "curl --silent --show-error --fail-with-body ", told)
    script = "\n".join(["set -euo pipefail", *PRELUDE, told])
    ended = subprocess.run(
        ["bash", "-c", script.replace(".venv/bin", BIN)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_every_command_of_the_readme_works(fresh_stack: Stack) -> None:
    printed = {command: run(fresh_stack, command) for command in COMMANDS}

    assert len(printed) >= 5
    answers = [json.loads(text) for command, text in printed.items() if command[:4] == "curl"]
    assert answers[0] == {
        "statusCode": 201,
        "body": {"message": "Order order01 submitted successfully"},
    }
    assert answers[1]["orders"][0]["order_id"] == "order01"
    assert answers[2]["orderNumber"] == str(answers[2]["orderId"])


def test_every_script_of_the_readme_moves_the_book(tmp_path: Path, mariadb: MariaDB) -> None:
    elsewhere = mariadb.database(f"till_{uuid4().hex}")
    for script in (".venv/bin/till tenant create ours", *SCRIPTS):
        name = "empty" if " restore " in script else "till"
        told = script.replace("mysql://…", elsewhere).replace(".venv/bin", BIN)
        subprocess.run(
            ["bash", "-c", told],
            cwd=tmp_path,
            env=environment() | {"TILL_DATABASE": f"sqlite:///{tmp_path}/{name}.db"},
            check=True,
            timeout=PATIENCE_SECONDS,
        )

    assert len(SCRIPTS) == 5
    assert {"till.db", "empty.db", "book.bak", "book.jsonl"} <= set(os.listdir(tmp_path))
    for url in (f"sqlite:///{tmp_path}/empty.db", elsewhere):
        assert ("ours",) in rows(url, "SELECT name FROM tenants")


@pytest.mark.parametrize("target", MAKE)
def test_every_target_that_the_readme_names_is_in_the_makefile(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
