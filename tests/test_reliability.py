"""docs/reliability.md names only tests that are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_promise_has_its_test() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in named
        if name not in {node.name for node in ast.parse((ROOT / file).read_text()).body if hasattr(node, "name")}
    ]
    assert not missing
