"""What a table's file says: its scales, the jobs that its models and test sets are made of, and its rows.

The file is YAML (experiments/reproduce/). Its jobs and rows are settings of commands that exist; nothing in it is code.

    include              a file whose mapping this one's is laid over
    presets, settings    of all jobs, as in any preset; paths are relative to the file
    scales               name → presets, settings, seeds, sets of games, amounts of play; laid over the above
    jobs                 name → kind, inputs by role (names of other jobs), settings of this job alone
    rows                 label, model, test set, settings of the evaluation; what the label means; the paper's figures
    means                what the title says of every row
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genie_ray.base.errors import one_line
from genie_ray.base.files import parse_yaml, shown
from genie_ray.base.settings import build, merge

Kind = Literal[
    "play",
    "player",
    "explorer",
    "found",
    "gathered",
    "tokenizer",
    "decoder",
    "dynamics",
    "genie_redux",
    "finetune",
    "adapted",
]
"""play         a replay dataset: by chance, or `by` a player or explorer
player       test agents, one a game, trained on the game's own reward
explorer     explorers, one a game, rewarded by the model `judge`
found        a replay dataset: all that an explorer played in training
gathered     a replay dataset: those that the play `of` a game is, for each game of a set
tokenizer    from scratch, or `init` trained further as a whole
decoder      a tokenizer's decoder, tuned
dynamics     GenieRedux-G from scratch
genie_redux  GenieRedux from scratch, with its latent action model
finetune     a model's dynamics (and latent action model), trained further, if given with another `tokenizer`
adapted      a model with its tokenizer's tuned decoder
"""
PLAYS, AGENTS = ("play", "found", "gathered"), ("player", "explorer")
MODELS, TOKENIZERS = ("dynamics", "genie_redux", "finetune", "adapted"), ("tokenizer", "decoder")
ROLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "play": {"by": AGENTS},
    "player": {},
    "explorer": {"judge": MODELS},
    "found": {"by": ("explorer",)},
    "gathered": {"of": ("play", "found")},
    "tokenizer": {"data": PLAYS, "init": (*TOKENIZERS, *MODELS)},
    "decoder": {"data": PLAYS, "tokenizer": (*TOKENIZERS, *MODELS)},
    "dynamics": {"data": PLAYS, "tokenizer": TOKENIZERS},
    "genie_redux": {"data": PLAYS, "tokenizer": TOKENIZERS},
    "finetune": {"data": PLAYS, "init": MODELS, "tokenizer": TOKENIZERS},
    "adapted": {"model": MODELS, "tokenizer": ("decoder",)},
}
"""Each kind's inputs, and the kinds that these may have; all are needed but for those in OPTIONAL."""
OPTIONAL = (("play", "by"), ("tokenizer", "init"), ("finetune", "tokenizer"))
PLAYED = ("play", "player", "explorer", "gathered")
"""Kinds that need games."""
EACH = "each"
"""As a job's games: the game of the row's section."""
PUBLISHED = "published"
"""The scale that the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class JobText:
    """A job as the file has it."""

    kind: Kind
    games: str | None = None  # a set of the scale, or "each"
    amount: str | None = None  # of a play: an amount of the scale
    purpose: str | None = None  # of a play: plays of different purposes share no episode
    hold: int = 1  # of random play
    epsilon: float = 0.0  # of an agent's play: share of random actions
    temperature: float = 1.0
    by: str | None = None
    of: str | None = None
    judge: str | None = None
    data: str | None = None
    tokenizer: str | None = None
    init: str | None = None
    model: str | None = None
    part: str | None = None  # of the scale: settings laid over the others, before this job's own
    seed: int | None = None  # if given, it does not change with the row's seed: one test set for all
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        roles = ROLES[self.kind]
        for role in ("by", "of", "judge", "data", "tokenizer", "init", "model"):
            given = getattr(self, role) is not None
            if given != (role in roles) and (self.kind, role) not in OPTIONAL:
                raise ValueError(
                    f"{role} is {getattr(self, role)!r}: a {self.kind} {'takes none' if given else 'needs one'}"
                )
        for name, kinds in (("games", PLAYED), ("amount", ("play",)), ("purpose", ("play",))):
            if (getattr(self, name) is not None) != (self.kind in kinds):
                told = "needs one" if self.kind in kinds else "takes none"
                raise ValueError(f"{name} is {getattr(self, name)!r}: a {self.kind} {told}")
        if self.hold != 1 and (self.kind != "play" or self.by is not None):
            raise ValueError(f"hold = {self.hold}: must be 1, except for random play")
        if self.by is None and (self.epsilon, self.temperature) != (0.0, 1.0):
            raise ValueError("epsilon and temperature are given: only an agent's play takes them")

    @property
    def inputs(self) -> dict[str, str]:
        """Role → the job's name."""
        return {role: name for role in ROLES[self.kind] if (name := getattr(self, role)) is not None}


@dataclass(frozen=True, kw_only=True)
class ScaleText:
    """How large everything is."""

    presets: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    games: dict[str, tuple[str, ...]]  # set → ids, queries or selections (games/catalog.py)
    amounts: dict[str, dict[Literal["steps", "episodes"], int]]  # of play, of each game
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)  # settings, `presets`, of jobs that name them

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)}: must be one or more, each once")
        for name, amount in self.amounts.items():
            if len(amount) != 1 or min(amount.values()) < 1:
                raise ValueError(f"amounts.{name} = {shown(amount)}: must be steps or episodes, and at least 1")


@dataclass(frozen=True, kw_only=True)
class RowText:
    """A row as the file has it."""

    row: str  # its label
    section: str = ""  # of the table; in a table with `each`, every game has one of its own
    model: str
    test: str
    # Of the model: itself, or what its tokenizer or latent action model alone makes of the test set.
    scored: Literal["model", "tokenizer", "latent_actions"] = "model"
    settings: dict[str, Any] = field(default_factory=dict)  # evaluation.*
    published: dict[Literal["test_set", "model"], str] = field(default_factory=dict)  # a line of figures.csv
    means: dict[str, Any]  # what the label says: places of the row's recipe, and what stands there
    differs_from: str | None = None  # the row's label of the same section that this one adds something to
    differs_in: tuple[str, ...] = ()  # places of the recipe: all that is different, and nothing else

    def __post_init__(self) -> None:
        _check_settings(self.settings, self.means)
        if (self.differs_from is None) != (not self.differs_in):
            raise ValueError("differs_from and differs_in: give both or neither")

    @property
    def label(self) -> str:
        return self.row


@dataclass(frozen=True, kw_only=True)
class PictureText:
    """A picture as the file has it: of a model on a test set, which it shows and does not score."""

    picture: str  # its heading
    kind: Literal["tokens", "uncertainty", "actions", "horizon", "behaviour"]  # see pictures.py
    model: str
    test: str
    settings: dict[str, Any] = field(default_factory=dict)  # evaluation.*
    means: dict[str, Any]

    def __post_init__(self) -> None:
        _check_settings(self.settings, self.means)

    @property
    def label(self) -> str:
        return self.picture


@dataclass(frozen=True, kw_only=True)
class ClaimText:
    """Something that the paper says of two rows of a section."""

    claim: str
    more: str  # the row that has more of it
    less: str
    of: Literal["psnr_mean", "ssim", "delta_psnr_mean", "fid"] = "psnr_mean"
    section: str | None = None  # None: in every one


@dataclass(frozen=True, kw_only=True)
class TableText:
    """A table as the file has it."""

    title: str
    source: str  # paper and table
    notes: tuple[str, ...] = ()  # what is made otherwise than published, at every scale
    presets: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    each: str | None = None  # a set of games: the rows are made for each of them
    paper_games: dict[str, int] = field(default_factory=dict)  # set → how many the paper has
    paper_names: dict[str, str] = field(default_factory=dict)  # game → what figures.csv calls its test set
    supplementary: bool = False  # an environment that the paper has not: none of its figures stand beside
    means: dict[str, Any] = field(default_factory=dict)  # of every row and picture: what the title says
    coverage: tuple[str, ...] = ()  # plays, of which it is told how much of the game they saw; not with `each`
    scales: dict[str, ScaleText]
    jobs: dict[str, JobText]
    rows: tuple[RowText, ...] = ()
    pictures: tuple[PictureText, ...] = ()
    claims: tuple[ClaimText, ...] = ()

    def __post_init__(self) -> None:
        if PUBLISHED not in self.scales:
            raise ValueError(f"scales are {', '.join(self.scales)}: {PUBLISHED} must be among them")
        known = {part for scale in self.scales.values() for part in scale.parts}
        for name, job in self.jobs.items():
            if job.part not in (None, *known):
                raise ValueError(f"jobs.{name}.part is {job.part!r}: no scale has it")
            for role, other in job.inputs.items():
                self._require(f"jobs.{name}.{role}", other, ROLES[job.kind][role])
        if not self.rows and not self.pictures:
            raise ValueError("rows and pictures are empty")
        for name in self.coverage:
            self._require("coverage", name, PLAYS)
        for one in self.shown:
            self._require(f"model of {one.label!r}", one.model, MODELS)
            self._require(f"test of {one.label!r}", one.test, PLAYS)
        places: set[tuple[str, str]] = set()
        for row in self.rows:
            if row.differs_from is not None and (row.section, row.differs_from) not in places:
                raise ValueError(f"differs_from of {row.row!r} is {row.differs_from!r}: must be an earlier row")
            if (row.section, row.row) in places:
                raise ValueError(f"the row {row.row!r} is there twice")
            places.add((row.section, row.row))
        labels = {row.row for row in self.rows}
        for claim in self.claims:
            if unknown := sorted({claim.more, claim.less} - labels):
                raise ValueError(f"the claim {claim.claim!r} is of {unknown[0]!r}: there is no such row")

    @property
    def shown(self) -> list[RowText | PictureText]:
        """All rows and pictures."""
        return [*self.rows, *self.pictures]

    def _require(self, what: str, name: str, kinds: tuple[str, ...]) -> None:
        if name not in self.jobs or self.jobs[name].kind not in kinds:
            raise ValueError(f"{what} is {name!r}: must be a job of the kind {' or '.join(kinds)}")


def _check_settings(settings: Mapping[str, Any], means: Mapping[str, Any]) -> None:
    if not means:
        raise ValueError("means is empty: say what the label means, as in model.dynamics.tdce_weight: 3.0")
    if unknown := sorted(set(settings) - {"evaluation"}):
        raise ValueError(f"settings.{unknown[0]}: a row's are of the evaluation; give a model's to its job")


def read_table(path: Path) -> TableText:
    """Reads a table's file, with those that it includes.

    Raises:
        ValueError: one line that names the file, the key, what was given and what is allowed.
    """
    values = _read(path, path.parent)
    try:
        named: dict[str, type[Any]] = {"scales": ScaleText, "jobs": JobText}
        for key, cls in named.items():
            if not isinstance(values.get(key), dict):
                raise ValueError(f"{key} is {shown(values.get(key))}: must be a mapping")
            values[key] = {name: _part(cls, one, f"{key}.{name}.") for name, one in values[key].items()}
        listed: dict[str, type[Any]] = {"rows": RowText, "pictures": PictureText, "claims": ClaimText}
        for key, cls in listed.items():
            values[key] = tuple(_part(cls, one, f"{key}[{at}].") for at, one in enumerate(values.get(key, ())))
        table: TableText = _part(TableText, values, "")
        return table
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read(path: Path, root: Path) -> dict[str, Any]:
    """A file's mapping, laid over that of the file it includes; paths are relative to `root`, the table's folder."""
    try:
        values = parse_yaml(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {shown(values)}: must hold a mapping")
    included = values.pop("include", None)
    return values if included is None else merge(_read(root / str(included), root), values)


def _part(cls: type[Any], values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix.rstrip('.')} is {shown(values)}: must be a mapping")
    try:
        return build(cls, values, prefix)
    except TypeError as error:  # an argument that is not there
        raise ValueError(f"{prefix.rstrip('.') or 'the table'} lacks a key ({error})") from None
