"""Static checks of a Vyper contract, on the compiler's syntax tree.

Each check takes a `Contract` and returns its findings, a line each; none is a pass. What may stand although a check
finds it is in the tables of `test_ast.py`, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import vyper.ast as vyper
from vyper.ast import nodes

CALLS_OUT = ("raw_call", "send")
CALLER = ("msg.sender", "convert(msg.sender, uint256)", "self._sender()", "sender")
FORBIDDEN = ("selfdestruct", "raw_create", "create_minimal_proxy_to", "create_copy_of", "create_from_blueprint")

# What may happen in a function, in the order of its text: ("read" | "write", variable), ("call", to what),
# ("inside", internal function, its first argument).
Step = tuple[str, ...]


@dataclass(frozen=True)
class Path:
    """What one way through a function has done."""

    wrote: bool = False
    logged: bool = False

    def then(self, later: Path) -> Path:
        return Path(self.wrote or later.wrote, self.logged or later.logged)


class Contract:
    """A parsed contract: its functions, and what each does."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = vyper.parse_to_ast(source)
        self.functions = {function.name: function for function in self.tree.get_children(nodes.FunctionDef)}
        self.steps = cache(self._steps)
        self.paths = cache(self._paths)

    def external(self, changing: bool = True) -> list[str]:
        """Names of the external functions; `changing`: without views."""
        without = {"view", "pure"} if changing else set()
        return [name for name in self.functions if "external" in self.marks(name) and not without & self.marks(name)]

    def marks(self, name: str) -> set[str]:
        """A function's decorators."""
        return {decorator.id for decorator in self.functions[name].decorator_list}

    def _steps(self, name: str) -> tuple[Step, ...]:
        """All that may happen in a function and in what it calls, in the order of the text."""
        return tuple(step for statement in self.functions[name].body for step in self._of(statement))

    def _of(self, node: nodes.VyperNode) -> Iterator[Step]:
        if isinstance(node, nodes.Assign | nodes.AugAssign | nodes.AnnAssign):
            if node.value is not None:
                yield from self._of(node.value)
            yield from self._of(node.target)
            written = storage(node.target)
            if written:
                yield ("write", written)
            return
        for child in node.get_children():
            yield from self._of(child)
        if isinstance(node, nodes.ExtCall):
            yield ("call", node.value.func.attr)
        elif isinstance(node, nodes.Call):
            yield from self._of_call(node)
        elif isinstance(node, nodes.Attribute) and storage(node):
            yield ("read", storage(node))

    def _of_call(self, node: nodes.Call) -> Iterator[Step]:
        inside = internal(node)
        if inside in self.functions:
            yield ("inside", inside, node.args[0].node_source_code if node.args else "")
            yield from self.steps(inside)
        elif isinstance(node.func, nodes.Name):
            if node.func.id in CALLS_OUT:
                yield ("call", node.func.id)
            elif node.func.id == "ecrecover":
                yield ("inside", "ecrecover", "")

    def _paths(self, name: str) -> frozenset[Path]:
        """What each way through a function that does not revert has done."""
        going, ended = self._through(self.functions[name].body, {Path()})
        return frozenset(going | ended)

    def _through(self, body: list[nodes.VyperNode], starts: set[Path]) -> tuple[set[Path], set[Path]]:
        """From `starts` through statements: the ways that come out at the end, and those that returned."""
        going, ended = set(starts), set()
        for statement in body:
            if isinstance(statement, nodes.If):
                going = self._after(statement.test, going)
                left, returned = self._through(statement.body, going)
                right, other = self._through(statement.orelse, going)
                going, ended = left | right, ended | returned | other
            elif isinstance(statement, nodes.For):
                going = self._after(statement.iter, going)
                once, returned = self._through(statement.body, going)
                going, ended = going | once, ended | returned
            else:
                going = self._after(statement, going)
                if isinstance(statement, nodes.Return):
                    going, ended = set(), ended | going
                elif isinstance(statement, nodes.Raise):
                    going = set()
        return going, ended

    def _after(self, node: nodes.VyperNode, starts: set[Path]) -> set[Path]:
        """The ways after an expression or a simple statement."""
        found = set(starts)
        for call in node.get_descendants(nodes.Call, include_self=True):
            inside = internal(call)
            if inside in self.functions:
                found = {start.then(path) for start in found for path in self.paths(inside)}
        logged = isinstance(node, nodes.Log) or "raw_log" in _called(node)
        target = node.target if isinstance(node, nodes.Assign | nodes.AugAssign) else None
        wrote = target is not None and storage(target) != ""
        return {start.then(Path(wrote, logged)) for start in found}


def internal(call: nodes.Call) -> str:
    """The name in `self.name(...)`; empty for any other call."""
    function = call.func
    own = (
        isinstance(function, nodes.Attribute) and isinstance(function.value, nodes.Name) and function.value.id == "self"
    )
    return str(function.attr) if own else ""


def storage(node: nodes.VyperNode) -> str:
    """The variable in `self.variable[...]...`; empty for anything else."""
    while isinstance(node, nodes.Subscript):
        node = node.value
    if isinstance(node, nodes.Attribute) and isinstance(node.value, nodes.Name) and node.value.id == "self":
        called = isinstance(node.get_ancestor(), nodes.Call) and node.get_ancestor().func is node
        return "" if called or node.attr == "balance" else str(node.attr)
    return ""


def _called(node: nodes.VyperNode) -> set[str]:
    calls = node.get_descendants(nodes.Call, include_self=True)
    return {call.func.id for call in calls if isinstance(call.func, nodes.Name)}


def reentrancy(contract: Contract) -> list[str]:
    """Functions that call out without a lock, write after a call, or read before it what they may use after it."""
    found = []
    for name in contract.external(changing=False):
        steps = contract.steps(name)
        calls = [at for at, step in enumerate(steps) if step[0] == "call"]
        if not calls:
            continue
        if "nonreentrant" not in contract.marks(name):
            found.append(f"{name}: calls {steps[calls[0]][1]} without a lock")
        writes_after = [step[1] for step in steps[calls[0] :] if step[0] == "write"]
        reads_before = [step[1] for step in steps[: calls[-1]] if step[0] == "read"]
        if writes_after:
            found.append(f"{name}: writes after a call")
        if writes_after and reads_before:
            found.append(f"{name}: reads {reads_before[0]} before a call and writes after it")
    return found


def unchecked_calls(contract: Contract) -> list[str]:
    """Calls whose result decides nothing: it is not the test of a branch that refuses, nor asserted."""
    found = []
    for name, function in contract.functions.items():
        raw = [
            call
            for call in function.get_descendants(nodes.Call)
            if isinstance(call.func, nodes.Name) and call.func.id in CALLS_OUT
        ]
        for call in [*function.get_descendants(nodes.ExtCall), *raw]:
            what = call.value.func.attr if isinstance(call, nodes.ExtCall) else call.func.id
            if not _decides(call):
                found.append(f"{name}: the result of {what} decides nothing")
        found += [
            f"{name}: the result of {call.value.func.attr} is thrown away"
            for call in function.get_descendants(nodes.StaticCall)
            if isinstance(call.get_ancestor(), nodes.Expr)
        ]
    return found


def _decides(call: nodes.VyperNode) -> bool:
    node = call
    while not isinstance(node, nodes.FunctionDef):
        parent = node.get_ancestor()
        if isinstance(parent, nodes.Assert):
            return True
        if isinstance(parent, nodes.If):
            calls = [internal(part) for part in parent.get_descendants(nodes.Call)]
            return node is parent.test and "_refuse" in calls
        node = parent
    return False


def silent_writes(contract: Contract) -> list[str]:
    """External functions with a way through that changes the state and logs nothing."""
    return [
        f"{name}: changes without an event"
        for name in contract.external()
        if any(path.wrote and not path.logged for path in contract.paths(name))
    ]


def unguarded_writes(contract: Contract, variable: str, guards: set[str], pays: set[str]) -> list[str]:
    """External functions that write `variable` before any guard: one of the internal functions `guards`, or one of
    `pays` with the caller as who pays. `pays` of anybody else comes after a guard, too."""
    found = []
    for name in contract.external():
        guarded = False
        for step in contract.steps(name):
            if step[0] == "inside" and step[1] in guards:
                guarded = True
            elif step[0] == "inside" and step[1] in pays:
                if not guarded and step[2] not in CALLER:
                    found.append(f"{name}: takes from another by {step[1]} without a check")
                guarded = True
            elif step == ("write", variable) and not guarded:
                found.append(f"{name}: writes {variable} without a check")
                break
    return found


def forbidden(contract: Contract) -> list[str]:
    """What a contract without a backdoor has no use for."""
    found = [f"{name} is used" for name in sorted(_called(contract.tree) & set(FORBIDDEN))]
    keywords = {keyword.arg for keyword in contract.tree.get_descendants(nodes.keyword)}
    attributes = {attribute.attr for attribute in contract.tree.get_descendants(nodes.Attribute)}
    if "is_delegate_call" in keywords:
        found.append("a delegate call")
    if "origin" in attributes:
        found.append("tx.origin is used")
    return found + [
        f"{variable.target.id}: storage that is not kept for each account or channel"
        for variable in contract.tree.get_children(nodes.VariableDecl)
        if not variable.is_constant and not variable.is_immutable
        if not variable.annotation.node_source_code.startswith("HashMap")
    ]


def privileged(contract: Contract) -> list[str]:
    """Comparisons of the caller with storage, an immutable or a constant: with somebody who was appointed."""
    found = []
    for name, function in contract.functions.items():
        for compare in function.get_descendants(nodes.Compare):
            sides = [compare.left, compare.right]
            if not any(side.node_source_code in CALLER for side in sides):
                continue
            for side in sides:
                kept = any(storage(part) for part in side.get_descendants(nodes.Attribute, include_self=True))
                if kept or any(part.id.isupper() for part in side.get_descendants(nodes.Name, include_self=True)):
                    found.append(f"{name}: the caller is compared with {side.node_source_code}")
    return found


def unbounded_loops(contract: Contract) -> list[str]:
    """Loops over a range that is neither of fixed length nor has a bound."""
    found = []
    for name, function in contract.functions.items():
        for loop in function.get_descendants(nodes.For):
            over = loop.iter
            if not isinstance(over, nodes.Call):
                continue
            bounded = any(keyword.arg == "bound" for keyword in over.keywords)
            fixed = all(
                isinstance(part, nodes.Int) or (isinstance(part, nodes.Name) and part.id.isupper())
                for part in over.args
            )
            if not bounded and not fixed:
                found.append(f"{name}: a loop over {over.node_source_code}")
    return found


def unsafe_sums(contract: Contract) -> set[tuple[str, str]]:
    """All unchecked arithmetic: (function, the call as it is written, in one line)."""
    return {
        (name, " ".join(call.node_source_code.split()))
        for name, function in contract.functions.items()
        for call in function.get_descendants(nodes.Call)
        if isinstance(call.func, nodes.Name) and call.func.id.startswith("unsafe_")
    }
