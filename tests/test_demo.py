"""`till demo`, played twice against one stack: every step is right, and says so."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, Stack, environment

from server.demo import DOCUMENTS, SAMPLES


def play(stack: Stack) -> subprocess.CompletedProcess[str]:
    """Plays the demo against a stack."""
    address = {"TILL_REST_ADDRESS": f"{stack.rest.base_url.host}:{stack.rest.base_url.port}"}
    return subprocess.run(
        [sys.executable, "-m", "server.cli", "demo"],
        cwd=ROOT,
        env=environment() | address,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_demo_may_be_played_again(fresh_stack: Stack) -> None:
    first, second = play(fresh_stack), play(fresh_stack)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    told = [[json.loads(line) for line in each.stdout.splitlines()] for each in (first, second)]
    steps = [*SAMPLES, *DOCUMENTS]
    for played in told:
        assert [each["title"] for each in played] == [step.title for step in steps]
        assert all(each["status"] in step.right for each, step in zip(played, steps, strict=True))
    assert [each["status"] for each in told[0]].count(400) == 0
    assert [each["title"] for each in told[1] if each["status"] == 400] == [
        "4. Simple orders: the store's own number, taken once"
    ]
    reads = [each["answer"] for played in told for each in played if "3." in each["title"]]
    assert len({each["orderId"] for each in reads}) == 1, "the key gave its first answer again"


def test_without_a_stack_the_demo_says_what_to_do(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack.rest, "base_url", "http://127.0.0.1:9")

    played = play(stack)

    assert played.returncode == 1
    assert "is `make run` running?" in played.stderr
    assert "Traceback" not in played.stderr
