"""`genie-ray collect` and `genie-ray explore`: record play, and train explorers. Thin: parse, call, print."""

from __future__ import annotations

from typing import Annotated

import typer

from genie_ray.commands.options import Address, ConfigFile, Games, Output, Overrides, Seed, choose_games, load_settings


def collect(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Output directory, or a URI such as s3://bucket/play.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Environment steps per game.", show_default=False)] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Episodes per game, instead of steps.", show_default=False)
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Most steps per episode (env.max_episode_steps).", show_default=False)
    ] = None,
    policy: Annotated[
        str, typer.Option(help="`random`, or a directory of trained agents (<directory>/<game>/module).")
    ] = "random",
    game: Games = None,
    epsilon: Annotated[float, typer.Option(min=0, max=1, help="Share of random actions mixed in.")] = 0.0,
    temperature: Annotated[
        float, typer.Option(min=1e-6, help="Sampling temperature: divides a trained policy's logits.")
    ] = 1.0,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Random play that prefers some actions: NAME=WEIGHT, joined by commas; other actions have weight 1.",
            show_default=False,
        ),
    ] = None,
    hold: Annotated[int, typer.Option(min=1, help="Steps that random play holds each action.")] = 1,
    seed: Seed = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Play games and store every step as a replay dataset. Settings: collection.*, env.*."""
    if (steps is None) == (episodes is None):
        raise ValueError("give the amount of play per game: either --steps or --episodes")
    limit = [] if max_steps is None else [f"env.max_episode_steps={max_steps}"]
    settings = load_settings(config, [*(overrides or []), *limit], address)
    games = choose_games(settings, game)
    from genie_ray.base.files import told_if_full
    from genie_ray.base.session import ray_session
    from genie_ray.collecting.collection import collect as play
    from genie_ray.collecting.plan import Policy
    from genie_ray.games.actions import action_names, action_weights
    from genie_ray.storage.paths import resolve

    place = resolve(output)
    if policy != "random" and hold > 1:
        raise ValueError(
            f"--hold is {hold} and --policy {policy}: holding is for random play only, a trained policy brings its own"
        )
    player = Policy(name="random" if hold == 1 else "held", hold=hold)
    if weights is not None:
        if policy != "random":
            raise ValueError(f"--weights is {weights!r} and --policy {policy}: weights are for random play only")
        drawn = action_weights(weights, action_names(settings.env.action_set))
        player = Policy(name="weighted" if hold == 1 else "weighted-held", weights=drawn, hold=hold)
    elif policy != "random":
        agents = resolve(policy)
        player = Policy(name=agents.name, directory=agents, epsilon=epsilon, temperature=temperature)
    with told_if_full(place), ray_session(settings.ray):
        play(
            place,
            player,
            games,
            steps or episodes or 0,
            settings.collection,
            settings.env,
            unit="steps" if steps else "episodes",
            seed=settings.seed if seed is None else seed,
        )
    typer.echo(place)


def explore(
    output: Output,
    world_model: Annotated[
        str | None, typer.Option(help="World model checkpoint that the rewards come from; see reward.*.")
    ] = None,
    reward_service: Annotated[
        str | None, typer.Option(help="Instead: name of a reward service running on this cluster (serve-rewards).")
    ] = None,
    game: Games = None,
    shared: Annotated[bool, typer.Option("--shared", help="One explorer for all games (OUT/shared/module).")] = False,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Train explorers (OUT/<game>/module) on a world model's uncertainty. Settings: exploration.*, reward.*."""
    settings = load_settings(config, [*(overrides or []), *(["exploration.shared=true"] if shared else [])], address)
    from genie_ray.base.files import told_if_full
    from genie_ray.base.session import ray_session
    from genie_ray.exploring import exploration, explorers
    from genie_ray.games.actions import action_names
    from genie_ray.rewards.service import find_service
    from genie_ray.storage.paths import resolve

    if (world_model is None) == (reward_service is None):
        raise ValueError("give one source of rewards: either --world-model or --reward-service")
    if reward_service is not None and (own := [each for each in overrides or [] if each.startswith("reward.")]):
        raise ValueError(f"{own[0]}: a running service has its own settings; give them to `genie-ray serve-rewards`")
    games, place = choose_games(settings, game), resolve(output)
    with told_if_full(place), ray_session(settings.ray):
        if world_model is not None:
            for path in explorers.train_explorers(place, games, resolve(world_model), settings):
                typer.echo(path)
            return
        assert reward_service is not None
        explorers.check_room(settings, replicas=0)
        names = action_names(settings.env.action_set)
        ask = settings.exploration.algorithm == "vtrace" and settings.exploration.learning.old_rewards == "ask"
        rewards = find_service(reward_service, frame_size=settings.env.frame_size, action_names=names, asked_again=ask)
        for name, played in settings.exploration.agents(games).items():
            typer.echo(exploration.explore(place / name, played, rewards, settings))
