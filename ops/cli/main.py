"""The `penstock` command: the local stack, each process by itself, and administration.

Everything heavy is imported where it is needed, so that help is instant. Errors are sentences on stderr: exit code 2
for a wrong command line, 1 for everything else that went wrong (2 where 1 is a verdict).
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # imported there, and not listed
from typer.core import TyperCommand

from ops.cli import command_group
from ops.cli.audit import audit
from ops.cli.command_group import CommandGroup, elsewhere
from ops.cli.dead_letters import dead_letter_app
from ops.cli.holds import hold_app
from ops.cli.journal import verify_journal
from ops.cli.master_keys import master_key_app
from ops.cli.merchants import key_app, merchant_app
from ops.cli.partitions import partitions
from ops.cli.payments import payment_app
from ops.cli.stack import DataDirOption, status, up
from ops.cli.stack_end import down, restart

if TYPE_CHECKING:
    from ops.assembly.settings import Settings

_LEAVE_OPTIONS: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}
_PASS_ON: dict[str, Any] = {**_LEAVE_OPTIONS, "help_option_names": []}

app = typer.Typer(
    name="penstock",
    help="Penstock, a payment gateway engine. Start with `penstock up`: the whole of it on this machine.",
    epilog="Each command explains itself: penstock COMMAND --help",
    cls=CommandGroup,
    context_settings={"help_option_names": command_group.HELP_OPTIONS},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(merchant_app, name="merchant", rich_help_panel="Administration")
app.add_typer(key_app, name="key", rich_help_panel="Administration")
app.add_typer(master_key_app, name="master-key", rich_help_panel="Administration")
app.add_typer(payment_app, name="payment", rich_help_panel="Operators")
app.add_typer(dead_letter_app, name="dead-letters", rich_help_panel="Operators")
app.add_typer(hold_app, name="holds", rich_help_panel="Operators")
app.command(rich_help_panel="On this machine")(up)
app.command(rich_help_panel="On this machine")(status)
app.command(rich_help_panel="On this machine")(down)
app.command(rich_help_panel="On this machine", context_settings=_LEAVE_OPTIONS)(restart)
app.command(rich_help_panel="Operators")(partitions)
app.command(rich_help_panel="Is it all in order?")(audit)
app.command(rich_help_panel="Is it all in order?")(verify_journal)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


class ProcessCommand(TyperCommand):
    """A command whose help lists the variables that configure it."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        from ops.cli.settings_help import print_settings

        print_settings(self.name or "")


@app.command(cls=ProcessCommand, rich_help_panel="Processes of a deployment")
def edge() -> None:
    """The merchants' door: serves the HTTP API until SIGTERM.

    Example: PENSTOCK_DATABASE_URL=postgresql://... PENSTOCK_REDIS_URL=redis://... penstock edge
    """
    from ops.assembly.edge import run_edge
    from ops.assembly.settings import load_settings

    run_edge(load_settings())


@app.command(cls=ProcessCommand, rich_help_panel="Processes of a deployment")
def worker() -> None:
    """Runs payments: takes a fair share of the partitions; SIGTERM drains and gives them back.

    Example: PENSTOCK_WORKER_NAME=worker-a PENSTOCK_BANK_URL=http://bank:8787 penstock worker
    """
    from ops.assembly.settings import load_settings
    from ops.assembly.worker import run_worker

    run_worker(load_settings())


@app.command(cls=ProcessCommand, rich_help_panel="Processes of a deployment")
def auditor() -> None:
    """Looks whether the invariants hold, again and again, and tells by metrics and logs. Holds no key.

    Example: PENSTOCK_AUDITOR_PORT=9100 PENSTOCK_DATABASE_URL=postgresql://... penstock auditor
    """
    from ops.assembly.auditor import run_auditor
    from ops.assembly.settings import keyless

    run_auditor(keyless())


@app.command(cls=ProcessCommand, rich_help_panel="Processes of a deployment")
def dispatcher() -> None:
    """Delivers webhooks, signed and retried. Any number of them; SIGTERM finishes what is under way.

    Example: PENSTOCK_DATABASE_URL=postgresql://... PENSTOCK_DISPATCHER_PORT=9100 penstock dispatcher
    """
    from ops.assembly.dispatcher import run_dispatcher
    from ops.assembly.settings import load_settings

    run_dispatcher(load_settings())


@app.command(cls=ProcessCommand, rich_help_panel="Processes of a deployment")
def bank() -> None:
    """The mock bank, with its Swagger UI at /docs. For tests and demonstrations only.

    Example: PORT=8787 FAILURE_RATE=0 PENSTOCK_BANK_DATABASE_URL=postgresql://.../penstock_bank penstock bank
    """
    from bank.simulator.server import run
    from bank.simulator.settings import BankSettings
    from ops.secret_file import variables
    from ops.store_url import given_url

    given_url("PENSTOCK_BANK_DATABASE_URL")
    run(BankSettings.from_env(variables()))


@app.command(cls=ProcessCommand, rich_help_panel="Processes of a deployment")
def migrate(
    local_keys: Annotated[
        bool, typer.Option("--local-keys", help="Add the merchants and keys of `penstock up`, which everybody knows.")
    ] = False,
) -> None:
    """Bring the database of PENSTOCK_DATABASE_URL to this version. Safe to run again, and at once from several places.

    Example: PENSTOCK_DATABASE_URL=postgresql://... PENSTOCK_PARTITIONS=16 penstock migrate
    """
    from engine.accounts.merchants import refuse_local_keys
    from engine.ledger.migrate import migrate as bring_up_to_date
    from engine.ledger.migrate import seed_local

    settings = _schema_settings()
    if local_keys and settings.env == "production":
        raise typer.BadParameter("everybody knows these keys: leave --local-keys out when PENSTOCK_ENV is production")
    bring_up_to_date(settings.database_url, settings.partitions)
    if local_keys:
        seed_local(settings.database_url)
    if settings.env == "production":
        refuse_local_keys(settings.database_url)
    typer.echo(f"the database is ready, with {settings.partitions} partitions")


@app.command(rich_help_panel="On this machine")
def streams(data_dir: DataDirOption = Path(".penstock"), as_json: JsonOption = False) -> None:
    """What waits in Redis, partition by partition: backlog (XLEN), pending (XPENDING), lag, and who owns it.

    Reads PENSTOCK_REDIS_URL and PENSTOCK_PARTITIONS, or the stack that runs in --data-dir.

    Example: penstock streams --json | jq 'map(.backlog) | add'
    """
    from ops.audit.backlog import print_backlog, read_backlog
    from ops.stack.data_dir import DataDir
    from ops.store_url import given_url

    url = given_url("PENSTOCK_REDIS_URL")
    if url:
        rows = read_backlog(url, _schema_settings().partitions)
    else:
        running = DataDir(data_dir).state()
        rows = read_backlog(running["redis"], running["partitions"])
    if as_json:
        typer.echo(json.dumps([row.as_dict() for row in rows]))
    else:
        print_backlog(rows)


@app.command(rich_help_panel="On this machine")
def version() -> None:
    """Which Penstock, and which Python runs it."""
    typer.echo(command_group.version())


@app.command(rich_help_panel="On this machine")
def completion(shell: Annotated[Shell, typer.Argument(help="Whose script to print.")]) -> None:
    """Print the script that makes a shell complete commands and options; --install-completion installs it for good.

    Example: source <(penstock completion bash)
    """
    typer.echo(get_completion_script(prog_name="penstock", complete_var="_PENSTOCK_COMPLETE", shell=shell.value))


# Each of these brings much with it, and is imported when it is meant.
_MEASURES = elsewhere(
    "ops.bench.gateway:bench", webhooks="ops.bench.webhooks:bench_webhooks", bare="ops.bench.bare:bench_bare"
)


@app.command(cls=_MEASURES, rich_help_panel="On this machine")
def bench() -> None:
    """Measure throughput and latency of payments, or of webhooks, against a stack of its own.

    [dim]penstock bench --help, penstock bench webhooks --help; and with nothing in the way: penstock bench bare[/dim]
    """


@app.command(cls=elsewhere("ops.demo.command:demo"), rich_help_panel="On this machine")
def demo() -> None:
    """The FicMart story from order to refund, against a stack of its own.  [dim]penstock demo --help[/dim]"""


@app.command(cls=elsewhere("ops.chaos.command:chaos"), rich_help_panel="On this machine")
def chaos() -> None:
    """Every fault against a stack of its own, by a seed, and the count afterwards.  [dim]penstock chaos --help[/dim]"""


@app.command(cls=elsewhere("ops.listen.command:listen"), rich_help_panel="On this machine")
def listen() -> None:
    """Receive webhooks and print them, verified; fails on request.  [dim]penstock listen --help[/dim]"""


def _schema_settings() -> Settings:
    """The settings for work on one store, which needs neither secrets nor a bank."""
    from ops.assembly.settings import keyless
    from ops.secret_file import variables

    return keyless({"PENSTOCK_REDIS_URL": "redis://127.0.0.1", **variables()})


def main() -> None:
    """The entry point: run the command; what goes wrong on purpose becomes a sentence and exit code 1."""
    from ops.service_link import drop_links
    from ops.stack.supervisor import follow_supervisor

    drop_links()  # options of commands have variables, too
    follow_supervisor()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        from ops.errors import or_exit

        with or_exit(1):
            raise


if __name__ == "__main__":
    main()
