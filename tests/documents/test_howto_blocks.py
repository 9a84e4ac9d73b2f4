"""The code blocks of the how-tos run as they stand."""

from pathlib import Path

import pytest
from page_blocks import pages_of, run_page


@pytest.mark.parametrize("page", pages_of("docs/howto/*.md"))
def test_the_blocks_run(page: str, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) > 0
