"""Checkpoints on the Hugging Face hub, through its own client.

A checkpoint is whole before it is pushed. What is pulled is checked twice before it is put in its place: each file
against the hash that the hub lists, and the checkpoint against the hashes that it carries.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genie_ray.base.errors import one_line
from genie_ray.base.files import shortened
from world_model import checkpoint

NEEDS_CLIENT = "the hub needs huggingface_hub: pip install 'genie-ray[hub]'"
NEEDED = (checkpoint.CONFIG_FILE, checkpoint.WEIGHTS_FILE)
FILES = (*NEEDED, checkpoint.CARD_FILE)


def push(directory: Path, repo: str, *, private: bool = False) -> str:
    """Puts a checkpoint into a model repository, which is made if there is none; returns the commit's address.

    The client finds the token (`HF_TOKEN`, or `hf auth login`) and the hub (`HF_ENDPOINT`).

    Raises:
        ValueError: no checkpoint or a damaged one, no client, or the hub refuses.
    """
    api = _client()
    checkpoint.load(directory)
    kind = checkpoint.read_description(directory)["kind"]
    with _told(repo):
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=directory, allow_patterns=list(FILES), commit_message=f"Checkpoint: {kind}"
        )
        return str(commit.commit_url)


def pull(repo: str, directory: Path, *, revision: str | None = None) -> str:
    """Brings a checkpoint from a model repository into a new directory; returns the commit that it is of.

    Args:
        revision: branch, tag or commit; None: the latest.

    Raises:
        ValueError: the directory is there, no client, no such repository, no checkpoint in it, or a damaged file.
    """
    if directory.exists():
        raise ValueError(f"{directory} is there already: give a new directory")
    api = _client()
    begun = directory.with_name(f".{directory.name}.pulling")
    shutil.rmtree(begun, ignore_errors=True)
    try:
        with _told(repo):
            info = api.model_info(repo, revision=revision, files_metadata=True)
            listed = {file.rfilename: file for file in info.siblings or ()}
            if missing := [name for name in NEEDED if name not in listed]:
                raise ValueError(f"there is no {missing[0]}: not a checkpoint of GenieRay")
            begun.parent.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if name in listed:
                    path = Path(api.hf_hub_download(repo, name, revision=info.sha, local_dir=begun))
                    _check(path, listed[name])
        shutil.rmtree(begun / ".cache", ignore_errors=True)  # the client's notes
        try:
            checkpoint.load(begun)
        except ValueError as error:
            raise ValueError(f"hub, {repo}: {one_line(error)}") from error
        begun.rename(directory)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return str(info.sha)


def _client() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ValueError(NEEDS_CLIENT) from error
    return HfApi(library_name="genie-ray")


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """Tells in one line what went wrong at the hub; its client raises errors of many kinds."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"hub, {repo}: {shortened(one_line(error))}") from error


def _check(path: Path, listed: Any) -> None:
    """Raises ValueError unless a file has the hash that the hub lists: SHA-256 of a large file, git's of another."""
    content = path.read_bytes()
    if listed.lfs is not None:
        expected, found = listed.lfs.sha256, hashlib.sha256(content).hexdigest()
    else:
        blob = b"blob %d\0" % len(content) + content
        expected, found = listed.blob_id, hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(f"{path.name} is damaged: its hash is {found[:12]}, the hub lists {str(expected)[:12]}")
