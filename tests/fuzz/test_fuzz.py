"""The short version of `python -m tests.fuzz.run`, and the inputs that once got through."""

from pathlib import Path

import pytest

from tests.fuzz.judging import judge
from tests.fuzz.targets import TARGETS

FOUND: dict[str, tuple[int, ...]] = {
    "labels": (1049, 2227, 7501),
    "overrides": (8544,),
    "parquet_tables": (215,),
    "policies": (771, 910),
    "reward_requests": (259, 371, 1209, 3900),
    "rom_folders": (15, 66, 67, 628, 712),
}
"""Seeds whose input was once not refused, or not in one clear line."""


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.quick])
def test_bad_inputs_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    if target.needs and not target.needs.exists():
        pytest.skip(f"there is no {target.needs}")
    check = target.make(tmp_path)
    for seed in (*FOUND.get(name, ()), *range(target.quick)):
        failure = judge(name, check, seed)
        assert failure is None, f"python -m tests.fuzz.run --target {name} --only {seed}: {failure}"
