"""procgen's installation, with real pip; what pip cannot install, or what does not run, is told and leaves no trace."""

import sys
import sysconfig
from pathlib import Path

import pytest

from genie_ray import cli
from genie_ray.games import procgen
from genie_ray.games.roms import require_rom


def left_behind() -> list[str]:
    return [path.name for path in Path(sysconfig.get_path("purelib")).glob(".procgen-*")]


@pytest.mark.parametrize("option", ["--procgen", "--coinrun"])  # the latter is what it was called first
def test_the_command_installs_it_once(
    option: str, procgen: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["genie-ray", "roms", "import", option])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert capsys.readouterr().out.startswith("installed: BigFish, BossFight, ")
    require_rom("CoinRun")
    assert left_behind() == []


def test_what_cannot_be_installed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(procgen, "has_procgen", lambda: False)
    monkeypatch.setattr(procgen, "PACKAGES", ((str(tmp_path / "none.whl"), ()),))
    with pytest.raises(ValueError, match=r"^\S*none\.whl cannot be installed: .+$") as error:
        procgen.install_procgen()
    assert "\n" not in str(error.value)
    monkeypatch.setattr(procgen, "PACKAGES", ())
    monkeypatch.setattr(procgen, "CHECK", "import procgen_that_is_not_there")
    with pytest.raises(ValueError, match=r"^procgen does not run here: ModuleNotFoundError: .*procgen_that_is_not"):
        procgen.install_procgen()
    assert left_behind() == []


def test_a_game_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie_ray.games.roms.has_procgen", lambda: False)
    with pytest.raises(ValueError, match=r"^Ninja is not installed: `genie-ray roms import --procgen` installs it$"):
        require_rom("Ninja")
