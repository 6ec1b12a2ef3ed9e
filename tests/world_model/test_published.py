"""Files that are not published checkpoints: each is rejected in one line, and nothing in it is executed."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from world_model.published import import_published


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match=str(path)) as refusal:
        import_published(path)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


class Trap:
    """Unpickling this with an ordinary reader would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", [argparse.Namespace(size=3), np.zeros(3), Callable])
def test_anything_but_tensors_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pt"
    torch.save({"model": {}, "arguments": content}, path)
    assert "it holds more than tensors and plain values" in refused(path)


def test_nothing_is_executed(tmp_path: Path) -> None:
    torch.save({"model": {"weight": Trap(tmp_path / "sprung")}}, tmp_path / "tokenizer.pt")
    assert "it holds more than tensors and plain values" in refused(tmp_path / "tokenizer.pt")
    assert not (tmp_path / "sprung").exists()


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pt"
    assert "cannot be read: No such file or directory" in refused(path)
    for legacy in (False, True):
        torch.save({"model": {"w": torch.zeros(99)}}, path, _use_new_zipfile_serialization=not legacy)
        path.write_bytes(path.read_bytes()[:-200])
        assert "it is truncated or not a .pt file" in refused(path)
    for nonsense in (b"", b"hello, world", bytes(range(256))):
        path.write_bytes(nonsense)
        assert "is not a published checkpoint" in refused(path)
    for content in (torch.zeros(3), {"weights": {}}, {"model": torch.zeros(3)}):
        torch.save(content, path)
        assert 'it holds no weights under "model"' in refused(path)
    torch.save({"model": {"w": torch.zeros(3)}}, path)
    assert "holds w, which is not a parameter of this model" in refused(path)


def test_a_wrong_byte_among_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pt"
    torch.save({"model": {"w": torch.full((99,), 1.5)}}, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.full(3, 1.5, np.float32).tobytes())] ^= 1
    path.write_bytes(content)
    assert "it is truncated or not a .pt file" in refused(path)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({1: torch.zeros(3)}, "holds 1, which is not a parameter of this model"),
        ({"a\nb": torch.zeros(3)}, r"holds a\nb, which"),
        ({"vq._codebook.embed": torch.zeros(1, dtype=torch.int64)}, "is torch.int64, allowed: floating point"),
        ({"vq._codebook.embed": torch.zeros(1).expand(10**9)}, "but not as many values"),
    ],
)
def test_weights_that_no_model_has_are_refused(weights: dict[Any, Any], reason: str, tmp_path: Path) -> None:
    torch.save({"model": weights}, tmp_path / "tokenizer.pt")
    assert reason in refused(tmp_path / "tokenizer.pt")
