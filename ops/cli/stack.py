"""The commands `penstock up` and `penstock status`: their options, and what they print."""

from __future__ import annotations

import json
import re
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ops.stack.local_stack import StackOptions, StackPart

DataDirOption = Annotated[Path, typer.Option("--data-dir", help="The folder of the stack: data, keys and logs.")]
_LATENCY = re.compile(r"(\d{1,5})-(\d{1,5})")
_STORES = ("PENSTOCK_REDIS_URL", "PENSTOCK_DATABASE_URL")
_COLUMNS = ("what", "address~", "pid>")
_CURL = """\
curl -sS -w '\\n' {edge}/v1/payments -H 'X-API-Key: sk_local_merchant' -H 'Idempotency-Key: '"first-$RANDOM-$$" \\
  -H 'Content-Type: application/json' -H 'Prefer: wait=10' -d '{{"amount": 5000, "currency": "USD",
  "order_id": "order-1", "customer_id": "customer-1", "payment_method": {{"type": "card",
  "number": "4111111111111111", "cvv": "123", "expiry_month": 12, "expiry_year": 2030}}}}'"""


class Appendfsync(StrEnum):
    ALWAYS = "always"
    EVERYSEC = "everysec"


class ConnectorName(StrEnum):
    FICMART_BANK = "ficmart_bank"
    INSTANT = "instant"


def latency_range(text: str) -> str:
    found = _LATENCY.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise typer.BadParameter(f"{text!r} is no MIN-MAX in milliseconds, as in 100-2000")
    return text


def up(
    context: typer.Context,
    data_dir: DataDirOption = Path(".penstock"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Wipe the data of the last time first.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 2,
    dispatchers: Annotated[int, typer.Option(min=0, max=64, help="Processes that deliver webhooks.")] = 1,
    edge_port: Annotated[
        int, typer.Option(min=0, max=65535, envvar="PENSTOCK_EDGE_PORT", help="Port of the API; 0: any free.")
    ] = 8000,
    bank_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the bank; 0: any free.")] = 8787,
    partitions: Annotated[
        int,
        typer.Option(min=1, max=1024, envvar="PENSTOCK_PARTITIONS", help="Shares of work; fixed for the data's life."),
    ] = 16,
    bank_failure_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of calls that the bank fails.")] = 0.05,
    bank_latency_ms: Annotated[
        str, typer.Option(callback=latency_range, metavar="MIN-MAX", help="How long the bank takes, in milliseconds.")
    ] = "100-2000",
    bank_control: Annotated[
        bool, typer.Option("--bank-control", help="Switch the bank's control API for faults on.")
    ] = False,
    bank_extra_cards: Annotated[
        int, typer.Option(min=0, max=1_000_000, metavar="N", help="More seeded cards at the bank, for load.")
    ] = 0,
    appendfsync: Annotated[
        Appendfsync, typer.Option(help="always: a 202 is on disk. everysec: up to a second of them may be lost.")
    ] = Appendfsync.ALWAYS,
    connector: Annotated[
        ConnectorName, typer.Option(envvar="PENSTOCK_CONNECTOR", help="instant approves all in process, for load.")
    ] = ConnectorName.FICMART_BANK,
) -> None:
    """The whole of Penstock on this machine: real stores, mock bank, edge, workers, dispatchers. Ctrl-C stops it.

    Data stays in --data-dir. PENSTOCK_REDIS_URL and PENSTOCK_DATABASE_URL name stores of your own instead of the
    embedded ones; all other PENSTOCK_ variables are passed on to the processes.

    Examples:

      penstock up

      penstock up --fresh --workers 4 --bank-failure-rate 0 --bank-latency-ms 0-1

      penstock up --data-dir /tmp/second --edge-port 0 --bank-port 0
    """
    from ops.stack.address import Port
    from ops.stack.local_stack import StackOptions

    _check_fresh(fresh)

    def port(name: str, number: int) -> Port:
        source = context.get_parameter_source(name)
        return Port(number=number, given=source is not None and source.name != "DEFAULT")

    least, _, most = bank_latency_ms.partition("-")
    options = StackOptions(
        data_dir=data_dir,
        fresh=fresh,
        workers=workers,
        dispatchers=dispatchers,
        edge_port=port("edge_port", edge_port),
        bank_port=port("bank_port", bank_port),
        partitions=partitions,
        bank_failure_rate=bank_failure_rate,
        bank_latency_ms=(int(least), int(most)),
        bank_control=bank_control,
        bank_extra_cards=bank_extra_cards,
        appendfsync=appendfsync.value,
        connector=connector.value,
    )
    _run_stack(options)


def _check_fresh(fresh: bool) -> None:
    from ops.secret_file import variables

    if fresh and any(variables().get(name) for name in _STORES):
        raise typer.BadParameter(f"--fresh wipes embedded stores only: leave it out, or unset {' and '.join(_STORES)}")


def _run_stack(options: StackOptions) -> None:
    from ops.stack.local_stack import Stack
    from ops.stack.shutdown import alone_in_the_foreground

    _say(f"starting in {options.data_dir.absolute()}")
    with alone_in_the_foreground():
        Stack(options, say=_say, announce=_announce).run()
    _say("stopped")


def status(
    context: typer.Context,
    data_dir: DataDirOption = Path(".penstock"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """What runs, where, and whether it is well; exit code 1 while it is not.

    A deployment is looked at in its stores, where PENSTOCK_REDIS_URL and PENSTOCK_DATABASE_URL name them: versions and
    settings, clocks, which processes live, what waits and what is in doubt, with what to do about it. Without them, and
    with --data-dir, it is the local stack: where it is and what runs there.

    Examples:

      penstock status --json | jq -r .edge

      PENSTOCK_DATABASE_URL=postgresql://... PENSTOCK_REDIS_URL=redis://... penstock status
    """
    from ops.audit.ledger_view import read_unsettled_of
    from ops.cli.deployment_status import named_deployment, print_deployment
    from ops.stack.address import shown
    from ops.stack.data_dir import DataDir
    from ops.terminal import print_table

    chosen = context.get_parameter_source("data_dir")
    deployment = named_deployment(data_dir) if chosen is None or chosen.name == "DEFAULT" else None
    if deployment is not None:
        return print_deployment(deployment, as_json=as_json)
    state = DataDir(data_dir).state()
    del state["partitions"]
    unsettled = read_unsettled_of(state["database"])
    state["operations"] = unsettled.document()
    if as_json:
        typer.echo(json.dumps(state))
        return
    rows = []
    address = {"edge": state["edge"], "bank": state["bank"], "redis": state["redis"], "postgres": state["database"]}
    for each in state["processes"]:
        where = address.get(each["role"], f"http://127.0.0.1:{each['port']}")
        rows.append((each["role"], shown(where), str(each["pid"])))
    print_table(_COLUMNS, rows)
    typer.echo(unsettled.in_words())


def _announce(parts: list[StackPart]) -> None:
    from ops.terminal import print_table

    print_table(
        _COLUMNS, [(part.name, part.address, "elsewhere" if part.pid is None else str(part.pid)) for part in parts]
    )
    edge = next(part.address for part in parts if part.role == "edge")
    _say(f"\nThe API's reference: {edge}/docs. A first payment, to paste:\n\n{_CURL.format(edge=edge)}\n")
    command, shorter = _reached()
    _say(f"In another terminal, from this folder{shorter}:\n")
    _say(f"  {command} status")
    _say(f"  {command} listen --register --edge {edge}     # its webhooks, as they arrive\n")
    _say("Ctrl-C stops it all.")


def _reached() -> tuple[str, str]:
    """How a shell reaches this command, and what to say about making that shorter."""
    script = Path(sys.argv[0])
    if script.name != "penstock" or shutil.which("penstock") == str(script.absolute()):
        return "penstock", ""
    activate = script.with_name("activate")
    return str(script), f" (after `source {activate}`, penstock is enough)" if activate.exists() else ""


def _say(text: str) -> None:
    print(text, flush=True)
