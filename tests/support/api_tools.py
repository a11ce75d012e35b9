"""Other people's tools for OpenAPI documents, by exact version, in a folder of their own beside the sources.

They are no dependencies of ours: some of them want other versions of what we run on. Who cannot get them (no network,
no Node.js, no Java) skips the tests that need them; in CI, where CI is set, that is a failure.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HOME = ROOT / ".api-tools"
# Generators and a checker, then what a client that openapi-generator makes imports.
PYTHON = (
    "openapi-generator-cli==7.26.0",  # with its jar inside; runs on Java 11 or newer
    "openapi-python-client==0.29.1",
    "schemathesis==4.32.5",
    "python-dateutil==2.9.0.post0",
    "urllib3>=2.6,<3",
)
NODE = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3")
_INSTALL_WITHIN_S = 600
# openapi-python-client formats with ruff, which is one of ours.
_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
_STAMP = "\n".join((sys.version, *PYTHON, *NODE))


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Where the tools are."""

    python: Path
    node_modules: Path

    def command(self, name: str) -> str:
        """A program of the Python tools."""
        return str(self.python.parent / name)

    def script(self, name: str) -> str:
        """A program of the Node.js tools."""
        return str(self.node_modules / ".bin" / name)


def the_tools() -> Tools:
    """The tools, fetched once for all runs. Skips the test, in words, where they cannot be had."""
    missing = [program for program in ("node", "npm", "java") if shutil.which(program) is None]
    if missing:
        _do_without(f"not installed: {', '.join(missing)}")
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = HOME / "stamp"
        if not stamp.exists() or stamp.read_text() != _STAMP:
            _install()
            stamp.write_text(_STAMP)
    return Tools(python=HOME / "venv" / "bin" / "python", node_modules=HOME / "node_modules")


def run(*command: str, folder: Path, **environ: str) -> str:
    """What a command printed, both streams; fails the test when it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": _PATH, **environ},
        capture_output=True,
        text=True,
        timeout=_INSTALL_WITHIN_S,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(command)}\n{said[-9000:]}"
    return said


def _install() -> None:
    pip = str(HOME / "venv" / "bin" / "pip")
    try:
        for command in (
            (sys.executable, "-m", "venv", "--clear", str(HOME / "venv")),
            (pip, "install", "--quiet", "--disable-pip-version-check", *PYTHON),
            ("npm", "install", "--silent", "--no-package-lock", "--no-audit", "--prefix", str(HOME), *NODE),
        ):
            run(*command, folder=HOME)
    except (AssertionError, subprocess.TimeoutExpired) as fault:
        pytest.skip(f"the tools for OpenAPI documents cannot be fetched now: {fault}"[:2000])


def _do_without(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"CI needs the tools for OpenAPI documents, and they are not there: {reason}")
    pytest.skip(f"the tools for OpenAPI documents are not there: {reason}")
