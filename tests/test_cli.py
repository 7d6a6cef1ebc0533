"""The console script, as far as it does not start a stack."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from databases import held
from inside import opened

from server import cli
from storage import sqlite

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="other systems schedule by themselves")
def test_the_servers_threads_do_not_interrupt_each_other() -> None:
    code = (
        "import os, threading; from server import cli; cli._let_threads_finish();"
        "later = threading.Thread(target=lambda: print(os.sched_getscheduler(0)));"
        "later.start(); later.join()"
    )

    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert int(printed.stdout) == os.SCHED_BATCH


def test_a_busy_database_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, file = f"sqlite:///{tmp_path / 'till.db'}", str(tmp_path / "book.jsonl")
    monkeypatch.setitem(sqlite.PRAGMAS, "busy_timeout", 20)
    monkeypatch.setenv("TILL_DATABASE", url)

    with opened(url):
        monkeypatch.setattr(sys, "argv", ["till", "export", file])
        cli.main()
        monkeypatch.setattr(sys, "argv", ["till", "import", file])
        with held(url), pytest.raises(SystemExit) as ended:
            cli.main()

    assert ended.value.code == "till import: the database is busy"
