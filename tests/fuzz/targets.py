"""All targets: what each of them tries, how often, and how many inputs the short version tries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.dataset_targets import dataset_metadata, parquet_bytes, parquet_tables
from tests.fuzz.games_targets import labels, rom_folders
from tests.fuzz.judging import Check
from tests.fuzz.model_targets import (
    PACK,
    checkpoint_configs,
    checkpoint_weights,
    policies,
    published_bytes,
    published_values,
)
from tests.fuzz.request_targets import reward_requests
from tests.fuzz.settings_targets import kept_settings, overrides, plan, presets
from tests.fuzz.study_targets import study_answers


@dataclass(frozen=True, kw_only=True)
class Target:
    """One loader."""

    make: Callable[[Path], Check]  # in an empty directory
    share: int  # of the inputs, in percent
    quick: int  # inputs of the short version
    needs: Path | None = None  # a folder without which it cannot run


TARGETS = {
    "overrides": Target(make=overrides, share=16, quick=300),
    "presets": Target(make=presets, share=2, quick=40),
    "kept_settings": Target(make=kept_settings, share=1, quick=20),
    "plan": Target(make=plan, share=0, quick=0),  # its reader is not strict yet: only when named
    "dataset_metadata": Target(make=dataset_metadata, share=2, quick=30),
    "parquet_bytes": Target(make=parquet_bytes, share=3, quick=80),
    "parquet_tables": Target(make=parquet_tables, share=2, quick=40),
    "labels": Target(make=labels, share=38, quick=400),
    "rom_folders": Target(make=rom_folders, share=3, quick=40),
    "checkpoint_configs": Target(make=checkpoint_configs, share=3, quick=100),
    "checkpoint_weights": Target(make=checkpoint_weights, share=2, quick=60),
    "published_bytes": Target(make=published_bytes, share=1, quick=30, needs=PACK),
    "published_values": Target(make=published_values, share=1, quick=30, needs=PACK),
    "policies": Target(make=policies, share=5, quick=100),
    "reward_requests": Target(make=reward_requests, share=19, quick=300),
    "study_answers": Target(make=study_answers, share=2, quick=200),
}
assert sum(target.share for target in TARGETS.values()) == 100
