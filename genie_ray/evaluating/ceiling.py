"""The ceiling of ΔPSNR: what a world model would score that predicts exactly what the emulator shows.

ΔPSNR (Genie, Bruce et al., 2024, arXiv 2402.15391, Sec. 3) compares a model's prediction with the true frames x, given
the true actions and given others. A perfect model shows x with the true actions and, with the others, the frames x'
that the emulator shows when it takes them from the same state. Seen through the model's tokenizer its ΔPSNR is
PSNR(x, dec(enc(x))) − PSNR(x, dec(enc(x'))). Where that is near 0 the actions make no visible difference, and no model
can score more. The ceiling is ours.

Axes: B windows, T frames of a window (T − 1 actions between them), P predicted frames, H W C pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genie_ray.base.errors import one_line
from genie_ray.base.settings import build
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game
from genie_ray.envs.procgen import ProcgenEnv
from genie_ray.envs.retro import RetroEnv
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.scores import frame_errors
from genie_ray.evaluating.windows import Start, blackened, random_actions, read_batches
from genie_ray.games.actions import action_names
from genie_ray.games.procgen import PROCGEN_GAMES
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode
from genie_ray.storage.paths import Location

CONTROLLABLE_DB = 0.5
"""A window is controllable if its ceiling is above this: the other actions make a visible difference in it."""

NO_ENVIRONMENT = "the dataset does not say in which environment it was recorded"

Predict = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
"""Whole windows uint8 [B, T, H, W, C], actions [B, T − 1], seeds → the frames after the given ones [B, P, H, W, C]."""


class OtherFrames(NamedTuple):
    """What the emulator shows with other actions; exactly one of the two is None."""

    frames_BPHWC: Tensor | None  # uint8
    reason: str | None  # why there are none


class _IrreproducibleError(Exception):
    """The emulator cannot be asked, or does not show what the dataset holds. The message is the reason."""


def other_frames(
    dataset: ReplayDataset, starts: Sequence[tuple[EpisodeRef, int]], others_BT: Tensor, prime_frames: int
) -> OtherFrames:
    """The frames that the emulator shows after the given frames of windows of one game, with other actions.

    Each episode is replayed once, from its reset. At the last given frame of a window the emulator's state is saved,
    the other actions are taken, and the state is restored. If the game ends meanwhile, its last frame stands still.
    All recorded frames up to the end of an episode's last window must be reproduced bit for bit; if one is not, there
    are no frames, but a reason. So it is with play that was imported or recorded while an explorer was trained, and
    with a game, ROM or procgen that is missing or another one here.

    Stable-Retro allows one emulator per process, and an emulator can crash its process: call it for each game in a Ray
    task of its own (`max_calls=1, max_retries=0`), or here if this process has no emulator.

    Args:
        dataset: what was collected of the game.
        starts: episode and first frame of each window.
        others_BT: int64 [B, T − 1]; those between the given frames are ignored, the recorded ones are taken.
        prime_frames: how many frames of a window are given.

    Raises:
        ValueError: windows of several games, a window that leaves its episode, actions that the dataset does not
            have, or a damaged file.
    """
    others, T = others_BT.numpy(), others_BT.shape[1] + 1
    num_actions = len(dataset.metadata.action_names)
    if len(games := sorted({ref.game for ref, _ in starts})) != 1:
        raise ValueError(f"windows are of {len(games)} games: must be of one")
    if len(others) != len(starts) or not 1 <= prime_frames < T:
        raise ValueError(
            f"{len(others)} rows of other actions for {len(starts)} windows of {T} frames, {prime_frames} of them "
            f"given: must be a row for each window, and 1 to {T - 1} given frames"
        )
    if others.min() < 0 or others.max() >= num_actions:
        raise ValueError(f"other actions are {others.min()} to {others.max()}: must be 0 to {num_actions - 1}")
    by_episode: dict[EpisodeRef, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for window, (ref, start) in enumerate(starts):
        if not 0 <= start <= ref.length + 1 - T:
            raise ValueError(
                f"window of {T} frames from {start} of {ref.episode_id}: must lie within {ref.length + 1} frames"
            )
        by_episode[ref][start + prime_frames - 1].append(window)
    frames = np.zeros((len(starts), T - prime_frames, *dataset.metadata.frame_shape), np.uint8)
    taken = others[:, prime_frames - 1 :]
    try:
        with closing(_environment(games[0], dataset.metadata)) as env:
            for ref, branches in by_episode.items():
                _replay(env, dataset.read(ref), branches, taken, frames)
    except _IrreproducibleError as error:
        return OtherFrames(None, str(error))
    return OtherFrames(torch.from_numpy(frames), None)


def _environment(game: str, metadata: DatasetMetadata) -> RetroEnv | ProcgenEnv:
    """The environment that the dataset was collected in."""
    if "env" not in metadata.config:
        raise _IrreproducibleError(NO_ENVIRONMENT)
    try:
        config = build(EnvConfig, metadata.config["env"])
        names = action_names(config.action_set)
        if names != metadata.action_names:
            raise _IrreproducibleError(
                f"action set {config.action_set} is {', '.join(names)} here: was {', '.join(metadata.action_names)}"
            )
        return make_game(game, config)
    except (ValueError, OSError) as error:  # settings of another version, no ROM, no procgen, no such integration
        raise _IrreproducibleError(one_line(error)) from error


def _replay(
    env: RetroEnv | ProcgenEnv,
    episode: Episode,
    branches: dict[int, list[int]],
    taken_BP: NDArray[np.int64],
    frames_BPHWC: NDArray[np.uint8],
) -> None:
    """Replays an episode up to the end of its last window and fills in the frames of its windows.

    Args:
        branches: last given frame → the windows that branch off there.
    """
    options = None
    if env.game in PROCGEN_GAMES:  # an episode is a level; a console's game always starts in the same state
        if "level" not in episode.infos[0]:
            raise _IrreproducibleError(f"{episode.episode_id} does not say which level it is")
        options = {"level": episode.infos[0]["level"]}
    try:
        frame, _ = env.reset(options=options)
    except (RuntimeError, ValueError, OSError, EOFError) as error:  # no start state, or one of another emulator
        raise _IrreproducibleError(f"{env.game} does not start: {one_line(error)}") from error
    for step in range(max(branches) + taken_BP.shape[1] + 1):
        if step:
            frame = env.step(int(episode.actions[step - 1]))[0]
        if not np.array_equal(frame, episode.frames[step]):
            raise _IrreproducibleError(
                f"the emulator does not reproduce {episode.episode_id}: frame {step} of {len(episode.frames)} differs"
            )
        for window in branches.get(step, ()):
            state = env.get_state()
            frames_BPHWC[window] = _branch(env, taken_BP[window])
            env.set_state(state)  # type: ignore[arg-type]  # of the same environment


def _branch(env: RetroEnv | ProcgenEnv, actions_P: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The frames [P, H, W, C] after each action; once the game has ended, its last frame."""
    frames: list[NDArray[np.uint8]] = []
    ended = False
    for action in actions_P:
        if not ended:
            frame, _, terminated, truncated, _ = env.step(int(action))
            ended = terminated or truncated
        frames.append(frame)
    return np.stack(frames)


def ceiling_errors(
    dataset: ReplayDataset, starts: Sequence[Start], predict: Predict, config: EvaluationConfig
) -> tuple[Tensor | None, str | None]:
    """Errors of the emulator's frames under the random actions of ΔPSNR, float64 [W, P]; or None, and why.

    The emulator runs in an actor of its own: it may crash its process, and allows one per process.

    Args:
        starts: the windows, of one game.
        predict: codes clips, as `TokenizerAlone.predict`.
    """
    import ray

    if "env" not in dataset.metadata.config:
        return None, NO_ENVIRONMENT
    again = {"max_restarts": 1, "max_task_retries": 1}  # its node may have died, not the emulator
    actor = ray.remote(_Emulator).options(num_cpus=0, **again).remote(dataset.root)
    errors = []
    try:
        for windows in read_batches(dataset, starts, config):
            seeds = windows.seeds(config.seed, "random")
            others_BT = random_actions(windows.actions_BT, len(dataset.metadata.action_names), config, seeds)
            found = ray.get(actor.other_frames.remote(windows.starts, others_BT, config.prime_frames))
            if found.frames_BPHWC is None:
                return None, found.reason
            clips_BTHWC = torch.cat([windows.frames_BTHWC[:, : config.prime_frames], found.frames_BPHWC], dim=1)
            predicted_BPHWC = blackened(predict(clips_BTHWC, others_BT, seeds), config)
            true_BPHWC = blackened(windows.frames_BTHWC[:, config.prime_frames :], config)
            errors.append(frame_errors(predicted_BPHWC, true_BPHWC))
    except ray.exceptions.RayActorError:
        return None, "the emulator crashed"
    finally:
        ray.kill(actor)
    return torch.cat(errors), None


class _Emulator:
    """An actor that steps a game's emulator."""

    def __init__(self, root: Location) -> None:
        self._dataset = ReplayDataset(root)

    def other_frames(self, starts: Sequence[Start], others_BT: Tensor, prime_frames: int) -> OtherFrames:
        return other_frames(self._dataset, starts, others_BT, prime_frames)
