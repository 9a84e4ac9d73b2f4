"""The code blocks of the README and of all other pages run as they stand, and the README's links lead somewhere."""

import re
from pathlib import Path

import pytest
from page_blocks import ROOT, blocks_of, pages_of, run_page

OTHERS = [page for page in ("README.md", *pages_of("docs/**/*.md")) if not page.startswith("docs/howto/")]


@pytest.mark.parametrize("page", OTHERS)
def test_the_blocks_run(page: str, tmp_path: Path) -> None:
    assert run_page(page, tmp_path) > 0


def test_a_block_is_found_with_what_is_said_of_it(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "<!-- not run: hours -->\n```bash\nls\n```\n\n```python\na = 1\n```\n```console\n$ a\n```\n"
    )
    found = blocks_of(str(tmp_path / "page.md"))
    assert [(block.language, block.why_not) for block in found] == [("bash", "hours"), ("python", None)]


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#\s]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
