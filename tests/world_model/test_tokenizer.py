"""The tokenizer: sizes, causality, mean frame, learning, rejected inputs."""

import pytest
import torch
from tiny_models import FRAMES, SIZE, moving_square, random_clip, tokenizer_config, train

from world_model.layers.patches import from_patches, to_patches
from world_model.layers.quantizer import QuantizerConfig
from world_model.tokenizer import Tokenizer, TokenizerConfig


def test_the_published_tokenizer_has_the_papers_size() -> None:
    with torch.device("meta"):
        tokenizer = Tokenizer(TokenizerConfig(quantizer=QuantizerConfig(kind="cosine"), mean_frame=False))
    assert round(sum(p.numel() for p in tokenizer.parameters()) / 1e6, 1) == 101.6


def test_patches_invert() -> None:
    frames_BTHWC, _ = random_clip()
    patches_BTHWP = to_patches(frames_BTHWC, 4)
    assert patches_BTHWP.shape == (2, FRAMES, 4, 4, 48)
    torch.testing.assert_close(from_patches(patches_BTHWP, 4) * 255, frames_BTHWC.float())


def test_tokens_and_pixels_depend_on_no_later_frame() -> None:
    tokenizer = Tokenizer(tokenizer_config()).eval()
    frames_BTHWC, _ = random_clip()
    changed_BTHWC = frames_BTHWC.clone()
    changed_BTHWC[:, 3:] = 255 - changed_BTHWC[:, 3:]
    tokens_BTHW, changed_tokens_BTHW = tokenizer.encode(frames_BTHWC), tokenizer.encode(changed_BTHWC)
    assert torch.equal(tokens_BTHW[:, :3], changed_tokens_BTHW[:, :3])
    assert not torch.equal(tokens_BTHW[:, 3], changed_tokens_BTHW[:, 3])
    assert torch.equal(tokens_BTHW[:, :3], tokenizer.encode(frames_BTHWC[:, :3]))
    pixels, changed = tokenizer.decode_to_pixels(tokens_BTHW), tokenizer.decode_to_pixels(changed_tokens_BTHW)
    assert torch.equal(pixels[:, :3], changed[:, :3])
    assert not torch.equal(pixels[:, 3], changed[:, 3])


def test_decoding_tokens_gives_the_reconstruction() -> None:
    tokenizer = Tokenizer(tokenizer_config("fsq", mean_frame=True)).eval()
    frames_BTHWC, _ = random_clip()
    output = tokenizer(frames_BTHWC)
    torch.testing.assert_close(tokenizer.decode_to_pixels(output.tokens_BTHW), output.reconstruction_BTHWC)
    decoded_BTHWC = tokenizer.decode(output.tokens_BTHW)
    assert decoded_BTHWC.dtype == torch.uint8
    assert (decoded_BTHWC / 255 - output.reconstruction_BTHWC.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


def test_the_first_reconstruction_is_the_mean_frame() -> None:
    tokenizer = Tokenizer(tokenizer_config("fsq", mean_frame=True))
    frames_BTHWC, _ = random_clip(batch=4)
    tokenizer.initialize_mean_frame(frames_BTHWC)
    error = tokenizer(frames_BTHWC).reconstruction_BTHWC - frames_BTHWC.float().mean((0, 1)) / 255
    assert error.abs().max() < 0.05


@pytest.mark.parametrize("kind", ["fsq", "cosine"])
def test_learns_one_batch_by_heart(kind: str) -> None:
    frames_BTHWC, _ = moving_square()
    tokenizer = Tokenizer(tokenizer_config(kind, blocks=1, mean_frame=True))
    tokenizer.initialize_mean_frame(frames_BTHWC)
    train(tokenizer, lambda: tokenizer(frames_BTHWC).loss, steps=60)
    assert tokenizer(frames_BTHWC).metrics["psnr"] > 30


@pytest.mark.parametrize("mean_frame", [True, False])
@pytest.mark.parametrize("kind", ["cosine", "ema", "fsq"])
def test_a_tuned_decoder_leaves_tokens_bit_for_bit(kind: str, mean_frame: bool) -> None:
    old_BTHWC, _ = moving_square()
    new_BTHWC, _ = moving_square()  # another texture
    tokenizer = Tokenizer(tokenizer_config(kind, blocks=1, mean_frame=mean_frame))
    if mean_frame:
        tokenizer.initialize_mean_frame(old_BTHWC)
    train(tokenizer, lambda: tokenizer(old_BTHWC).loss, steps=20)
    tokenizer.eval()
    tuned = tokenizer.for_decoder_tuning().eval()
    assert torch.equal(tuned(new_BTHWC).reconstruction_BTHWC, tokenizer(new_BTHWC).reconstruction_BTHWC)
    tuned.train()
    train(tuned, lambda: tuned(new_BTHWC).loss, steps=20)
    tuned.eval()
    for frames_BTHWC in (old_BTHWC, new_BTHWC):
        assert torch.equal(tuned.encode(frames_BTHWC), tokenizer.encode(frames_BTHWC))
    assert torch.equal(tuned.token_vectors(), tokenizer.token_vectors())
    assert torch.equal(tuned.code_vectors(), tokenizer.code_vectors())
    assert tuned(new_BTHWC).metrics["reconstruction_mse"] < 0.9 * tokenizer(new_BTHWC).metrics["reconstruction_mse"]
    learned = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0].split("_patches")[0] for name in learned} == (
        {"decoder", "pixel_head", "decoder_mean"} if mean_frame else {"decoder", "pixel_head"}
    )
    assert tuned.for_decoder_tuning().config == tuned.config  # and may be tuned again


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.full((1, 2, 4, 4), 32), "tokens range from 32 to 32, allowed: 0 to 31"),
        (torch.full((1, 2, 4, 4), -1), "tokens range from -1 to -1, allowed: 0 to 31"),
        (torch.zeros(1, 2, 4, 4), r"tokens are torch\.float32, allowed: torch\.int64"),
        (torch.zeros(1, 2, 5, 4, dtype=torch.int64), r"tokens have shape \[1, 2, 5, 4\], allowed: \[B, T, 4, 4\]"),
        (torch.zeros(1, FRAMES + 1, 4, 4, dtype=torch.int64), "a clip has 7 frames, allowed: 1 to 6"),
    ],
)
def test_wrong_tokens_are_refused(tokens: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokenizer(tokenizer_config()).decode(tokens)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 2, SIZE, SIZE, 3), r"frames are torch\.float32, allowed: torch\.uint8"),
        (torch.zeros(1, 2, 3, SIZE, SIZE, dtype=torch.uint8), r"allowed: \[B, T, 16, 16, 3\]"),
        (torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8), r"allowed: \[B, T, 16, 16, 3\]"),
        (torch.zeros(1, FRAMES + 1, SIZE, SIZE, 3, dtype=torch.uint8), "a clip has 7 frames, allowed: 1 to 6"),
    ],
)
def test_wrong_frames_are_refused(frames: torch.Tensor, message: str) -> None:
    tokenizer = Tokenizer(tokenizer_config())
    for use in (tokenizer, tokenizer.encode):
        with pytest.raises(ValueError, match=message):
            use(frames)


def test_wrong_configs_are_refused() -> None:
    with pytest.raises(ValueError, match="frame_size is 64, allowed: multiples of patch_size 7"):
        TokenizerConfig(patch_size=7)
    with pytest.raises(ValueError, match="blocks is 0, allowed: 1 or more"):
        TokenizerConfig(blocks=0)
    with pytest.raises(ValueError, match="decoder_mean_frame is True, allowed: with mean_frame only"):
        TokenizerConfig(mean_frame=False, decoder_mean_frame=True)
    with pytest.raises(ValueError, match="no mean frame"):
        Tokenizer(tokenizer_config()).initialize_mean_frame(random_clip()[0])
