"""What travels with a job: the code and presets, nothing that is large or secret."""

from pathlib import Path

import pytest

from genie_ray.submitting import package
from genie_ray.submitting.package import find_root, pack, travelling

ROOT = Path(__file__).parents[3]


def clone(root: Path, patterns: str) -> Path:
    (root / "clusters").mkdir(parents=True)
    (root / "clusters" / "travels.txt").write_text(patterns)
    (root / "code" / "deep").mkdir(parents=True)
    (root / "code" / "a.py").write_text("1")
    (root / "code" / "deep" / "b.py").write_text("22")
    (root / "code" / "deep" / "rom.a26").write_text("333")
    (root / "secret.txt").write_text("4444")
    return root


def test_only_what_is_listed_travels(tmp_path: Path) -> None:
    root = clone(tmp_path / "clone", "# code\ncode/**/*  # all of it\n!*.a26\n")
    assert travelling(root) == [Path("code/a.py"), Path("code/deep/b.py")]
    (root / "code" / "link.txt").symlink_to(root / "secret.txt")
    assert pack(root, tmp_path / "job") == 3
    assert (tmp_path / "job" / "code" / "deep" / "b.py").read_text() == "22"
    assert not (tmp_path / "job" / "secret.txt").exists()
    assert not (tmp_path / "job" / "code" / "link.txt").exists()
    assert find_root(root / "code" / "deep") == root


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is not in a clone of GenieRay"):
        find_root(tmp_path)
    with pytest.raises(ValueError, match="'nothing/\\*' matches nothing"):
        travelling(clone(tmp_path / "a", "nothing/*\n"))
    monkeypatch.setattr(package, "MOST_BYTES", 2)
    with pytest.raises(ValueError, match=r"The largest file is code/deep/rom.a26 .*: leave it out in clusters/travels"):
        travelling(clone(tmp_path / "b", "code/**/*\n"))


def test_this_clone_travels_light_and_whole() -> None:
    files = travelling(ROOT)
    assert sum((ROOT / path).stat().st_size for path in files) < 5 * 2**20
    for needed in ("setup.py", "genie_ray/games/games.csv", "experiments/smoke.yaml", "world_model/dynamics.py"):
        assert Path(needed) in files
    assert not [path for path in files if path.parts[0] in ("tests", "docs", "runs") or path.suffix == ".pyc"]
