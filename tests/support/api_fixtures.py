"""The fixture of tests that use other people's tools for OpenAPI documents."""

import pytest

from support.api_tools import Tools, the_tools


@pytest.fixture(scope="session")
def api_tools() -> Tools:
    """The tools; fetched when they are not there."""
    return the_tools()
