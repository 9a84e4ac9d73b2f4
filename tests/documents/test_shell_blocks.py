"""The how-tos with shell commands run as they stand, but that on resuming, which has a file of its own."""

from pathlib import Path

import pytest
from page_blocks import RESUME, pages_of, run_page


@pytest.mark.parametrize("page", [page for page in pages_of("docs/howto/*.md", commands=True) if page != RESUME])
def test_the_blocks_run(page: str, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) > 0
