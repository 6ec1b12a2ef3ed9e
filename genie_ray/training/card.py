"""A checkpoint's model card: what it is, what it was trained on, what it scored. Users complete it by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from world_model.checkpoint import Model


def model_card(model: Model, provenance: Mapping[str, Any]) -> str:
    """The card in Markdown, with the header that model hubs read. What only a person knows is left blank.

    Args:
        provenance: as given to `world_model.checkpoint.save`.
    """
    kind = type(model).__name__
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    parts = ", ".join(name for name, _ in model.named_children())
    validation = provenance.get("validation", {})
    scores = "\n".join(f"| {key} | {value:.5g} |" for key, value in sorted(validation.items()))
    measured = (
        f"| on held-out windows | |\n|---|---|\n{scores}" if scores else "Nothing was measured when it was saved."
    )
    source = {key: value for key, value in provenance.items() if key != "validation"}
    return f"""---
library_name: genie-ray
tags: [world-model, games]
---

# {kind}

{millions:,.2f} million parameters in {parts}. `genie-ray checkpoint info` prints sizes and hashes.

```python
from world_model.checkpoint import load

model = load("…")  # this directory; a {kind} in evaluation mode
```

## Where it comes from

```json
{json.dumps(source, indent=1)}
```

## Configuration

```json
{json.dumps(dataclasses.asdict(model.config), indent=1)}
```

## Scores

{measured}

## To be filled in

* Intended use, and uses it is unfit for:
* Known limitations (what it predicts badly, which actions it does not follow):
* Licence, and the rights to the games it was trained on:
* Contact:
"""
