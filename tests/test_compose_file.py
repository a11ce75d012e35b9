"""docker-compose.yml, the image and the Procfile name what exists, without a Docker engine to try them."""

import os
import re
import shlex
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from bank.simulator.settings import BankSettings
from ops.assembly.settings import Settings, keyless, load_settings
from ops.cli.main import app

ROOT = Path(__file__).parent.parent
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_TEXT)["services"]
DOCKERFILE = (ROOT / "ops" / "Dockerfile").read_text()
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
PROCESSES = {"edge", "worker", "auditor", "dispatcher", "bank"}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?(?P<complaint>[^}]+))?}")
PINNED = re.compile(r"([a-z]+/)?[a-z]+:\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `make up` writes to .env."""
    file = tmp_path_factory.mktemp("compose") / ".env"
    subprocess.run([ROOT / "ops" / "compose-secrets.sh", file], check=True, stdout=subprocess.PIPE)
    assert file.stat().st_mode & 0o777 == 0o600
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def environment(service: str, secrets: dict[str, str]) -> dict[str, str]:
    """What a container of the service sees when nothing but the secrets is set."""

    def value(found: re.Match[str]) -> str:
        return secrets.get(found["name"]) or str(found["default"])

    given: dict[str, Any] = SERVICES[service]["environment"]
    return {name: VARIABLE.sub(value, str(text)) for name, text in given.items()}


def refused_by_the_command_line(arguments: list[str]) -> str | None:
    """None for a command line of `penstock` that parses; it is not run."""
    group = typer.main.get_command(app)
    try:
        context = group.make_context("penstock", list(arguments))
        _, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]
        command.make_context(command.name, rest, parent=context)
    except Exception as error:
        return repr(error)
    return None


@pytest.mark.parametrize("service", OURS)
def test_every_container_of_ours_runs_a_real_command(service: str) -> None:
    entrypoint = re.findall(r'^ENTRYPOINT \["(.+)"\]', DOCKERFILE, re.MULTILINE)

    program, *arguments = [*entrypoint, *SERVICES[service]["command"]]

    assert program == "penstock"
    assert arguments[0] == service
    assert refused_by_the_command_line(arguments) is None


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    assert refused_by_the_command_line(["wroker"]) is not None
    assert refused_by_the_command_line(["edge", "--port", "1"]) is not None


@pytest.mark.parametrize("service", ["edge", "worker", "dispatcher"])
def test_edge_worker_and_dispatcher_start_with_the_variables_they_are_given(
    service: str, secrets: dict[str, str]
) -> None:
    settings = load_settings(environment(service, secrets))

    assert (settings.edge_host, settings.partitions) == ("0.0.0.0", 16)
    assert secrets["POSTGRES_PASSWORD"] in settings.database_url


def test_the_auditor_starts_with_the_variables_it_is_given_and_has_no_key(secrets: dict[str, str]) -> None:
    given = environment("auditor", secrets)

    assert keyless(given).auditor_port == 9100
    assert not any("KEY" in name for name in given)


def test_the_bank_starts_with_the_variables_it_is_given(secrets: dict[str, str]) -> None:
    settings = BankSettings.from_env(environment("bank", secrets))

    assert (settings.host, settings.port) == ("0.0.0.0", 8787)
    assert settings.database_url.endswith("/penstock_bank")


def test_a_worker_drains_before_its_container_is_killed() -> None:
    drain_s = Settings.model_fields["drain_ms"].default / 1000

    assert float(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > drain_s


def test_there_are_two_workers_that_share_the_partitions(secrets: dict[str, str]) -> None:
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    assert "ports" not in SERVICES["worker"]  # a published port would let only one start
    assert "PENSTOCK_WORKER_NAME" not in environment("worker", secrets)  # nor may they share a name
    assert (
        load_settings(environment("worker", secrets)).worker_name
        != load_settings(environment("worker", secrets)).worker_name
    )


def test_images_are_pinned() -> None:
    images = [SERVICES[name]["image"] for name in SERVICES]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)

    assert [image for image in images if not PINNED.fullmatch(image)] == []
    assert {SERVICES[name]["image"] for name in OURS} == {f"penstock:{metadata.version('penstock')}"}


def test_whatever_keeps_running_has_a_health_check() -> None:
    without = [name for name, service in SERVICES.items() if "healthcheck" not in service]

    assert without == ["migrate"]
    assert SERVICES["migrate"]["restart"] == "no"


def test_health_checks_ask_the_port_the_process_listens_on(secrets: dict[str, str]) -> None:
    port = {
        "edge": "PENSTOCK_EDGE_PORT",
        "worker": "PENSTOCK_WORKER_PORT",
        "auditor": "PENSTOCK_AUDITOR_PORT",
        "bank": "PORT",
    }

    for service, variable in port.items():
        assert f":{environment(service, secrets)[variable]}/" in SERVICES[service]["healthcheck"]["test"][-1]


def test_nothing_waits_for_a_service_that_is_not_there_or_cannot_become_so() -> None:
    for name, service in SERVICES.items():
        for other, wanted in service.get("depends_on", {}).items():
            healthy = wanted["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in SERVICES[other]), f"{name} waits for {other}"


def test_redis_keeps_what_it_took() -> None:
    command = shlex.join(SERVICES["redis"]["command"])

    assert "--appendonly yes --appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_no_secret_has_a_default(secrets: dict[str, str]) -> None:
    found = [variable for variable in VARIABLE.finditer(COMPOSE_TEXT) if re.search("PASSWORD|KEY", variable["name"])]

    assert {variable["name"] for variable in found} == set(secrets)
    assert all(variable["complaint"] for variable in found)


def test_secrets_are_made_once(tmp_path: Path) -> None:
    script, file = ROOT / "ops" / "compose-secrets.sh", tmp_path / ".env"
    subprocess.run([script, file], check=True, stdout=subprocess.PIPE)
    before = file.read_text()

    subprocess.run([script, file], check=True)

    assert file.read_text() == before


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_is_built_from_what_the_package_consists_of() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]

    assert {"engine", "http", "bank", "ops", "pyproject.toml", "constraints.txt"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
    assert "*" in ignored
    assert all(name.removeprefix("!") in copied for name in ignored if name.startswith("!"))


def test_the_procfile_has_one_line_for_each_kind_of_process() -> None:
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())

    assert set(lines) == PROCESSES
    for name, command in lines.items():
        words = shlex.split(command)
        assert words[-2:] == ["penstock", name]
        assert refused_by_the_command_line(words[-1:]) is None


def test_make_alone_prints_every_verb() -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    told = subprocess.run(["make", "-C", ROOT], check=True, capture_output=True, text=True, env=ours).stdout

    for (
        verb
    ) in "install setup hooks build ps restart run demo test test-fast lint types fmt bench up logs down clean".split():
        assert re.search(rf"^  make {verb} +\S", told, re.MULTILINE), verb
