"""The dynamics: sizes, causality, hand-calculated losses, learning."""

from collections.abc import Callable

import pytest
import torch
from tiny_models import ACTIONS, FRAMES, GRID, dynamics_config, guided_model, moving_square, random_clip, train
from torch import Tensor

from world_model.dynamics import Dynamics, DynamicsConfig
from world_model.published import PUBLISHED_CHOICES

CODES = 32
ALIGNMENTS = ["shifted", "aligned"]


def dynamics(**changes: object) -> Dynamics:
    return Dynamics(dynamics_config(**changes), grid=GRID, codes=CODES).eval()


def random_tokens() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [1, T, H, W], actions [1, T−1] and token vectors [K, D]."""
    return (
        torch.randint(0, CODES, (1, FRAMES, *GRID)),
        torch.randint(0, ACTIONS, (1, FRAMES - 1)),
        torch.randn(CODES, 32),
    )


def test_defaults_have_the_papers_size() -> None:
    with torch.device("meta"):
        model = Dynamics(DynamicsConfig(**PUBLISHED_CHOICES), grid=(16, 16), codes=1024)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(80.2, abs=0.1)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@torch.no_grad()
def test_an_action_changes_the_next_frame_and_later_ones_only(alignment: str) -> None:
    model = dynamics(alignment=alignment)
    tokens_BTHW, actions_BT, vectors_KD = random_tokens()
    for time in range(FRAMES - 1):
        changed_BT = actions_BT.clone()
        changed_BT[:, time] = (changed_BT[:, time] + 1) % ACTIONS
        difference = model(tokens_BTHW, actions_BT, vectors_KD) - model(tokens_BTHW, changed_BT, vectors_KD)
        difference_T = difference.abs().amax((0, 2, 3, 4))  # entry t is about frame t + 1
        assert (difference_T[:time] == 0).all()
        assert (difference_T[time:] > 1e-5).all()


@pytest.mark.parametrize("conditioning", ["one_hot", "latent"])
@torch.no_grad()
def test_every_block_adds_an_action_once_to_each(conditioning: str) -> None:
    """So a model of one block is the same as one with its actions at the input."""
    once = dynamics(conditioning=conditioning, blocks=1)
    each = dynamics(conditioning=conditioning, blocks=1, actions_at="every_block")
    each.load_state_dict(once.state_dict())
    tokens_BTHW, actions_BT, vectors_KD = random_tokens()
    actions = actions_BT if conditioning == "one_hot" else torch.randn(1, FRAMES - 1, vectors_KD.shape[1])
    assert torch.equal(each(tokens_BTHW, actions, vectors_KD), once(tokens_BTHW, actions, vectors_KD))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@torch.no_grad()
def test_a_frame_changes_no_earlier_prediction(alignment: str) -> None:
    model = dynamics(alignment=alignment)
    tokens_BTHW, actions_BT, vectors_KD = random_tokens()
    for time in range(FRAMES):
        changed_BTHW = tokens_BTHW.clone()
        changed_BTHW[:, time, 1, 1] = (changed_BTHW[:, time, 1, 1] + 1) % CODES
        difference = model(tokens_BTHW, actions_BT, vectors_KD) - model(changed_BTHW, actions_BT, vectors_KD)
        difference_T = difference.abs().amax((0, 2, 3, 4))
        first_touched = time if alignment == "shifted" else max(time - 1, 0)  # entry t is about frame t + 1
        assert (difference_T[:first_touched] == 0).all()
        assert (difference_T[first_touched:] > 1e-5).all()


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@torch.no_grad()
def test_first_only_leaves_out_frames(alignment: str) -> None:
    model = dynamics(alignment=alignment)
    clip = random_tokens()
    torch.testing.assert_close(model(*clip, first=4), model(*clip)[:, 3:])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_masked_tokens_are_hidden_and_alone_are_scored(alignment: str) -> None:
    model = dynamics(alignment=alignment, hidden_past=0.0)
    tokens_BTHW, actions_BT, vectors_KD = random_tokens()
    mask_BTHW = torch.zeros(1, FRAMES - 1, *GRID, dtype=torch.bool)
    mask_BTHW[0, 2, 1, 3] = True
    frame_hidden = 2 if alignment == "shifted" else 3
    metrics = model.loss(
        tokens_BTHW, actions_BT, mask_BTHW, token_vectors_KD=vectors_KD, distance_vectors_KC=torch.randn(CODES, 8)
    ).metrics
    visible_BTHW = tokens_BTHW.clone()
    visible_BTHW[0, frame_hidden, 1, 3] = model.mask_token
    log_probs_BTHWK = model(visible_BTHW, actions_BT, vectors_KD).log_softmax(dim=-1)
    wanted = -log_probs_BTHWK[0, 2, 1, 3, tokens_BTHW[0, 3, 1, 3]]
    torch.testing.assert_close(metrics["cross_entropy"], wanted)


def test_the_token_input_is_zero_where_masked() -> None:
    model = dynamics(token_input_scale=10.0)
    tokens_BTHW, actions_BT, vectors_KD = random_tokens()
    masked_BTHW = torch.full_like(tokens_BTHW, model.mask_token)
    assert torch.equal(model(masked_BTHW, actions_BT, vectors_KD), model(masked_BTHW, actions_BT, vectors_KD * 2))
    assert not torch.allclose(
        model(tokens_BTHW, actions_BT, vectors_KD), model(tokens_BTHW, actions_BT, vectors_KD * 2)
    )


def test_embeddings_start_as_large_as_asked() -> None:
    for std in (1.0, 0.1):
        model = dynamics(embedding_std=std)
        for embedding in (model.token_embedding, model.position_embedding):
            assert float(embedding.weight.std()) == pytest.approx(std, rel=0.1)


def test_embeddings_get_a_tenth_of_their_gradient() -> None:
    model = dynamics(token_input_scale=0.0)
    tokens_BTHW, _, vectors_KD = random_tokens()
    embedded = model.embed(tokens_BTHW, model.token_inputs(vectors_KD), start=0)
    embedded.sum().backward()
    position = model.position_embedding.weight
    assert embedded.shape == (1, FRAMES, *GRID, 32)
    torch.testing.assert_close(position.grad, torch.full_like(position, 0.1))
    torch.testing.assert_close(
        embedded[0, 1, 2, 3], model.token_embedding.weight[tokens_BTHW[0, 1, 2, 3]] + position[16 + 2 * 4 + 3]
    )


@pytest.mark.parametrize("conditioning", ["one_hot", "embedding", "scale"])
@torch.no_grad()
def test_paired_training_shows_what_decoding_shows(conditioning: str) -> None:
    """Each frame's cross-entropy is that of a pass over the true frames before it and its own visible tokens."""
    model = dynamics(
        alignment="aligned",
        masking="paired",
        hidden_past=0.0,
        conditioning=conditioning,
        actions_at="every_block",
        tdce_weight=0.0,
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens_BTHW, actions_BT, vectors_KD = random_tokens()
    mask_BTHW = model.draw_mask(tokens_BTHW)
    found = model.loss(
        tokens_BTHW, actions_BT, mask_BTHW, token_vectors_KD=vectors_KD, distance_vectors_KC=torch.randn(CODES, 8)
    )
    total = 0.0
    for time in range(1, FRAMES):
        frame_B1HW, mask_B1HW = tokens_BTHW[:, time : time + 1], mask_BTHW[:, time - 1 : time]
        clip_BTHW = torch.cat([tokens_BTHW[:, :time], frame_B1HW.masked_fill(mask_B1HW, model.mask_token)], dim=1)
        log_probs_B1HWK = model(clip_BTHW, actions_BT[:, :time], vectors_KD, first=time).log_softmax(dim=-1)
        total -= float(log_probs_B1HWK.gather(-1, frame_B1HW[..., None])[..., 0][mask_B1HW].sum())
    assert float(found.loss) == pytest.approx(total / int(mask_BTHW.sum()), rel=1e-5)


def test_changed_tokens_weigh_more() -> None:
    model = dynamics(tdce_weight=0.0, changed_weight=4.0)
    tokens_BTHW, actions_BT, vectors_KD = random_tokens()
    tokens_BTHW[:, 1:, :2] = tokens_BTHW[:, :1, :2]  # the upper half never changes
    mask_BTHW = torch.ones(1, FRAMES - 1, *GRID, dtype=torch.bool)
    found = model.loss(
        tokens_BTHW, actions_BT, mask_BTHW, token_vectors_KD=vectors_KD, distance_vectors_KC=torch.randn(CODES, 8)
    )
    hidden_BTHW = torch.cat([torch.full_like(tokens_BTHW[:, 1:], model.mask_token), tokens_BTHW[:, -1:]], dim=1)
    log_probs_BTHWK = model(hidden_BTHW, actions_BT, vectors_KD).log_softmax(dim=-1)
    nll_BTHW = -log_probs_BTHWK.gather(-1, tokens_BTHW[:, 1:, ..., None])[..., 0]
    weights_BTHW = torch.where(tokens_BTHW[:, 1:] != tokens_BTHW[:, :-1], 5.0, 1.0)
    torch.testing.assert_close(found.loss, (weights_BTHW * nll_BTHW).sum() / weights_BTHW.sum())
    torch.testing.assert_close(found.metrics["cross_entropy"], nll_BTHW.mean())


def test_action_dropout_trains_without_actions() -> None:
    """A clip's loss is that of no action, all zeros, in the given share of clips."""
    model = dynamics(action_dropout=0.3, tdce_weight=0.0)
    model.transformer = torch.nn.Identity()
    seen: list[Tensor] = []

    def keep(x: Tensor, *_: Tensor, before_block: Callable[[Tensor, int], Tensor], **__: object) -> Tensor:
        seen.append(before_block(x, 0))
        return seen[-1]

    model.transformer.forward = keep  # type: ignore[method-assign]
    clips = 2_000
    tokens_BTHW, actions_BT = torch.zeros(clips, 2, *GRID, dtype=torch.int64), torch.ones(clips, 1, dtype=torch.int64)
    mask_BTHW = torch.ones(clips, 1, *GRID, dtype=torch.bool)
    vectors_KD, distances_KC = torch.randn(CODES, 32), torch.randn(CODES, 8)
    model.loss(tokens_BTHW, actions_BT, mask_BTHW, token_vectors_KD=vectors_KD, distance_vectors_KC=distances_KC)
    given_BA = seen[0][:, 0, 0, 0, 32:]
    assert set(given_BA.sum(dim=1).tolist()) == {0.0, 1.0}
    assert abs(given_BA[:, 1].mean() - 0.7) < 0.03


def test_the_loss_adds_lambda_times_the_token_distance() -> None:
    for weight in (0.0, 3.0):
        output = guided_model(tdce_weight=weight)(*random_clip())
        metrics = output.metrics
        torch.testing.assert_close(output.loss, metrics["cross_entropy"] + weight * metrics["token_distance"])
        assert metrics["token_distance"] > 0


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_learns_one_batch_by_heart(alignment: str) -> None:
    frames_BTHWC, actions_BT = moving_square()
    model = guided_model("fsq", alignment=alignment).train()
    train(model.dynamics, lambda: model(frames_BTHWC, actions_BT).loss, steps=120)
    assert model(frames_BTHWC, actions_BT).metrics["accuracy"] > 0.9


def test_an_aligned_model_learns_from_a_complete_past_unless_told_otherwise() -> None:
    assert DynamicsConfig().masking == "paired"
    assert DynamicsConfig(alignment="shifted").masking == "clip"
    assert DynamicsConfig(alignment="aligned", masking="clip").masking == "clip"


def test_too_many_frames_are_refused() -> None:
    tokens_BTHW = torch.zeros(1, FRAMES + 1, *GRID, dtype=torch.int64)
    actions_BT = torch.zeros(1, FRAMES, dtype=torch.int64)
    with pytest.raises(ValueError, match="a clip has 7 frames, allowed: 1 to 6"):
        dynamics()(tokens_BTHW, actions_BT, torch.randn(CODES, 32))


@pytest.mark.parametrize(
    "wrong",
    [
        {"alignment": "both"},
        {"masking": "token"},
        {"masking": "frame", "alignment": "shifted"},
        {"masking": "frame", "alignment": "aligned", "past_noise": 0.1},
        {"conditioning": "film"},
        {"tdce_weight": -1.0},
        {"changed_weight": -1.0},
        {"action_dropout": 1.0},
        {"num_actions": 0},
        {"max_frames": 1},
    ],
)
def test_impossible_configs_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="allowed"):
        DynamicsConfig(**wrong)
