"""From measured changes to control labels, in RetroAct's vocabulary: a guess in each context, then a vote.

The rules are ours. They use the first second after the action first shows (longer for a jump), because later the game's
other characters react to the player, and everything differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from genie_ray.probing.motion import Change, compare, differs
from genie_ray.probing.play import NOOP, Context, Rollout

SECOND = 12  # steps
LEAST_CHANGED = 4  # pixels over that second; fewer are a flicker
FIRST = 2  # steps after the action first shows, before a shot has hit anything
SOON = slice(1, 7)  # steps after the action first shows in which a move is measured
JUMP = 20  # steps within which a jump lands
LEAST_SHIFT = 4.0  # pixels that something must have moved by then; less is an arm or a turn
APPEARED = 2.5  # ratio of arrived to left pixels above which something new is on the screen
SHRUNK = 1.3  # ratio of left to arrived pixels above which what moved became smaller
CROUCH = (2.0, 10.0)  # pixels; a larger move down is not a crouch
RETURNED = 0.35  # fraction of the highest point; below it, a jump has come down again
LEAST_CONTEXTS = 0.25  # fraction of contexts in which an action must show; in fewer it does nothing
LEAST_FREE = 0.5  # fraction of contexts in which a move up or down must show; in fewer it needs a ladder
DIRECTIONS = ("RIGHT", "LEFT", "UP", "DOWN")
TURNS = {"RIGHT": "turn_right", "LEFT": "turn_left"}


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What an action seems to do in one context, and the measurements behind it."""

    label: str
    onset: int | None = None  # step at which the action first shows
    area: int = 0  # pixels that differ from no-op, the median of the first second
    shift: tuple[float, float] = (0.0, 0.0)  # pixels right and down, the median of half a second
    scroll: tuple[float, float] = (0.0, 0.0)  # pixels by which the picture as a whole is shifted
    grown: float = 1.0  # pixels that arrived in half a second, as a multiple of those that left
    variables: tuple[str, ...] = ()  # emulator variables that differ from no-op's at some step


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """An action's proposed label, and the guesses behind it, one per context."""

    action: str
    label: str
    guesses: list[Guess] = field(default_factory=list)

    @property
    def votes(self) -> Counter[str]:
        """How many contexts vote for each label."""
        return Counter(guess.label for guess in self.guesses)

    @property
    def evidence(self) -> str:
        """One line: the votes, and the typical measurement behind the label."""
        votes = ", ".join(f"{label} {count}" for label, count in self.votes.most_common())
        shown = [guess for guess in self.guesses if guess.onset is not None]
        if not shown:
            return f"{votes} of {len(self.guesses)} contexts"
        x, y = np.median([guess.shift for guess in shown], axis=0)
        area = np.median([guess.area for guess in shown])
        text = f"{votes} of {len(self.guesses)} contexts; {area:.0f} pixels differ, moved by ({x:+.0f}, {y:+.0f})"
        scrolls = [guess.scroll for guess in shown if any(guess.scroll)]
        if scrolls:
            text += ", picture shifted by ({:+.0f}, {:+.0f})".format(*np.median(scrolls, axis=0))
        variables = sorted({name for guess in shown for name in guess.variables})
        return f"{text}; {', '.join(variables)} differ" if variables else text


def guess_label(held: Rollout, noop: Rollout) -> Guess:
    """What an action does in one context, compared with no-op."""
    steps = range(min(len(held.frames), len(noop.frames)))
    onset = next((t for t in steps if differs(held.frames[t], noop.frames[t]).any()), None)
    if onset is None:
        return Guess(label="none")
    guess = read_changes(held.action, [compare(held.frames[t], noop.frames[t]) for t in steps[onset : onset + JUMP]])
    differing = {name for t in steps for name in noop.infos[t] if held.infos[t][name] != noop.infos[t][name]}
    return replace(guess, onset=onset, variables=tuple(sorted(differing)))


def read_changes(action: str, changes: Sequence[Change]) -> Guess:
    """Applies the rules to the changes from the step at which the action first shows."""
    early = changes[:SECOND]
    first, soon = (_arrived_and_left(changes[:steps]) for steps in (FIRST, SOON.stop))
    scrolls = [change.scroll for change in early if any(change.scroll)]
    scroll = tuple(np.median(scrolls, axis=0)) if len(scrolls) > len(early) / 3 else (0.0, 0.0)
    known = [change.shift for change in early[SOON] if not np.isnan(change.shift[0])]
    shift = np.median(known, axis=0) if known else np.zeros(2)
    if sum(change.area for change in early) < LEAST_CHANGED:
        label = "none"
    elif any(scroll):
        label = _direction(action, -scroll[0], -scroll[1])
    elif first[0] > APPEARED * first[1] or (soon[0] and not known):
        label = "shoot"
    elif CROUCH[0] <= shift[1] <= CROUCH[1] and abs(shift[0]) < shift[1] and soon[1] > SHRUNK * soon[0]:
        label = "crouch"
    elif np.abs(shift).max() < LEAST_SHIFT:
        label = TURNS.get(action, "strike")
    else:
        label = _direction(action, shift[0], shift[1])
        heights = [now.shift[1] if now.area or before.area else 0.0 for before, now in pairwise(changes)]
        if label == "up" and _comes_down(heights):
            label = "jump"
        if label in ("right", "left") and action not in DIRECTIONS:
            label = "use"
    return Guess(
        label=label,
        area=int(np.median([change.area for change in early])),
        shift=(float(shift[0]), float(shift[1])),
        scroll=(float(scroll[0]), float(scroll[1])),
        grown=soon[0] / max(soon[1], 1),
    )


def _arrived_and_left(changes: Sequence[Change]) -> tuple[int, int]:
    return sum(change.arrived for change in changes), sum(change.left for change in changes)


def propose(contexts: Sequence[Context]) -> list[Proposal]:
    """A label for each action that was held.

    Raises:
        ValueError: there is no context.
    """
    if not contexts:
        raise ValueError("nothing to measure: the lead-in of every context ends the game")
    actions = [action for action in contexts[0] if action != NOOP]
    return vote({action: [guess_label(context[action], context[NOOP]) for context in contexts] for action in actions})


def vote(guesses: Mapping[str, list[Guess]]) -> list[Proposal]:
    """Each action's most frequent label over the contexts in which it has any effect."""
    proposals = []
    for action, given in guesses.items():
        votes = Counter(guess.label for guess in given if guess.label != "none")
        label = "none"
        if votes.total() >= LEAST_CONTEXTS * len(given) and votes:
            label = votes.most_common(1)[0][0]
        if label in ("up", "down") and votes.total() < LEAST_FREE * len(given):
            label = "climb"
        proposals.append(Proposal(action=action, label=label, guesses=given))
    return proposals


def _direction(action: str, x: float, y: float) -> str:
    """Where something moved: along the pressed axis of the control pad, if it moved along both axes (whoever walks off
    an edge falls further than they walk), else along the axis of the larger move."""
    sideways = abs(x) >= abs(y)
    if action in DIRECTIONS and min(abs(x), abs(y)) >= LEAST_SHIFT:
        sideways = action in TURNS
    if sideways:
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def _comes_down(heights: Sequence[float]) -> bool:
    """Whether what rose comes down again; heights are pixels, up negative, NaN where unknown."""
    known = [height for height in heights if not np.isnan(height)]
    highest = int(np.argmin(known))
    return any(abs(height) < RETURNED * -known[highest] for height in known[highest:])
