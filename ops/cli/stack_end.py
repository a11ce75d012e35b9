"""The commands `penstock down` and `penstock restart`: the local stack ends in good order, wherever it was started."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from engine.errors import Broken
from ops.cli.stack import DataDirOption

if TYPE_CHECKING:
    from ops.stack.data_dir import DataDir

_END_WITHIN_S = 180.0  # above the sum of what its parts are given, one after the other
_LOOK_AGAIN_S = 0.1


def down(data_dir: DataDirOption = Path(".penstock")) -> None:
    """End the local stack that runs in --data-dir, in good order; its data stays.

    Example: penstock down
    """
    from ops.stack.data_dir import DataDir

    _end(DataDir(data_dir))


def restart(context: typer.Context, data_dir: DataDirOption = Path(".penstock")) -> None:
    """End the local stack that runs in --data-dir in good order, and start it again here, with the options it had.

    Options of `penstock up` that are given come behind them, and win.

    Example: penstock restart --workers 4
    """
    from ops.stack.data_dir import DataDir

    folder = DataDir(data_dir)
    _check_options_of_up(context)
    options = folder.options()
    _end(folder)
    words = ["up", *options, *context.args, "--data-dir", str(folder.root)]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "ops.cli.main", *words])


def _check_options_of_up(context: typer.Context) -> None:
    """What `penstock up` would refuse is refused while the stack still runs."""
    parent = context.parent
    up = parent.command.get_command(parent, "up") if parent is not None else None  # type: ignore[attr-defined]
    if up is not None:
        up.make_context("up", list(context.args), parent=parent)


def _end(folder: DataDir) -> None:
    """Raises Broken when nothing runs there, or it does not end."""
    pid = folder.holder()
    if pid is None:
        raise Broken(f"nothing runs in {folder.root}; --data-dir names another folder")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    give_up_at = time.monotonic() + _END_WITHIN_S
    while folder.holder() == pid:
        if time.monotonic() > give_up_at:
            raise Broken(f"the stack in {folder.root} (pid {pid}) did not end within {_END_WITHIN_S:.0f} s")
        time.sleep(_LOOK_AGAIN_S)
    print(f"the stack in {folder.root} has ended", flush=True)
