"""The tables of an evaluation as text."""

from typing import Any

import pytest

from genie_ray.report.scores import columns, notes, print_scores, score_rows, score_tables
from genie_ray.report.verdict import ON_EXPLORED, ON_RANDOM, verdict

ROW: dict[str, Any] = {
    "psnr": 30.0,
    "psnr_interval": [28.04, 31.96],
    "psnr_mean": 31.0,
    "ssim": 0.5,
    "delta_psnr": 0.714,
    "delta_psnr_interval": [0.52, 0.9],
    "delta_psnr_mean": -0.25,
    "delta_psnr_mean_interval": None,
    "fid": None,
}


def document(row: dict[str, Any], *, weights: str | None = None, **more: Any) -> dict[str, Any]:
    return {"models": {"model": {"game": row, "all": row}}, "protocol": {"inception_weights": weights}, **more}


def test_scores_have_their_intervals() -> None:
    (row,) = score_rows(document(ROW), "game")
    assert list(row.values()) == ["model", "30.00 [28.04, 31.96]", "31.00", "0.500", "+0.71 [0.52, 0.90]", "-0.25", "–"]
    assert "95 % intervals" in " ".join(notes(document(ROW)))


def test_probes_have_columns_where_a_genie_redux_was_scored_and_papers_have_rows() -> None:
    probed = {**ROW, "probe_codes": 0.5, "probe_vectors": 0.6, "probe_chance": 0.25}
    paper = {"label": "paper", "psnr_mean": 33.41, "ssim": None, "delta_psnr_mean": 1.89, "fid": 18.88}
    both = document(ROW, published=[paper])
    assert list(columns(both)) == ["psnr", "psnr_mean", "ssim", "delta_psnr", "delta_psnr_mean", "fid"]
    both["models"]["unguided"] = {"game": probed, "all": probed}
    guided, unguided, published = score_rows(both, "game")
    assert list(unguided.values())[-4:] == ["0.50", "0.60", "0.25", "–"]
    assert guided["probe_codes"] == "–"
    assert (published["label"], published["psnr_mean"], published["fid"]) == ("paper", "33.41", "18.88")
    assert (published["delta_psnr"], published["delta_psnr_mean"]) == ("–", "+1.89")  # papers publish the mean


def test_one_game_shows_its_fid_and_of_how_many_frames() -> None:
    (row,) = score_rows(document({**ROW, "fid": 12.345, "fid_frames": 640}, weights="dir/inception.pt"), "game")
    assert row["fid"] == "12.35 (640 frames)"


def test_an_empty_fid_says_why() -> None:
    assert notes(document(ROW))[0].startswith("FID is empty: no Inception weights given")
    assert "fewer than two frames" in notes(document(ROW, weights="inception.pt"))[0]


def test_long_horizons_and_familiar_windows_have_tables_of_their_own() -> None:
    assert len(score_tables(document(ROW), "game")) == 1
    row = {
        **ROW,
        "slices": {"1-10": {"psnr": 31.0, "ssim": 0.6}, "11-30": {"psnr": 28.0, "ssim": 0.4}},
        "drift": -3.0,
        "seen_share": 0.257,
        "unseen": {**ROW, "windows": 9, "psnr": 29.0},
        "psnr_rare": 25.0,
        "rare_frames": 7,
    }
    main, horizon, familiar = score_tables(document(row), "game")
    assert list(main.columns) == list(columns(document(ROW)))
    assert horizon.columns["slices.11-30.psnr"] == "PSNR of frames 11–30 (dB)"
    assert list(horizon.rows[0].values()) == ["model", "31.00", "0.600", "28.00", "0.400", "-3.00"]
    shown = familiar.rows[0]
    assert (shown["seen_share"], shown["unseen.windows"]) == ("26 %", "9")
    assert shown["unseen.psnr"] == "29.00 [28.04, 31.96]"
    assert shown["unseen.delta_psnr"] == "+0.71 [0.52, 0.90]"
    assert (shown["psnr_rare"], shown["rare_frames"]) == ("25.00", "7")
    everything = {**row, "seen_share": 1.0, "unseen": None}
    (met,) = score_tables(document(everything), "game")[2].rows
    assert list(met.values()) == ["model", "100 %", "25.00", "7"]
    assert "no others to score" in notes(document(everything))[-1]


def test_all_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    row = {**ROW, "seen_share": 0.5, "unseen": None, "psnr_rare": 25.0, "rare_frames": 7}
    print_scores(document(row))
    printed = capsys.readouterr()
    assert "Windows met in training: all their frames" in printed.out + printed.err


@pytest.mark.parametrize(("episodes", "told"), [(6, "(95 % interval over 6 test episodes +3.01 to +3.01)"), (1, "")])
def test_a_verdict_has_both_delta_psnrs_and_an_interval_if_there_is_one(episodes: int, told: str) -> None:
    names = [f"{index}" for index in range(episodes)]
    models = {
        label: {
            "game": {
                "psnr": psnr,
                "delta_psnr": 1.0,
                "delta_psnr_mean": mean,
                "window_errors": [error] * episodes,
                "window_episodes": names,
            }
        }
        for label, psnr, mean, error in ((ON_EXPLORED, 33.0, 0.5, 0.01), (ON_RANDOM, 30.0, 0.25, 0.02))
    }
    text = verdict({"models": models}, "game")["text"]
    assert told in text
    assert ("interval" in text) == bool(told)
    assert text.endswith("ΔPSNR +0.00 dB pooled, +0.25 dB as a mean of frames.")
