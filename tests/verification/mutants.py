"""Every small change of a Vyper source that this project asks its tests about.

A mutant replaces one span of the text. The spans come from the compiler's own syntax tree, so that comments and names
of types are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import vyper.ast as vyper
from vyper.ast import nodes

COMPARISONS = {"<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<"), "==": ("!=",), "!=": ("==",)}
ARITHMETIC = {"+": "-", "-": "+", "*": "+", "//": "*", "|": "&", "&": "|", "^": "|", "<<": ">>", ">>": "<<"}
CONNECTIVES = {"and": "or", "or": "and"}
TWINS = {"min": "max", "max": "min", "unsafe_add": "unsafe_sub", "unsafe_sub": "unsafe_add"}
OPERATORS = re.compile(r"<<|>>|<=|>=|==|!=|//|\*\*|\band\b|\bor\b|[-+*/|&^<>]")
STATEMENTS = (nodes.Assign, nodes.AugAssign, nodes.Log, nodes.If, nodes.Continue, nodes.Break, nodes.Assert)


@dataclass(frozen=True)
class Mutant:
    """One change: `before` at `start` (characters from the beginning of the source) becomes `after`."""

    kind: str
    start: int
    before: str
    after: str
    line: int
    function: str
    name: str  # the same for the same change of the same function, whatever became of the rest of the source

    def apply(self, source: str) -> str:
        """The changed source."""
        return source[: self.start] + self.after + source[self.start + len(self.before) :]


class Text:
    """A source, by the positions of its syntax tree."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def start(self, node: nodes.VyperNode) -> int:
        return self._starts[node.lineno - 1] + int(node.col_offset)

    def end(self, node: nodes.VyperNode) -> int:
        return self._starts[node.end_lineno - 1] + int(node.end_col_offset)

    def of(self, node: nodes.VyperNode) -> str:
        return self.source[self.start(node) : self.end(node)]


def mutants(source: str) -> list[Mutant]:
    """All mutants of a source, in the order of its text; no two are the same text."""
    text, tree = Text(source), vyper.parse_to_ast(source)
    found: dict[tuple[int, str, str], Mutant] = {}
    for child in tree.body:
        if not isinstance(child, nodes.FunctionDef | nodes.VariableDecl):
            continue
        name = child.name if isinstance(child, nodes.FunctionDef) else "constants"
        for kind, start, before, after in _changes(text, child):
            line = source.count("\n", 0, start) + 1
            what = (name, text.of(child), str(start - text.start(child)), before, after)
            digest = sha256("\0".join(what).encode()).hexdigest()[:16]
            found.setdefault((start, before, after), Mutant(kind, start, before, after, line, name, digest))
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.before, mutant.after))


Change = tuple[str, int, str, str]  # kind, start, before, after


def _changes(text: Text, top: nodes.VyperNode) -> Iterator[Change]:
    if isinstance(top, nodes.FunctionDef):
        for decorator in top.decorator_list:
            if decorator.id == "nonreentrant":
                yield "unlocked", text.start(decorator) - 1, "@nonreentrant", ""
        roots = top.body
    else:
        roots = [top.value] if top.value is not None else []
    for root in roots:
        for node in root.get_descendants(include_self=True):
            if not _in_type(node, root):
                yield from _of_node(text, node)


def _in_type(node: nodes.VyperNode, root: nodes.VyperNode) -> bool:
    """Whether a node belongs to the type of a variable, where a changed number means another type."""
    while node is not root:
        parent = node.get_ancestor()
        if isinstance(parent, nodes.AnnAssign | nodes.VariableDecl) and node is parent.annotation:
            return True
        node = parent
    return False


def _of_node(text: Text, node: nodes.VyperNode) -> Iterator[Change]:
    if isinstance(node, nodes.Compare):
        yield from _operator(text, node.left, node.right, "comparison", COMPARISONS)
    elif isinstance(node, nodes.BinOp):
        yield from _operator(text, node.left, node.right, "arithmetic", {key: (at,) for key, at in ARITHMETIC.items()})
    elif isinstance(node, nodes.BoolOp):
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from _operator(text, left, right, "connective", {key: (at,) for key, at in CONNECTIVES.items()})
    elif isinstance(node, nodes.AugAssign):
        yield from _operator(
            text, node.target, node.value, "arithmetic", {key: (at,) for key, at in ARITHMETIC.items()}
        )
    elif isinstance(node, nodes.UnaryOp) and text.of(node).startswith("not "):
        yield "negation", text.start(node), "not ", ""
    elif isinstance(node, nodes.Int):
        before = text.of(node)
        for value in (int(before.replace("_", "")) + 1, int(before.replace("_", "")) - 1):
            yield "constant", text.start(node), before, str(value)
    elif isinstance(node, nodes.NameConstant):
        before = text.of(node)
        yield "truth", text.start(node), before, {"True": "False", "False": "True"}[before]
    elif isinstance(node, nodes.IfExp):
        body, other = text.of(node.body), text.of(node.orelse)
        yield (
            "branches",
            text.start(node),
            text.of(node),
            text.of(node)
            .replace(body, "\0", 1)[::-1]
            .replace(other[::-1], body[::-1], 1)[::-1]
            .replace("\0", other, 1),
        )
    elif isinstance(node, nodes.Call):
        yield from _of_call(text, node)
    if isinstance(node, STATEMENTS) or (isinstance(node, nodes.Expr) and isinstance(node.value, nodes.Call)):
        yield _dropped(text, node)


def _operator(
    text: Text, left: nodes.VyperNode, right: nodes.VyperNode, kind: str, table: dict[str, tuple[str, ...]]
) -> Iterator[Change]:
    """The operator between two operands, replaced."""
    start = text.end(left)
    found = OPERATORS.search(text.source, start, text.start(right))
    if found is not None:
        for after in table.get(found.group(), ()):
            yield kind, found.start(), found.group(), after


def _of_call(text: Text, node: nodes.Call) -> Iterator[Change]:
    """A call of the opposite, and with two neighbouring arguments exchanged."""
    called = text.of(node.func)
    if called in TWINS:
        yield "arithmetic", text.start(node.func), called, TWINS[called]
    if called in ("min", "max"):
        return
    for left, right in zip(node.args, node.args[1:], strict=False):
        between = text.source[text.end(left) : text.start(right)]
        before = text.of(left) + between + text.of(right)
        if text.of(left) != text.of(right):
            yield "arguments", text.start(left), before, text.of(right) + between + text.of(left)


def _dropped(text: Text, node: nodes.VyperNode) -> Change:
    """A statement left out."""
    before = text.of(node)
    if before.startswith("elif"):
        return "dropped", text.start(node), before, "else:\n" + " " * (int(node.col_offset) + 4) + "pass"
    return "dropped", text.start(node), before, "pass"
