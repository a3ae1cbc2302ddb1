from collections import namedtuple
from pathlib import Path

import pytest

from insvie_lightning.cli import main
from insvie_lightning.commands import doctor
from insvie_lightning.commands.doctor import Check, codecs, disk, packages, weights


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No test asks the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_line_says_what_to_do_only_when_something_is_missing() -> None:
    assert str(Check("disk", True, "9 GiB free", "buy one")) == "ok       disk             9 GiB free"
    assert str(Check("disk", False, "9 GiB free", "buy one")).endswith("9 GiB free -> buy one (optional)")
    assert str(Check("av", False, "broken", "mend it", required=True)).endswith("broken -> mend it")


def test_this_machine_has_all_that_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "missing"}
    assert {"python", "torch", "h264", "disk", "cuda", "openmp", "hub", "weights"} <= {
        line.split()[1] for line in lines
    }


def test_a_required_check_that_fails_sets_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "checks", lambda: iter([Check("h264", False, "", "mend it", required=True)]))
    assert main(["doctor"]) == 1
    monkeypatch.setattr(doctor, "checks", lambda: iter([Check("cuda", False, "", "buy one")]))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[1::2] == [
        "something required is missing",
        "everything required is here",
    ]


def test_packages_are_checked_against_the_declared_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy>=1", "av>=999", "absent>=1", "x; extra == 'dev'"])
    found = {check.name: check for check in packages()}
    assert {name: check.ok for name, check in found.items()} == {"numpy": True, "av": False, "absent": False}
    assert found["absent"].found == "not installed"
    assert found["av"].remedy == "pip install 'av>=999'"


def test_h264_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    def refuse(*_: object, **__: object) -> None:
        raise av.FFmpegError(1, "no such encoder")

    assert next(codecs()).ok
    monkeypatch.setattr(av, "open", refuse)
    check = next(codecs())
    assert not check.ok
    assert "no such encoder" in check.found


def test_a_full_disk_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(2 * doctor.GIB))
    assert not disk(tmp_path).ok
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(200 * doctor.GIB))
    assert disk(tmp_path).ok


def test_cached_models_are_found_without_the_hub(offline: Path) -> None:
    (offline / "models--yuvalkirstain--PickScore_v1").mkdir()
    cached = {check.found: check.ok for check in weights() if check.name == "weights"}
    assert cached["yuvalkirstain/PickScore_v1"]
    assert not cached["zai-org/CogVideoX-2b"]
