"""The how-to on resuming runs as it stands: the longest page, so that a worker can take it alone."""

from pathlib import Path

from page_blocks import RESUME, run_page


def test_the_blocks_run(tmp_path: Path) -> None:
    assert run_page(RESUME, tmp_path) > 0
