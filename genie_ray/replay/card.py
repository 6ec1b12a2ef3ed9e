"""The card of a replay dataset, which describes it to readers: written with the dataset, to be completed by hand."""

import json

from genie_ray.replay.metadata import DatasetMetadata

CARD_FILE = "README.md"
GENERATED = "<!-- written by genie-ray; without this line it is never overwritten -->"


def dataset_card(metadata: DatasetMetadata) -> str:
    """The card in Markdown, with the header that dataset hubs read. What only a person knows is left blank."""
    title = f"Replay dataset: {metadata.policy} play of {len(metadata.counts)} games"
    height, width, _ = metadata.frame_shape
    games = "\n".join(
        f"| {game} | {counts.episodes:,} | {counts.actions:,} |" for game, counts in sorted(metadata.counts.items())
    )
    lacking = "".join(f"* {game}: {missing.reason}\n" for game, missing in sorted(metadata.missing.items()))
    large, weights = metadata.large_frames, metadata.policy_checkpoint
    played_by = metadata.policy + (f" (weights {weights[:12]})" if weights else "")
    frames = f"{height}×{width}×3" + (f"; every {large.every}th also at {large.size}×{large.size}" if large else "")
    return f"""---
pretty_name: "{title}"
tags: [games, reinforcement-learning, world-model]
---
{GENERATED}

# {title}

Recorded play of {len(metadata.counts)} games: one row per step, with the frame, the action taken on it, the action's
log-probability and the game's own reward.

| game | episodes | actions |
|---|---|---|
{games}

* Played by: {played_by}
* Frames: uint8, lossless, {frames}
* Actions, from 0: {", ".join(metadata.action_names)}

{f"Requested but missing:{chr(10)}{chr(10)}{lacking}{chr(10)}" if lacking else ""}## How it was made

```json
{json.dumps(metadata.config, indent=1)}
```

## How to read it

```python
from genie_ray.replay.dataset import ReplayDataset

dataset = ReplayDataset("…")  # this directory
episode = dataset.read(dataset.episodes[0])  # frames, actions, rewards
```

Any Parquet reader can open the files. `genie-ray data verify` checks them against their digests.

## To be filled in

* Intended uses, and unsuitable ones:
* Licence, and the rights to what the frames show (a game's pictures belong to its makers):
* Contact:
"""
