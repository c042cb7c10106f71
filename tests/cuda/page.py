"""docs/cuda.md: each part that a program writes stands between two comments, and the rest of the page is by hand."""

from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cuda.md"


def replace(name, text):
    """Put a new text between the comments of a part."""
    first, last = "<!-- {} -->\n".format(name), "<!-- end of {} -->\n".format(name)
    page = PAGE.read_text(encoding="utf-8")
    before, found, rest = page.partition(first)
    _, ended, after = rest.partition(last)
    if not found or not ended:
        raise SystemExit("{} has no part {!r}".format(PAGE, name))
    PAGE.write_text(before + first + "\n" + text.strip() + "\n\n" + last + after, encoding="utf-8")
