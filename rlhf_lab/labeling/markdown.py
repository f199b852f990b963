"""Guidelines: Markdown as a tree that a page builds element by element, so that no text becomes code."""

from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

_TAGS = frozenset({"p", "ul", "ol", "li", "strong", "em", "code", "pre", "blockquote", "hr", "br", "a"})
_TAGS |= {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
_PARSER = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")

Tree = str | dict[str, Any]
"""A text, or an element: its `tag`, `children`, and for a link its `href`."""


def parse(text: str) -> list[Tree]:
    """The elements of a Markdown text. HTML in it stays text, as do pictures and links to anything but http(s).

    Example:
        >>> parse("Be *kind*.")
        [{'tag': 'p', 'children': ['Be ', {'tag': 'em', 'children': ['kind']}, '.']}]
    """
    return _children(SyntaxTreeNode(_PARSER.parse(text)))


def default_guidelines(kind: str) -> str:
    """The guidelines that ship for one kind of item."""
    return (Path(__file__).parent / "guidelines" / f"{kind}.md").read_text(encoding="utf-8")


def _children(node: SyntaxTreeNode) -> list[Tree]:
    return [part for child in node.children for part in _parts(child)]


def _parts(node: SyntaxTreeNode) -> list[Tree]:
    if node.type in ("text", "html_inline", "html_block"):
        return [node.content]
    if node.type == "softbreak":
        return ["\n"]
    if node.type in ("code_inline", "code_block", "fence"):
        code: Tree = {"tag": "code", "children": [node.content]}
        return [code if node.type == "code_inline" else {"tag": "pre", "children": [code]}]
    if node.type == "inline" or node.tag not in _TAGS:
        return _children(node)
    element: dict[str, Any] = {"tag": node.tag, "children": _children(node)}
    if node.tag == "a":
        href = str(node.attrs.get("href", ""))
        if not href.lower().startswith(("http://", "https://")):
            return element["children"]
        element["href"] = href
    return [element]
