"""The docs say what the code does, where that can be compared: settings, words of the README, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.streams import keys
from ops.assembly.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_settings_page_lists_every_setting_with_its_default_and_meaning() -> None:
    expected = []
    for name, field in Settings.model_fields.items():
        plain = f"`{field.default}`" if str(field.default) else ""
        default = "required" if name.endswith("_key") else plain
        expected.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")

    listed = [line for line in (ROOT / "docs" / "settings.md").read_text().splitlines() if line.startswith("| `")]

    assert listed == expected


def test_the_readme_names_only_settings_that_exist() -> None:
    named = set(re.findall(r"PENSTOCK_[A-Z_]+[A-Z]", (ROOT / "README.md").read_text()))

    assert named <= {PREFIX + name.upper() for name in Settings.model_fields}


def test_the_readme_names_the_streams_as_they_are_called() -> None:
    readme = (ROOT / "README.md").read_text()

    for name in (keys.commands(7), keys.lease(7), keys.dead(7)):
        assert f"'{name}'" in readme
    assert f"XPENDING '{keys.commands(7)}' {keys.GROUP}" in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    url_policy = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [target for target in url_policy if not (page.parent / target).exists()] == []


def test_decisions_are_numbered_without_gaps_and_short() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [int(page.name[:4]) for page in decisions] == list(range(1, len(decisions) + 1))
    for page in decisions:
        text = page.read_text()
        assert all(f"**{part}.**" in text for part in ("Context", "Choice", "Consequence")), page.name
        assert len(text.splitlines()) <= 16, page.name


def test_the_trade_offs_fit_into_a_thousand_words_and_name_their_five_subjects() -> None:
    text = (ROOT / "TRADEOFFS.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)

    assert headings == ["Architecture", "State", "Failure handling", "Idempotency", "What we would do differently"]
    assert len(text.split()) <= 1000
