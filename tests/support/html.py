"""HTML as a tree, read strictly: what a browser would mend is an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"br", "hr", "input", "link", "meta"}


@dataclass
class Node:
    """An element."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def every(self, tag: str = "", class_: str = "") -> Iterator[Node]:
        """Yield the elements in it, in their order, of some kind."""
        for child in self.children:
            if isinstance(child, str):
                continue
            has = (child.attributes.get("class") or "").split()
            if (not tag or child.tag == tag) and (not class_ or class_ in has):
                yield child
            yield from child.every(tag, class_)

    def by_id(self, name: str) -> Node:
        (found,) = [node for node in self.every() if node.attributes.get("id") == name]
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice"
        node = Node(tag, dict(attrs))
        self._open[-1].children.append(node)
        if tag not in _VOID:
            self._open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> in <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data}")

    def ended(self) -> Node:
        self.close()
        assert self._open == [self.root], f"<{self._open[-1].tag}> has no end"
        return self.root


def tree_of(source: str) -> Node:
    """Return a page, or a part of one, whose root has no tag."""
    reader = _Reader()
    reader.feed(source)
    return reader.ended()
