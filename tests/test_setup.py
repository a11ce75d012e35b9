"""`make setup` on a project of two small packages: it installs what is asked for, and notices what is broken.

The script is the real one, and so are venv and pip. The packages are wheels made here, so that no index is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent.parent / "ops" / "setup.sh"
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1"
optional-dependencies = { local = ["running"], dev = ["tiny[local]", "checking"] }
"""
# What hatchling does for the real project, in small: an editable wheel that points here.
BACKEND = '''
import os, pathlib, zipfile

METADATA = """Metadata-Version: 2.1
Name: tiny
Version: 1
Provides-Extra: local
Provides-Extra: dev
Requires-Dist: running; extra == "local"
Requires-Dist: tiny[local]; extra == "dev"
Requires-Dist: checking; extra == "dev"
"""

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("tiny.pth", os.getcwd())
        wheel.writestr("tiny-1.dist-info/METADATA", METADATA)
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.dist-info/entry_points.txt", "[console_scripts]\\ntiny = running:main\\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    return name
'''
VERSION = "import importlib.metadata as m; print(m.version({name!r}))"


class Project:
    """A folder with a pyproject.toml, pins, and the script under test."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder, self._wheels = folder, wheels
        (folder / "ops").mkdir(parents=True)
        shutil.copy(SCRIPT, folder / "ops")
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "backend.py").write_text(BACKEND)
        self.pin("1")

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    @property
    def site_packages(self) -> Path:
        return next(self.venv.glob("lib/python*/site-packages"))

    def pin(self, version: str) -> None:
        (self.folder / "constraints.txt").write_text(f"running=={version}\nchecking==1\n")

    def setup(self, extra: str, **environ: str) -> subprocess.CompletedProcess[str]:
        ours = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "VENV", "VIRTUAL_ENV")}
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self._wheels)}
        return subprocess.run(
            ["bash", self.folder / "ops" / "setup.sh", extra],
            env={**ours, **offline, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def has(self, name: str) -> str | None:
        """The version of a package that is installed and can be imported."""
        code = f"import {name}; " * (name != "tiny") + VERSION.format(name=name)
        done = subprocess.run([self.venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=False)
        return done.stdout.strip() or None

    def runs(self) -> bool:
        done = subprocess.run([self.venv / "bin" / "tiny"], capture_output=True, text=True, check=False)
        return done.stdout == f"{self.venv}\n"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name, version in (("running", "1"), ("running", "2"), ("checking", "1")):
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "import sys\ndef main(): print(sys.prefix)\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def project(tmp_path: Path, wheels: Path) -> Project:
    return Project(tmp_path / "project", wheels)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Project:
    """One for tests that leave it as it was or mended: making an environment takes seconds."""
    return Project(tmp_path_factory.mktemp("whole") / "project", wheels)


def done(said: subprocess.CompletedProcess[str]) -> bool:
    assert said.returncode == 0, said.stderr
    return "Installing" in said.stdout


def test_running_needs_less_than_the_checks_which_are_installed_on_top_and_stay(project: Project) -> None:
    assert done(project.setup("local"))
    running = (project.has("running"), project.has("checking"), project.runs())
    assert done(project.setup("dev"))
    mark = project.venv / "mark"
    mark.touch()
    again = done(project.setup("local"))

    assert running == ("1", None, True)
    assert (project.has("running"), project.has("checking"), project.runs()) == ("1", "1", True)
    assert not again, "who has what the checks need has what running needs"
    assert mark.exists()


def test_new_pins_and_new_requirements_are_installed_on_top_and_nothing_is_done_twice(whole: Project) -> None:
    whole.setup("local")
    mark = whole.venv / "mark"
    mark.touch()
    unchanged = done(whole.setup("local"))
    whole.pin("2")
    pinned = (done(whole.setup("local")), whole.has("running"))
    (whole.folder / "pyproject.toml").write_text(PROJECT + "# changed\n")
    changed = done(whole.setup("local"))
    (whole.folder / "pyproject.toml").write_text(PROJECT)
    whole.pin("1")

    assert not unchanged
    assert pinned == (True, "2")
    assert changed
    assert mark.exists(), "it was not made anew for that"


# fmt: off
DAMAGES: dict[str, Callable[[Project], object]] = {
    "interrupted":   lambda project: (project.venv / ".installed").unlink(),
    "python gone":   lambda project: (project.venv / "bin" / "python").unlink(),
    "package gone":  lambda project: (project.site_packages / "running.py").unlink(),
}
# fmt: on


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_made_anew(whole: Project, damage: Callable[[Project], object]) -> None:
    whole.setup("local")
    damage(whole)

    again = done(whole.setup("local"))

    assert again
    assert (whole.has("running"), whole.runs()) == ("1", True)
    assert not done(whole.setup("local"))


def test_an_install_that_failed_is_made_again(whole: Project) -> None:
    whole.setup("local")
    whole.pin("3")  # there is no such version
    failed = whole.setup("local")
    whole.pin("1")

    again = done(whole.setup("local"))

    assert failed.returncode != 0
    assert "ERROR: Cannot install tiny" in failed.stderr
    assert again
    assert (whole.has("running"), whole.runs()) == ("1", True)


def test_a_folder_that_moved_gets_commands_of_its_own(project: Project) -> None:
    project.setup("local")
    old = project.folder
    project.folder = old.with_name("moved elsewhere")
    shutil.copytree(old, project.folder, symlinks=True)

    again = done(project.setup("local"))

    assert again
    assert project.runs(), "and not those of the folder it was copied from"


def test_the_first_python_that_works_and_fits_is_taken(project: Project, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, does in (
        ("python3", "echo 'not installed' >&2; exit 127"),  # as version managers leave them
        ("python3.14", "exit 1"),  # what one of a version that does not fit answers when it is asked
        ("python3.13", f'exec "{sys.executable}" "$@"'),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{does}\n")
        (commands / name).chmod(0o755)

    installed = done(project.setup("local", PATH=f"{commands}:/usr/bin:/bin", VENV=".venv-second"))

    assert installed
    assert (project.folder / ".venv-second" / "bin" / "tiny").exists()
    assert not project.venv.exists(), "another folder was named"


def test_a_python_that_is_not_there_is_told_in_words_and_harms_nothing(whole: Project) -> None:
    whole.setup("local")

    said = whole.setup("local", PYTHON="python9")

    assert said.returncode == 1
    assert "no Python from 3.11 found as PYTHON=python9. Install one" in said.stderr
    assert whole.runs()
    assert not done(whole.setup("local"))


def test_a_link_is_refused_and_what_it_leads_to_is_not_wiped(project: Project, tmp_path: Path) -> None:
    treasure = tmp_path / "elsewhere" / "treasure"
    treasure.parent.mkdir()
    treasure.write_text("of somebody else")
    project.venv.symlink_to(treasure.parent)

    said = project.setup("local")

    assert said.returncode == 1
    assert "is a link" in said.stderr
    assert treasure.exists()
