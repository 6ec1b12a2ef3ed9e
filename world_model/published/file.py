"""Reading the .pt files that the released GenieRedux implementation wrote."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def read_published(path: str | Path) -> dict[str, Any]:
    """The weights of a published file. Nothing in it is executed; its optimiser's moments do not stay in memory.

    Raises ValueError if it cannot be read, is damaged, or holds anything else.
    """
    try:
        is_archive = zipfile.is_zipfile(path)
        if is_archive:
            _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not a published checkpoint: it holds more than tensors and plain values"
        ) from error
    except Exception as error:  # bytes that are not a pickle can fail in any way
        raise ValueError(f"{path} is not a published checkpoint: it is truncated or not a .pt file") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f'{path} is not a published checkpoint: it holds no weights under "model"')
    return content["model"]


def _check_archive(path: str | Path) -> None:
    """Reads it once: what PyTorch maps into memory, it does not check. Raises if a byte is wrong."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("PyTorch compresses nothing")  # compressed, a small file could fill the memory
        if archive.testzip() is not None:
            raise ValueError("a checksum is wrong")
