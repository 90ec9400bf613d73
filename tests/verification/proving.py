"""Make contracts that halmos can prove things about: the channel contract's own functions, and `check_*` beside them.

halmos reads what Foundry builds. Nothing of that is here, so its artifacts are written by hand:
`out/<Name>.sol/<Name>.json` with the bytecode, the selectors and just enough of a Solidity syntax tree to name one
contract.

The functions are taken from the contract's text as it is: each external function becomes internal, the constructor and
the locks against reentrancy go, and the checks are appended. A change of the contract changes what is proven.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import vyper.ast as vyper
from vyper.ast import nodes
from vyper.compiler import compile_code
from vyper.compiler.settings import OptimizationLevel, Settings

from penstock.core.identity import keccak

from .mutants import Text

SOURCE = Path(__file__).resolve().parents[2] / "src/penstock/contracts/Channel.vy"


def inside(source: str) -> str:
    """The contract with all its functions internal and without a constructor."""
    text, tree = Text(source), vyper.parse_to_ast(source)
    cuts: list[tuple[int, int, str]] = []
    for function in tree.get_children(nodes.FunctionDef):
        names = {decorator.id: decorator for decorator in function.decorator_list}
        if "deploy" in names:
            cuts.append((text.start(names["deploy"]) - 1, text.end(function), ""))
        for name, instead in (("external", "@internal"), ("nonreentrant", "")):
            if name in names:
                start = text.start(names[name]) - 1
                cuts.append((start, start + 1 + len(name), instead))
    for start, end, instead in sorted(cuts, reverse=True):
        source = source[:start] + instead + source[end:]
    return source


def build(name: str, checks: str, source: str, root: Path) -> None:
    """Write the artifact of a contract of `checks` over `source` below `root`. Raises what the compiler raises."""
    made = compile_code(
        inside(source) + "\n\n" + checks,
        output_formats=["abi", "bytecode", "bytecode_runtime", "method_identifiers"],
        settings=Settings(evm_version="prague", optimize=OptimizationLevel.GAS),
    )
    artifact = {
        "abi": made["abi"],
        "ast": {
            "absolutePath": f"{name}.vy",
            "nodes": [{"nodeType": "ContractDefinition", "name": name, "contractKind": "contract", "nodes": []}],
        },
        "bytecode": {"object": made["bytecode"], "linkReferences": {}},
        "deployedBytecode": {"object": made["bytecode_runtime"], "linkReferences": {}, "immutableReferences": {}},
        "metadata": {"compiler": {"version": "vyper"}},
        "methodIdentifiers": selectors(made["abi"]),
    }
    folder = root / "out" / f"{name}.sol"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(artifact))


def selectors(abi: list[dict[str, Any]]) -> dict[str, str]:
    """Signature -> selector (8 hex digits) of every function of an interface."""
    found = {}
    for entry in abi:
        if entry["type"] == "function":
            signature = f"{entry['name']}({','.join(_type(part) for part in entry['inputs'])})"
            found[signature] = keccak(signature.encode())[:4].hex()
    return found


def _type(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        return f"({','.join(_type(part) for part in entry['components'])}){kind[5:]}"
    return kind
