"""The published layout of GenieRedux's data, which the released training code reads and RetroAct's generator writes:
one directory per game, with one folder per session.

    retro_kangaroo-atari2600_v0.0.0/info.json
    retro_kangaroo-atari2600_v0.0.0/000000/000000/actions.json            instance, session
    retro_kangaroo-atari2600_v0.0.0/000000/000000/frames/000000.jpg …     or frames.mp4

`actions.json` is `{"actions": [{"src_id": 0, "tgt_id": 1, "action": [0, 0, 0, 0, 1], "extras": {…}}, …]}`: the action,
one-hot (CoinRun's is a number), led from frame `src_id` to frame `tgt_id`. The generator does not keep the frame before
the first action; that action has `src_id` −1 and the reader drops it. `info.json` holds the game, the names of the
actions (`ACTION_JUMP` is our `JUMP`), the step limit, and whether frames are pictures or a video. Source:
`data_generation/generator/generator.py`, `connector_retro_act.py` and `data/data.py` of insait-institute/GenieRedux
(Savov et al., CVPR 2025), from its public forks.

The layout has no place for rewards, log-probabilities and ids. An export stores them where the released code ignores
them, in `extras.replay` and beside `actions`, and an import reads them there. Instances are seeds, sessions indices.

Axis letters: T actions, H, W and C=3 of the T+1 frames around them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray

from genie_ray.base.files import write_atomically
from genie_ray.replay.exchange.recordings import (
    NEEDS_PYAV,
    ImportConfig,
    Recording,
    make_episode,
    read_picture,
    read_video,
)
from genie_ray.replay.schema import Episode, episode_id

Pictures = Literal["jpg", "png", "mp4"]
VERSION = "0.0.0"  # of the released data configurations
JPEG_QUALITY = 95  # OpenCV's default, which the generator uses
OUR_BUTTONS = {"ACTION_JUMP": "JUMP", "ACTION_SECONDARY": "SECOND"}
COINRUN_ACTIONS = ("NOOP", "RIGHT", "LEFT", "JUMP", "RIGHT+JUMP", "LEFT+JUMP", "DOWN")
"""The released reader takes any seven actions to be these, as numbers."""
FRAMES_PER_SECOND = 15  # of a video: 60 ticks/s at 4 ticks per step
INFO_FILE, ACTIONS_FILE, VIDEO_FILE = "info.json", "actions.json", "frames.mp4"
ARRAYS = ("action_logp", "reward_env", "reward_uncertainty")


def find_games(source: Path) -> list[Path]:
    """The directories that hold an `info.json`: the source, or up to two levels below it; sorted."""
    return sorted(path.parent for pattern in ("", "*/", "*/*/") for path in source.glob(f"{pattern}{INFO_FILE}"))


def find_sessions(directory: Path, config: ImportConfig) -> list[Recording]:
    """The sessions of a game's directory, in order.

    Raises:
        ValueError: `info.json` or an `actions.json` is damaged; the message names it.
    """
    info = _read_json(directory / INFO_FILE)
    game = config.game or _game_of(info, directory)
    recordings = []
    for path in sorted(directory.glob(f"*/*/{ACTIONS_FILE}")):
        instance, session = path.parent.parent.name, path.parent.name
        if not (instance.isdigit() and session.isdigit()):
            raise ValueError(f"{path}: instance and session must be numbers")
        exported = _read_json(path).get("episode_id")
        name = exported or episode_id(game, config.policy, int(instance), int(session))
        recordings.append(Recording(path=path.parent, episode_id=name, game=name.partition("/")[0]))
    return recordings


def action_names(directory: Path) -> tuple[str, ...]:
    """The names of a game's actions; their numbers if `info.json` has no names.

    Raises:
        ValueError: it is damaged; the message names it.
    """
    info = _read_json(directory / INFO_FILE).get("info", {})
    captions = info.get("action_captions")
    if captions is None:
        return tuple(map(str, range(info.get("action_space", [0])[-1])))
    combos = ([caption] if isinstance(caption, str) else caption for caption in captions)
    return tuple("+".join(OUR_BUTTONS.get(button, button) for button in combo) for combo in combos)


def read_session(recording: Recording, action_count: int, config: ImportConfig) -> Episode:
    """The episode of a session. If the files do not tell, one shorter than the step limit counts as terminated.

    Raises:
        ValueError: a damaged, missing or contradictory file; the message names it.
    """
    path = recording.path / ACTIONS_FILE
    document = _read_json(path)
    limit = _read_json(recording.path.parent.parent / INFO_FILE).get("generator_config", {}).get("n_steps_max", 0)
    try:
        steps = sorted(document["actions"], key=lambda step: _frame_number(step, "tgt"))
        targets, sources = ([_frame_number(step, end) for step in steps] for end in ("tgt", "src"))
        actions = [_action_number(step["action"]) for step, source in zip(steps, sources, strict=True) if source >= 0]
        extras = [dict(step.get("extras") or {}) for step in steps]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"damaged {path}: {error!r}") from error
    if not steps:
        raise ValueError(f"{path} has no actions")
    if sources != [target - 1 for target in targets] or targets != list(range(targets[0], targets[0] + len(targets))):
        raise ValueError(f"{path} lacks a step: source and target frames must be consecutive")
    first = max(0, sources[0])
    ours = [extra.pop("replay", None) for extra in extras]
    infos = extras if sources[0] < 0 else [{}, *extras]
    frames = _read_frames(recording.path, range(first, targets[-1] + 1))
    more: dict[str, Any] = {"infos": infos, "terminated": len(steps) < limit, "truncated": len(steps) >= limit}
    if ours[-1] is not None:
        more |= {name: ours[-1][name] for name in ("terminated", "truncated")}
        for name in ARRAYS:
            values = np.array([math.nan if row[name] is None else row[name] for row in ours[1:]], np.float32)
            if name == "reward_env" or not np.isnan(values).all():
                more[name] = values
    return make_episode(recording, frames, actions, action_count, config, **more)


def write_info(
    directory: Path,
    game: str,
    names: Sequence[str],
    frame_shape: tuple[int, int, int],
    lengths: Sequence[int],
    pictures: Pictures,
) -> None:
    """Write a game's `info.json`, for sessions with these numbers of actions.

    Raises:
        ValueError: seven actions that the released reader would mistake for CoinRun's.
    """
    if len(names) == len(COINRUN_ACTIONS) and tuple(names) != COINRUN_ACTIONS:
        raise ValueError(
            f"actions are {', '.join(names)}: the released code takes any seven to be {', '.join(COINRUN_ACTIONS)}"
        )
    theirs = {ours: button for button, ours in OUR_BUTTONS.items()}
    captions = [[theirs.get(button, button) for button in name.split("+")] for name in names]
    published = game.removesuffix("-v0")
    height, width, _ = frame_shape
    document = {
        "info": {
            "game": published,
            "config": {"game": published, "image_size": [width, height], "valid_action_combos": captions},
            "metadata": {},
            "action_space": [len(names)],
            "observation_space": list(frame_shape),
            "action_captions": captions,
        },
        "name": f"retro_{published.lower()}",
        "generator_version": "1.0.0",
        "version": VERSION,
        "generator_config": {
            "n_instances": 1,
            "n_sessions": len(lengths),
            "n_steps_max": max(lengths) + 1,
            "n_workers": 1,
            "output_mode": "video" if pictures == "mp4" else "frame",
        },
    }
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / INFO_FILE, lambda path: path.write_text(json.dumps(document, indent=1)))


def game_directory(root: Path, game: str) -> Path:
    """The directory of a game in a published dataset."""
    return root / f"retro_{game.removesuffix('-v0').lower()}_v{VERSION}"


def write_session(directory: Path, session: int, episode: Episode, action_count: int, pictures: Pictures) -> None:
    """Write an episode as a session of the directory's only instance; `actions.json` last.

    Raises:
        ValueError: PyAV is needed but not installed.
    """
    folder = directory / "000000" / f"{session:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    if pictures == "mp4":
        write_atomically(folder / VIDEO_FILE, lambda path: _write_video(path, episode.frames))
    else:
        (folder / "frames").mkdir(exist_ok=True)
        options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": "4:2:0"} if pictures == "jpg" else {}
        for index, frame in enumerate(episode.frames):
            imageio.imwrite(folder / "frames" / f"{index:06d}.{pictures}", frame, plugin="pillow", **options)
    document = {"episode_id": episode.episode_id, "actions": list(_steps(episode, action_count))}
    write_atomically(folder / ACTIONS_FILE, lambda path: path.write_text(json.dumps(document)))


def _steps(episode: Episode, action_count: int) -> Iterator[dict[str, Any]]:
    """The entry of each frame in `actions.json`: the action that led to it, and its extras."""
    T = len(episode.actions)
    arrays = {name: getattr(episode, name) for name in ARRAYS}
    for target, info in enumerate(episode.infos):
        step = target - 1  # no action led to the first frame
        replay: dict[str, Any] = {
            name: None if array is None or step < 0 or np.isnan(array[step]) else float(array[step])
            for name, array in arrays.items()
        }
        replay |= {"terminated": episode.terminated and target == T, "truncated": episode.truncated and target == T}
        number = int(episode.actions[step]) if step >= 0 else 0
        one_hot = [int(index == number and step >= 0) for index in range(action_count)]
        yield {
            "src_id": step,
            "tgt_id": target,
            "action": number if action_count == len(COINRUN_ACTIONS) else one_hot,
            "extras": {**info, "replay": replay},
        }


def _frame_number(step: dict[str, Any], end: Literal["src", "tgt"]) -> int:
    """The number of the frame before or after a step; older data use the second key."""
    return int(step[f"{end}_id"] if f"{end}_id" in step else step[f"{end}_frame_id"])


def _action_number(action: Any) -> int:
    """An action's number, which is stored as is or one-hot."""
    if isinstance(action, int):
        return action
    if sum(action) != 1 or max(action) != 1:
        raise ValueError(f"action {action} is neither a number nor one-hot")
    return action.index(1)


def _game_of(info: dict[str, Any], directory: Path) -> str:
    """The game in `info.json`, by its Stable-Retro id if it has one."""
    from genie_ray.games.roms import known_games

    name = info.get("info", {}).get("game") or info.get("name") or directory.name
    return f"{name}-v0" if f"{name}-v0" in known_games() else name


def _read_frames(folder: Path, ids: range) -> list[NDArray[np.uint8]]:
    """The frames of a session by their numbers, from pictures or from its video."""
    if (folder / VIDEO_FILE).exists():
        frames = list(read_video(folder / VIDEO_FILE))
        if len(frames) < ids.stop:
            raise ValueError(f"{folder / VIDEO_FILE} has {len(frames)} frames: {ACTIONS_FILE} needs {ids.stop}")
        return frames[ids.start : ids.stop]
    suffix = "png" if (folder / "frames" / f"{ids.start:06d}.png").exists() else "jpg"
    return [read_picture(folder / "frames" / f"{index:06d}.{suffix}") for index in ids]


def _write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Lossless H.264 in RGB."""
    try:
        import av
    except ImportError as error:
        raise ValueError(NEEDS_PYAV) from error
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264rgb", rate=FRAMES_PER_SECOND, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"damaged or missing {path}: {error}") from error
    if isinstance(document, list) and path.name == ACTIONS_FILE:
        return {"actions": document}
    if not isinstance(document, dict):
        raise ValueError(f"damaged {path}: it holds a {type(document).__name__}")
    return document
