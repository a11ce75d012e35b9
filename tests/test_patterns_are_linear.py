"""No regular expression of ours can be made to take more than linear time: each is found in the source and judged."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.ambiguity import ambiguity

ROOT = Path(__file__).parent.parent
FOLDERS = {"engine": ROOT, "bank": ROOT, "ops": ROOT, "edge": ROOT / "http"}
MODULES = {
    ".".join(path.relative_to(above).with_suffix("").parts): path
    for name, above in FOLDERS.items()
    for path in sorted((above / name).rglob("*.py"))
}
SEARCHES = ("search", "sub", "subn", "findall", "finditer", "split")


class _Names(Mapping[str, Any]):
    """The names of a module; one that is known only while a function runs stands for a letter."""

    def __init__(self, module: str) -> None:
        self._known = vars(builtins) | vars(importlib.import_module(module))

    def __getitem__(self, name: str) -> Any:
        return self._known.get(name, "x")

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _patterns(module: str, path: Path) -> Iterator[tuple[str, re.Pattern[Any], str]]:
    """Where it stands, the pattern, and how it is used: the functions of `re` by name."""
    tree = ast.parse(path.read_text())
    names = {
        id(node.value): ast.unparse(node.targets[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args:
            arguments = node.args[0], *node.args[1:2], *(word.value for word in node.keywords if word.arg == "flags")
            compiled = node.func.attr == "compile"  # type: ignore[attr-defined]
            code = ast.unparse(node if compiled else arguments[0])
            value = eval(code, {}, _Names(module))
            used = _used(names.get(id(node), "")) if compiled else node.func.attr  # type: ignore[attr-defined]
            yield f"{module}:{node.lineno}", re.compile(value), used


SOURCES = "\n".join(path.read_text() for path in MODULES.values())


def _used(name: str) -> str:
    return " ".join(re.findall(rf"\b{re.escape(name)}\.(\w+)\(", SOURCES)) if name else ""


ALL = [found for module, path in MODULES.items() for found in _patterns(module, path)]


@pytest.mark.parametrize(("pattern", "used"), [row[1:] for row in ALL], ids=[row[0] for row in ALL])
def test_no_text_takes_a_pattern_more_than_linear_time(pattern: re.Pattern[Any], used: str) -> None:
    searched = any(word in used for word in SEARCHES)

    assert ambiguity(pattern, searched=searched, whole="fullmatch" in used) is None, pattern.pattern


def test_all_patterns_are_found() -> None:
    written = re.findall(r"\bre\.(?:compile|match|fullmatch|search|sub|subn|findall|finditer|split)\(", SOURCES)

    assert len(ALL) == len(written) > 40
    assert not re.search(r"^\s*from re import|^\s*import (regex|re2)\b|import re as", SOURCES, re.MULTILINE)


# fmt: off
KNOWN = [
    # pattern                             searched  whole   is
    (r"(a*)*b",                           False,    False,  "exponential"),
    (r"(a+)+b",                           False,    False,  "exponential"),
    (r"(a|a)*b",                          False,    False,  "exponential"),
    (r"(x(b*|c*))*d",                     False,    False,  "exponential"),
    (r"(\w+\s?)+:",                       False,    False,  "exponential"),
    (r"(?:a{0,30}){0,30}b",               False,    False,  "exponential"),
    (r'"(?:[^"\\]+|\\.)*"',               False,    False,  "exponential"),
    (r'"(?:[^"\\]+|\\.)*',                False,    False,  None),
    (r'"(?:[^"\\]+|\\.)*',                False,    True,   "exponential"),
    (r'"(?:[^"\\]++|\\.)*"',              False,    False,  None),
    (r'"(?:[^"\\]|\\.)*"',                False,    False,  None),
    (r"(a|b)*c",                          False,    False,  None),
    (r"a*a*b",                            False,    False,  "polynomial"),
    (r"(?i)k+K+x",                        False,    False,  "polynomial"),
    (r".*,.*,x",                          False,    False,  "polynomial"),
    (r"[0-9]+\.?[0-9]*",                  False,    True,   "polynomial"),
    (r"[0-9]+(\.[0-9]*)?",                False,    True,   None),
    (r"\s+\Z",                            True,     False,  "polynomial"),
    (r"a+b",                              True,     False,  "polynomial"),
    (r"a+b",                              False,    False,  None),
    # The header Prefer as it was read once, by which 60 bytes stopped an edge for minutes.
    (r"(\w+)(?:[ \t]*=[ \t]*(\w+)?)?(?:[ \t]*;[ \t]*(?:\w+(?:[ \t]*=[ \t]*\w+?)?)?)*[ \t]*(?:,|\Z)",
                                          False,    False,  "exponential"),
]
# fmt: on


@pytest.mark.parametrize(("pattern", "searched", "whole", "verdict"), KNOWN)
def test_what_is_known_of_patterns_is_found(pattern: str, searched: bool, whole: bool, verdict: str | None) -> None:
    assert ambiguity(re.compile(pattern), searched=searched, whole=whole) == verdict
