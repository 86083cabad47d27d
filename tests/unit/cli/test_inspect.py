"""What `dray inspect` prints of what a gateway answers, and how little it loads for that."""

import json
from typing import Any

import pytest

from cli.errors import UnexpectedAnswerError, UsageError
from cli.inspect import Wish, inspect
from shared.layout import PlacedLayout
from tests.support.scripted_gateway import says, scripted_gateway
from tests.support.views import REFERENCE, image_detail, image_view

BY_REFERENCE = "GET /api/v1/images/daint/docker/alpine%3A3?sharing=true"


def _inspect(view: Any, image: str = "alpine:3", *, asked: str = BY_REFERENCE, **how: Any) -> int:
    with scripted_gateway() as (url, script):
        script.on(asked, says(view))
        wish = Wish(image, url, how.get("system", "daint"), None, check=how.get("check", False))
        return inspect(wish, json=how.get("json", False))


def test_layers_and_sums_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert _inspect(image_detail()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"reference   {REFERENCE}" in lines
    assert "size        3.5 MB (3,456,789 bytes)" in lines
    assert "blocks      zstd level 3, 128 KiB" in lines
    assert "files       all owned by root; no setuid; no devices; xattrs: user." in lines
    assert "env         PATH=/usr/bin" in lines
    assert "            LANG=C.UTF-8" in lines
    row = next(line for line in lines if line.startswith("1  "))
    words = "1 dddddddddddd 3.0 MB 86.8 % 300 kB 10.0 % 5 B 2 2"
    assert row.split() == words.split()
    assert "data        3.0 MB in 1 layer" in lines
    assert "dead        300 kB (8.7 %); 5 B left out" in lines
    assert "shared      3.0 MB with other images; 457 kB are its own" in lines


def test_the_layout_of_a_file_on_lustre_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    given = PlacedLayout(stripes=4, stripe_size=1 << 20, pool="flash", mirrors=2, warmed=True)
    assert _inspect(image_detail(layout=given)) == 0
    told = "layout      4 stripes of 1024 KiB, pool flash, 2 mirrors, warmed"
    assert told in capsys.readouterr().out.splitlines()
    assert _inspect(image_detail(layout=PlacedLayout(stripes=1, fallback="no such pool"))) == 0
    told = "layout      1 stripe, not as configured: no such pool"
    assert told in capsys.readouterr().out.splitlines()
    assert _inspect(image_detail()) == 0
    assert "layout " not in capsys.readouterr().out


@pytest.mark.parametrize("drawn", [False, True])
def test_many_large_layers_fit_80_columns(
    drawn: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    detail = image_detail(size=88_800_000)
    large = detail.shares[0].model_copy(
        update={"size": 88_800_000, "dead": 88_800_000, "left_out": 88_800_000, "pieces": 123_456}
    )
    monkeypatch.setattr("sys.stdout.isatty", lambda: drawn)
    monkeypatch.setenv("TERM", "dumb")  # no colours, and 80 columns
    many = {"shares": (large,) * 12, "layers": detail.layers[:1] * 12}
    assert _inspect(detail.model_copy(update=many)) == 0
    told = capsys.readouterr().out
    table = told[told.index("#  ") :].partition("\ndata")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert sum("dddddddddddd  88.8 MB   100.0 %" in line for line in table) == 12


def test_programs_get_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    image = "a" * 64
    asked = f"GET /api/v1/images/_/id/{image}?sharing=true"
    assert _inspect(image_detail(), image, asked=asked, system=None, json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["id"] == image
    assert told["totals"] == {
        "data": 3_000_000,
        "dead": 300_000,
        "left_out": 5,
        "shared": 3_000_000,
        "own": 456_789,
        "tables": 456_789,
    }


def test_an_image_of_an_earlier_version_says_how_to_know_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _inspect(image_detail(shares=())) == 0
    assert "dray pull --force" in capsys.readouterr().out


def test_a_layer_that_nobody_shares_is_all_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    alone = image_detail().shares[0].model_copy(update={"others": 0})
    assert _inspect(image_detail(shares=(alone,))) == 0
    assert "shared      0 B with other images; 3.5 MB are its own" in capsys.readouterr().out


def test_an_earlier_gateway_is_named() -> None:
    with pytest.raises(UnexpectedAnswerError, match="another version"):
        _inspect(image_view())


def test_only_files_can_be_checked() -> None:
    with pytest.raises(UsageError, match="write it like"):
        _inspect(image_detail(), check=True)


def test_foreign_text_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert _inspect(image_detail(labels={"x": "\x1b[2J"}, workdir="/\x1b]0;title")) == 0
    assert "\x1b" not in capsys.readouterr().out
