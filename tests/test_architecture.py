"""The arrows between the folders, and the habits of every file (STYLE): broken ones fail here, not in a review."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.domain.lifecycle_diagram import lifecycle_document

ROOT = Path(__file__).parent.parent
FOLDERS = {"engine": ROOT / "engine", "edge": ROOT / "http" / "edge", "bank": ROOT / "bank", "ops": ROOT / "ops"}
MODULES = sorted(path for folder in FOLDERS.values() for path in folder.rglob("*.py"))
LUA = sorted((ROOT / "engine" / "streams" / "lua").glob("*.lua"))
SQL = sorted(path for folder in FOLDERS.values() for path in folder.rglob("*.sql"))

# Which packages each package may import, and only those. An import inside a package is free.
VALUES = {"engine", "engine.domain"}
LANGUAGE = {*VALUES, "engine.contracts"}  # all that edges and connectors know of the engine
STORES = {*LANGUAGE, "engine.security", "engine.resilience", "engine.streams", "engine.ledger"}
ENGINE = {*STORES, "engine.accounts", "engine.gateway", "engine.worker", "engine.webhooks"}
EDGE = {"edge", "edge.server", "edge.parsing", "edge.handlers", "edge.openapi"}
BANK = {"bank", "bank.simulator"}
# fmt: off
ALLOWED: dict[str, set[str]] = {
    "engine":            set(),
    "engine.domain":     {"engine"},
    "engine.contracts":  VALUES,
    "engine.security":   VALUES,
    "engine.resilience": LANGUAGE,
    "engine.streams":    {*VALUES, "engine.resilience"},
    "engine.ledger":     {*LANGUAGE, "engine.resilience", "engine.security"},
    "engine.accounts":   {"engine", "engine.ledger"},
    "engine.gateway":    STORES,
    "engine.worker":     STORES,
    "engine.webhooks":   {*LANGUAGE, "engine.security", "engine.ledger"},
    "edge.server":       LANGUAGE,
    "edge.parsing":      {*LANGUAGE, "edge.server"},
    "edge.openapi":      {*LANGUAGE, "edge.parsing"},
    "edge.handlers":     {*LANGUAGE, "edge.server", "edge.parsing", "edge.openapi"},
    "edge":              {*LANGUAGE, *EDGE},
    "bank":              LANGUAGE,
    "bank.simulator":    set(),
    "ops":               {*ENGINE, *BANK},
    "ops.audit":         {*ENGINE, *BANK, "ops"},
    "ops.assembly":      {*ENGINE, *EDGE, *BANK, "ops", "ops.audit"},
    "ops.stack":         {*ENGINE, *BANK, "ops", "ops.assembly"},
    "ops.cli":           {*ENGINE, *BANK, "ops", "ops.assembly", "ops.audit", "ops.stack"},
    "ops.bench":         {*ENGINE, *BANK, "ops", "ops.stack"},
    "ops.demo":          {*ENGINE, *BANK, "ops", "ops.audit", "ops.stack"},
    "ops.listen":        {*ENGINE, "ops", "ops.assembly", "ops.stack"},
    "ops.chaos":         {*ENGINE, *BANK, "ops", "ops.assembly", "ops.audit", "ops.bench", "ops.cli", "ops.stack"},
}
# fmt: on
# What no module of a package may import from outside: the domain is a function of its arguments.
WORLDLY = {"aiohttp", "anyio", "asyncio", "httpx", "os", "psycopg", "redis", "socket", "starlette", "structlog", "time"}
NEVER: dict[str, set[str]] = {
    "engine.domain": WORLDLY,
    "engine.contracts": WORLDLY,
    "engine.streams": {"psycopg"},
    "engine.ledger": {"redis"},
    "engine.webhooks": {"redis"},
    "edge.parsing": {"psycopg", "redis"},
    "edge.handlers": {"psycopg", "redis"},
}

FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "core", "base", "manager", "service", "processor"}
# Where an unexpected exception is not the end: the actor parks it as a dead letter, the ledger takes the row that
# raises out of its batch, the coalescer hands it to those who asked, a loop goes on with its next round, whatever a
# Redis client raises means that Redis is away, and the outermost doors turn it into a 500, an exit code or a log line.
MAY_CATCH_ALL = {
    "engine/worker/actor.py",
    "engine/batching.py",
    "engine/ledger/writer.py",
    "engine/loop.py",
    "engine/streams/scripts.py",
}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _package(path: Path) -> str:
    return next(name for name, folder in FOLDERS.items() if path.is_relative_to(folder))


def _imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}: imports say where from"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(dotted: str) -> str:
    """The package that a dotted name lies in: two names deep where there is a folder, else one."""
    first, _, rest = dotted.partition(".")
    second = rest.partition(".")[0]
    return f"{first}.{second}" if second and (FOLDERS[first] / second).is_dir() else first


def _room_of(path: Path) -> str:
    package = _package(path)
    return _room(".".join((package, *path.relative_to(FOLDERS[package]).with_suffix("").parts)))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_the_arrows_point_one_way(path: Path) -> None:
    room, imported = _room_of(path), list(_imports(path))

    reached = {_room(name) for name in imported if name.partition(".")[0] in FOLDERS} - {room}

    assert reached <= ALLOWED[room]
    assert not {name.partition(".")[0] for name in imported} & NEVER.get(room, set())


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_says_why_it_exists_in_a_few_lines(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))

    assert docstring
    assert len(docstring.splitlines()) <= 12
    assert path.stem not in FORBIDDEN_NAMES


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 75, f"{node.name} is too long"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_an_exception_of_any_kind_is_caught_only_where_the_reason_stands(path: Path) -> None:
    caught = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ExceptHandler)]

    assert all(handler.type is not None for handler in caught), "no bare except"
    if _package(path) == "engine" and _name(path) not in MAY_CATCH_ALL:
        kept = [handler for handler in caught if ast.unparse(handler.body[-1]) != "raise"]
        names = [ast.unparse(handler.type) for handler in kept if handler.type is not None]
        assert not {"Exception", "BaseException"} & set(names)


@pytest.mark.parametrize("path", [path for path in MODULES if _package(path) != "ops"], ids=_name)
def test_no_sql_lives_in_python(path: Path) -> None:
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]

    statements = [
        text for text in texts if isinstance(text, str) and re.match(r"\s*(SELECT|INSERT|UPDATE|WITH) ", text)
    ]
    assert statements == []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_log_line_has_no_second_name(path: Path) -> None:
    # Its name is structlog's own argument `event`: a field of that name raises where nothing else can go wrong.
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log."):
            assert "event" not in [word.arg for word in node.keywords], f"line {node.lineno}"


def test_no_two_packages_import_each_other() -> None:
    order: list[str] = []
    while len(order) < len(ALLOWED):
        free = [room for room, allowed in ALLOWED.items() if room not in order and allowed - {room} <= set(order)]
        assert free, f"a circle among {sorted(set(ALLOWED) - set(order))}"
        order.extend(free)


def test_http_is_a_folder_and_no_package() -> None:
    # A top-level package of that name would hide Python's own http, which uvicorn, Starlette and httpx need.
    assert not (ROOT / "http" / "__init__.py").exists()
    assert not (ROOT / "tests" / "http").exists()


def test_nothing_is_left_to_do() -> None:
    unfinished = re.compile("TO" + "DO|FIX" + "ME|NotImpl" + "ementedError")
    sources = [*MODULES, *LUA, *SQL, *sorted((ROOT / "tests").rglob("*.py"))]

    assert [_name(path) for path in sources if unfinished.search(path.read_text())] == []


@pytest.mark.parametrize("path", LUA, ids=_name)
def test_a_script_has_its_header(path: Path) -> None:
    lines = path.read_text().splitlines()
    if lines[0].startswith("#!"):
        lines = lines[1:]
    header = "\n".join(line for line in lines[: next(i for i, line in enumerate(lines) if line[:2] != "--")])

    assert header.startswith(f"-- {path.stem}: ")
    keys = "-- KEYS  none" if path.stem.endswith("-0") else "-- KEYS  1 "
    for word in (keys, "-- ARGV  1 ", "-- Returns "):
        assert word in header
    assert "-- Atomic, " in header or "-- One command" in header


@pytest.mark.parametrize("path", LUA, ids=_name)
def test_a_script_takes_as_many_keys_as_its_name_says(path: Path) -> None:
    source = path.read_text()
    header = next(line for line in source.splitlines() if line.startswith("-- KEYS"))
    expected = list(range(1, int(path.stem.rpartition("-")[2]) + 1))

    assert sorted({int(number) for number in re.findall(r"KEYS\[(\d+)\]", source)}) == expected
    assert [int(number) for number in re.findall(r" (\d) [a-z]", header)] == expected


@pytest.mark.parametrize("path", [path for path in SQL if _package(path) == "engine"], ids=_name)
def test_a_statement_begins_with_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("-- ")


def test_every_statement_and_script_of_the_engine_is_used() -> None:
    code = "".join(path.read_text() for path in MODULES)
    statements = [path for path in SQL if _package(path) == "engine" and not re.match(r"\d{4}_", path.name)]

    assert [path.name for path in statements if f'"{path.stem}"' not in code] == []
    assert [path.name for path in LUA if f'"{path.stem.rpartition("-")[0]}"' not in code] == []


def test_the_engine_finds_every_statement_that_it_names() -> None:
    known = {path.stem for path in SQL if path.parent == ROOT / "engine" / "ledger" / "sql"}
    named = {
        name
        for path in MODULES
        if _package(path) == "engine"
        for name in re.findall(r'\bstatement\("(\w+)"', path.read_text())
    }

    assert named - known == set()
    assert len(named) > 20


def test_the_lifecycle_in_the_docs_is_the_one_in_the_code() -> None:
    # Written again by: python -m engine.domain.lifecycle_diagram > docs/lifecycle.md
    assert (ROOT / "docs" / "lifecycle.md").read_text() == lifecycle_document()
