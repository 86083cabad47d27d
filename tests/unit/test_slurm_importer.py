"""pyxis' importer, by pyxis' documented protocol: arguments, stdout, exit code, called twice."""

import subprocess
from pathlib import Path

import pytest

IMPORTER = Path(__file__).parents[2] / "deploy/slurm/pyxis/dray_importer.sh"
ID = "ab" * 32
# A stand-in for `dray`, that knows an image once it was pulled.
DRAY = f"""#!/bin/sh
echo "$DRAY_URL $*" >>"$0.asked"
case $1 in
pull) echo 'PULLING 10 %'; [ ! -e "$0.refuses" ] || {{ echo 'dray: no such image' >&2; exit 1; }}
    touch "$0.there" ;;
lookup) [ -e "$0.there" ] || {{ echo 'dray: not found' >&2; exit 1; }}; echo {ID} ;;
esac
"""


class Importer:
    """The script, as a site has it."""

    def __init__(self, directory: Path) -> None:
        self.dray = directory / "dray"
        self.dray.write_text(DRAY)
        self.dray.chmod(0o755)
        self.images = directory / "images"
        self.images.mkdir()
        self.file = self.images / f"{ID}.squashfs"
        self.file.touch()
        conf = directory / "hooks.conf"
        conf.write_text(
            f"DRAY={self.dray}\nTIMEOUT=/usr/bin/timeout\nDRAY_URL=http://gateway\n"
            f"DRAY_IMAGE_DIR={self.images}\n"
        )
        self._script = directory / "importer.sh"
        self._script.write_text(IMPORTER.read_text().replace("/etc/dray/hooks.conf", str(conf)))
        self._script.chmod(0o755)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "PYXIS_RUNTIME_PATH": "/run/pyxis"},
            timeout=30,
        )

    def asked(self) -> list[str]:
        return Path(f"{self.dray}.asked").read_text().splitlines()


@pytest.fixture
def importer(tmp_path: Path) -> Importer:
    return Importer(tmp_path)


def test_an_image_is_pulled_once_and_its_path_alone_is_printed(importer: Importer) -> None:
    for _ in range(2):
        done = importer.run("get", "docker://ubuntu:24.04")
        assert (done.returncode, done.stdout) == (0, f"{importer.file}\n"), done.stderr
    assert importer.asked() == [
        "http://gateway lookup -q -- ubuntu:24.04",
        "http://gateway pull -- ubuntu:24.04",
        "http://gateway lookup -q -- ubuntu:24.04",
        "http://gateway lookup -q -- ubuntu:24.04",
    ]
    for _ in range(2):
        done = importer.run("release")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert importer.file.exists()


@pytest.mark.parametrize(
    ("uri", "reference"),
    [
        ("docker://group/app", "group/app"),
        ("docker://nvcr.io#nvidia/cuda:12", "nvcr.io/nvidia/cuda:12"),
        ("docker://$oauthtoken@nvcr.io#nvidia/cuda:12", "nvcr.io/nvidia/cuda:12"),
        ("docker://me@host:5000/a/b@sha256:00", "host:5000/a/b@sha256:00"),
        ("docker://ubuntu@sha256:00", "ubuntu@sha256:00"),
        ("docker://me@registry#a/b:1", "registry:443/a/b:1"),
        ("docker://localhost#a", "localhost/a"),
    ],
)
def test_enroots_words_for_an_image_become_ours(
    importer: Importer, uri: str, reference: str
) -> None:
    Path(f"{importer.dray}.there").touch()
    assert importer.run("get", uri).returncode == 0
    assert importer.asked() == [f"http://gateway lookup -q -- {reference}"]


def test_whoever_fails_says_why_and_prints_no_path(importer: Importer) -> None:
    Path(f"{importer.dray}.refuses").touch()
    failed = importer.run("get", "docker://ubuntu:24.04")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "no such image" in failed.stderr
    importer.file.unlink()
    Path(f"{importer.dray}.there").touch()
    for arguments, why in {
        ("get", "docker://a"): "is not for you to read here",
        ("get", "dockerd://a"): "write docker://IMAGE instead of dockerd://a",
        ("get",): "usage:",
        ("release", "7"): "usage:",
        (): "usage:",
    }.items():
        done = importer.run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert why in done.stderr
