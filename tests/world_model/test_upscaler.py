"""The upscaler: sizes, initial output, learning, frames of any leading shape, checkpoints, rejected inputs."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from world_model import checkpoint
from world_model.upscaler import FRAMES_AT_ONCE, Upscaler, UpscalerConfig

SIZE, SCALE = 16, 4
LARGE = SIZE * SCALE


def small_upscaler(residual: bool = False) -> Upscaler:
    torch.manual_seed(0)
    return Upscaler(UpscalerConfig(frame_size=SIZE, scale=SCALE, channels=(4, 8), residual=residual))


def random_pictures(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Unrelated frames and large frames."""
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=generator) for size in (SIZE, LARGE)
    )


def squares(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Sharp squares, and the same averaged over SCALE×SCALE pixels."""
    large_BHWC = torch.full((count, LARGE, LARGE, 3), 40, dtype=torch.uint8)
    for index in range(count):
        large_BHWC[index, 9 + 7 * index : 25 + 7 * index, 6 + 9 * index : 22 + 9 * index] = 220
    small = F.avg_pool2d(large_BHWC.permute(0, 3, 1, 2).float(), SCALE)
    return small.round().byte().permute(0, 2, 3, 1), large_BHWC


@pytest.mark.parametrize(("channels", "millions"), [((64, 128, 256, 512), 31.0), ((128, 256, 512, 1024), 124.0)])
def test_both_variants_have_the_papers_sizes(channels: tuple[int, ...], millions: float) -> None:
    with torch.device("meta"):
        upscaler = Upscaler(UpscalerConfig(channels=channels))
    assert sum(p.numel() for p in upscaler.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_defaults_are_the_papers() -> None:
    config = UpscalerConfig()
    assert (config.frame_size, config.large_size, config.channels) == (64, 256, (64, 128, 256, 512))
    assert not config.residual


def test_loss_is_the_mean_squared_error_and_bicubics_stands_beside_it() -> None:
    frames_BHWC, large_BHWC = random_pictures()
    output = small_upscaler().eval()(frames_BHWC, large_BHWC)
    true = large_BHWC.double() / 255
    error = float((output.large_BHWC.detach().double() - true).square().mean())
    bicubic = F.interpolate(frames_BHWC.permute(0, 3, 1, 2).double() / 255, size=LARGE, mode="bicubic").clamp(0, 1)
    assert float(output.loss) == pytest.approx(error, rel=1e-5)
    assert float(output.metrics["reconstruction_mse"]) == pytest.approx(error, rel=1e-5)
    assert 10 ** (-float(output.metrics["psnr"]) / 10) == pytest.approx(error, rel=1e-4)
    bicubic_error = float((bicubic.permute(0, 2, 3, 1) - true).square().mean())
    assert float(output.metrics["bicubic_mse"]) == pytest.approx(bicubic_error, rel=1e-4)
    assert not any(value.requires_grad for value in output.metrics.values())


def test_the_residual_form_starts_at_bicubic_interpolation() -> None:
    frames_BHWC, large_BHWC = random_pictures()
    output = small_upscaler(residual=True)(frames_BHWC, large_BHWC)
    assert output.loss == output.metrics["bicubic_mse"]
    bicubic = F.interpolate(frames_BHWC.permute(0, 3, 1, 2).float(), size=LARGE, mode="bicubic").clamp(0, 255)
    upscaled = small_upscaler(residual=True).eval().upscale(frames_BHWC).permute(0, 3, 1, 2)
    assert (upscaled.float() - bicubic).abs().max() < 0.51


def test_every_level_reaches_the_picture() -> None:
    """Each skip connection and the bottleneck: the image changes without what one level adds."""
    upscaler, (frames_BHWC, _) = small_upscaler().eval(), random_pictures()
    whole = upscaler.upscale(frames_BHWC)
    for part in (*upscaler.down, upscaler.bottleneck):
        hook = part.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        assert not torch.equal(upscaler.upscale(frames_BHWC), whole)
        hook.remove()
    assert torch.equal(upscaler.upscale(frames_BHWC), whole)


@pytest.mark.parametrize(("residual", "learning_rate"), [(False, 3e-2), (True, 1e-2)])
def test_learns_one_batch_by_heart(residual: bool, learning_rate: float) -> None:
    upscaler, (frames_BHWC, large_BHWC) = small_upscaler(residual), squares()
    optimizer = torch.optim.Adam(upscaler.parameters(), lr=learning_rate)
    for _ in range(150):
        optimizer.zero_grad()
        output = upscaler(frames_BHWC, large_BHWC)
        output.loss.backward()
        optimizer.step()
    assert output.loss < 1e-3 < output.metrics["bicubic_mse"] / 3
    upscaled = upscaler.eval().upscale(frames_BHWC)  # the running statistics have reached those of the batch
    assert F.mse_loss(upscaled.float(), large_BHWC.float()) / 255**2 < 2e-3


def test_frames_of_any_leading_shape_are_upscaled_one_by_one() -> None:
    upscaler = small_upscaler().eval()
    frames_NHWC, _ = random_pictures(count=FRAMES_AT_ONCE + 4)
    one_by_one = torch.stack([upscaler.upscale(frame_HWC) for frame_HWC in frames_NHWC])
    assert one_by_one.shape == (FRAMES_AT_ONCE + 4, LARGE, LARGE, 3)
    assert one_by_one.dtype == torch.uint8

    def same(upscaled: torch.Tensor, expected: torch.Tensor) -> bool:
        """Convolutions may round differently at other batch sizes."""
        return upscaled.shape == expected.shape and bool((upscaled.int() - expected.int()).abs().max() <= 1)

    assert same(upscaler.upscale(frames_NHWC), one_by_one)
    clips_BTHWC = frames_NHWC.view(3, 4, SIZE, SIZE, 3)
    assert same(upscaler.upscale(clips_BTHWC), one_by_one.view(3, 4, LARGE, LARGE, 3))
    assert same(upscaler.upscale(clips_BTHWC[:, 1:]), one_by_one.view(3, 4, LARGE, LARGE, 3)[:, 1:])  # not contiguous
    assert upscaler.upscale(clips_BTHWC[:, :0]).shape == (3, 0, LARGE, LARGE, 3)


@pytest.mark.parametrize("residual", [False, True])
def test_a_checkpoint_gives_the_same_pictures(tmp_path: Path, residual: bool) -> None:
    upscaler, (frames_BHWC, large_BHWC) = small_upscaler(residual), squares()
    optimizer = torch.optim.Adam(upscaler.parameters(), lr=1e-2)
    for _ in range(3):  # moves the weights and the statistics of batch normalisation
        upscaler(frames_BHWC, large_BHWC).loss.backward()
        optimizer.step()
    checkpoint.save(upscaler, tmp_path / "upscaler", provenance={"iteration": 3})
    loaded = checkpoint.load_as(Upscaler, tmp_path / "upscaler")
    assert loaded.config == upscaler.config
    assert torch.equal(loaded.upscale(frames_BHWC), upscaler.eval().upscale(frames_BHWC))
    assert checkpoint.read_config(Upscaler, tmp_path / "upscaler") == upscaler.config
    assert checkpoint.read_description(tmp_path / "upscaler")["tokenizer_sha256"] is None


def test_wrong_frames_are_refused() -> None:
    upscaler, (frames_BHWC, large_BHWC) = small_upscaler(), random_pictures()
    with pytest.raises(ValueError, match=r"frames are torch\.float32, allowed: torch\.uint8"):
        upscaler(frames_BHWC.float(), large_BHWC)
    with pytest.raises(ValueError, match=r"frames have shape \[2, 64, 64, 3\], allowed: \[\.\.\., 16, 16, 3\]"):
        upscaler(large_BHWC, large_BHWC)
    with pytest.raises(ValueError, match=r"large frames have shape \[2, 32, 32, 3\], allowed: \[\.\.\., 64, 64, 3\]"):
        upscaler(frames_BHWC, large_BHWC[:, ::2, ::2])
    with pytest.raises(ValueError, match="one large frame for each frame"):
        upscaler(frames_BHWC, large_BHWC[:1])
    with pytest.raises(ValueError, match="one large frame for each frame"):
        upscaler(frames_BHWC[None], large_BHWC[None])
    with pytest.raises(ValueError, match=r"is in training mode, allowed: Upscaler\.eval\(\)"):
        upscaler.upscale(frames_BHWC)
    with pytest.raises(ValueError, match=r"allowed: \[\.\.\., 16, 16, 3\]"):
        upscaler.eval().upscale(frames_BHWC.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"scale": 0}, "scale is 0, allowed: 1 or more"),
        ({"channels": ()}, r"channels are \[\], allowed: one or more"),
        ({"channels": (8, 0)}, r"channels are \[8, 0\], allowed: one or more, all positive"),
        ({"frame_size": 12, "scale": 1, "channels": (4, 8, 16)}, "is 12, allowed with 3 levels: multiples of 8"),
    ],
)
def test_wrong_configs_are_refused(settings: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        UpscalerConfig(**settings)
