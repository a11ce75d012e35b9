"""The group of all `penstock` commands: what each of them understands, and what is refused before any of them runs.

Each command, however deep, answers -h and --version. Empty arguments and control characters are refused here, once,
because no command has a use for them. A command whose module brings much with it has a stand-in; the module is imported
when the command is run, explained or completed, and not for every help.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import cache
from importlib import import_module, metadata
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

HELP_OPTIONS = ["-h", "--help"]
_UNPRINTABLE = ("Cc", "Cs")  # control characters, and bytes that are no UTF-8

Command = TyperCommand | TyperGroup


def version() -> str:
    """Which Penstock, and which Python runs it."""
    return f"penstock {metadata.version('penstock')} (Python {sys.version.split()[0]})"


class Elsewhere(TyperCommand):
    """Stands in the help for a command of another module. `places`: where it is, by its mode, as "module:function".

    The mode "" is the command itself; `penstock bench bare` is the mode "bare" of bench.
    """

    places: ClassVar[Mapping[str, str]]

    def found(self, arguments: Sequence[str]) -> tuple[str, Command, list[str]]:
        """The name and the command that is meant, and its arguments."""
        name, mode = str(self.name), arguments[0] if arguments and arguments[0] in self.places else ""
        module, _, function = self.places[mode].partition(":")
        try:
            callback = getattr(import_module(module), function)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            typer.echo(f"penstock: this installation has no {name}", err=True)
            raise typer.Exit(1) from None
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        alone.command(name=name)(callback)
        command = get_command(alone)
        assert isinstance(command, TyperCommand)
        return f"{name} {mode}".strip(), command, list(arguments[1:] if mode else arguments)


def elsewhere(place: str, **modes: str) -> type[Elsewhere]:
    """The class of the command at this place, with the places of its modes."""
    return type("Elsewhere", (Elsewhere,), {"places": {"": place, **modes}})


class CommandGroup(TyperGroup):
    """The root of the commands. Everything below it is made to behave likewise."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in _all(self):
            _equip(command, shown=command is self)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises UsageError for what no command takes."""
        if not ctx.resilient_parsing:
            for position, argument in enumerate(args):
                if fault := _fault(argument):
                    before = args[position - 1] if position else ""
                    where = f"the value of {before}" if before.startswith("-") else f"argument {position + 1}"
                    ctx.fail(f"{where} {fault}")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, Elsewhere):
            name, command, rest = command.found(rest)
            _equip(command, shown=False)
        return name, command, rest


def _all(command: Any) -> Iterator[Command]:
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from _all(each)


def _equip(command: Command, *, shown: bool) -> None:
    option: Any = copy(_version_option())
    option.hidden, option.expose_value = not shown, False
    command.params.append(option)


@cache
def _version_option() -> Any:
    (option,) = get_command(_with_version).params
    return option


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(version())
        raise typer.Exit


_with_version = typer.Typer(add_completion=False)


@_with_version.command()
def _(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Which Penstock, and which Python runs it."
        ),
    ] = False,
) -> None: ...


def _fault(argument: str) -> str | None:
    """What is wrong with an argument, whatever it is for."""
    if not argument or (argument.startswith("--") and argument.endswith("=")):
        return "is empty: give one, or leave it out"
    if any(unicodedata.category(each) in _UNPRINTABLE for each in argument):
        shown = argument.encode("unicode_escape", "surrogatepass").decode()
        return f"has control characters, or bytes that are no UTF-8: {shown}"
    return None
