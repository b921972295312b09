"""A report as one HTML page that needs nothing else: tables, figures and functions."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from secondpass.files import write_whole

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: white; }
pre { overflow-x: auto; font-size: 12px; padding: .6rem; background: #8881; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.pair > div { min-width: 0; }
small, figcaption { color: #777; }
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A function shown with its IR.

    Attributes:
        title: what there is to say about it.
        passes: the list.
        before, after: normalised IR; `after` is empty where it could not be made.
    """

    title: str
    passes: str
    before: str
    after: str


class Page:
    """A page in the making, top to bottom."""

    def __init__(self, title: str) -> None:
        """Begin with the title."""
        self._title = title
        self._parts: list[str] = []

    def section(self, title: str, text: str = "") -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{html.escape(title)}</h2>")
        if text:
            self.text(text)

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table; its first column is text."""
        head = "".join(f"<th>{html.escape(it)}</th>" for it in headings)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(it)}</td>' for it in row)}</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def figure(self, path: Path, caption: str) -> None:
        """A PNG, put into the page."""
        data = base64.b64encode(path.read_bytes()).decode()
        self._parts.append(
            f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def examples(self, examples: Iterable[Example]) -> None:
        """Functions, closed until they are clicked on."""
        for it in examples:
            after = it.after or "(nothing to show)"
            self._parts.append(
                f"<details><summary>{html.escape(it.title)}</summary><small>{html.escape(it.passes)}</small>"
                f'<div class="pair"><div><pre>{html.escape(it.before)}</pre></div>'
                f"<div><pre>{html.escape(after)}</pre></div></div></details>"
            )

    def write(self, path: Path) -> None:
        """Write the page; it appears complete or not at all."""
        title = html.escape(self._title)
        text = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(self._parts)}"
            "</body></html>\n"
        )
        write_whole(path, text.encode(errors="backslashreplace"))  # a file's name can be any bytes
