"""Build hook: compiles every Vyper source into the JSON artifact that the wheel ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path(__file__).parent / "src" / "penstock" / "contracts"


class CompileContracts(BuildHookInterface):  # type: ignore[type-arg]
    """Writes `artifacts/<Name>.json` (abi, bytecode, compiler) beside the sources, for wheels and editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        import vyper
        from vyper.compiler import compile_code
        from vyper.compiler.settings import OptimizationLevel, Settings

        settings = Settings(evm_version="prague", optimize=OptimizationLevel.GAS)
        out = SOURCES / "artifacts"
        out.mkdir(exist_ok=True)
        for source in sorted(SOURCES.glob("*.vy")):
            if _is_newer(out / f"{source.stem}.json", source):
                continue
            made = compile_code(source.read_text(), output_formats=["abi", "bytecode"], settings=settings)
            artifact = {
                "name": source.stem,
                "compiler": f"vyper {vyper.__version__}",
                "evm": "prague",
                "abi": made["abi"],
                "bytecode": made["bytecode"],
            }
            (out / f"{source.stem}.json").write_text(json.dumps(artifact, indent=1, sort_keys=True) + "\n")


def _is_newer(artifact: Path, source: Path) -> bool:
    """Whether an artifact was made from this source, by these rules: compiling takes seconds."""
    made_from = (source, Path(__file__))
    return artifact.exists() and artifact.stat().st_mtime > max(file.stat().st_mtime for file in made_from)
