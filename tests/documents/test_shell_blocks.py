"""The how-tos with shell commands run as they stand; those without are in test_python_blocks, beside this."""

from pathlib import Path

import pytest
from page_blocks import pages_of, run_page


@pytest.mark.parametrize("page", pages_of("docs/howto/*.md", commands=True))
def test_the_blocks_run(page: str, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) > 0
