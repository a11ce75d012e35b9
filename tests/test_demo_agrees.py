"""The demo as a visitor runs it: the story holds, and ledger and bank agree."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demo_ends_with_ledger_and_bank_in_agreement() -> None:
    story = subprocess.run(
        [sys.executable, "-m", "ops.cli.main", "demo", "--fast"],
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert story.returncode == 0, story.stdout[-3000:] + story.stderr[-3000:]
    assert "Ledger and bank agree" in story.stdout
    assert "✗" not in story.stdout
