"""How others do it, as the commands that they run; each one's own sources were read for that.

What favours a peer is accepted: it needs not fsync, its clean-up is not counted, and of programs
that it would start through interpreters of its own only the work itself is run.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bench.convert.contenders import (
    CORES,
    FLAT_SUFFIX,
    Job,
    Peer,
    Source,
    blob_url,
    run,
    shell,
    squashfs_size,
)

SQUASH: Final = ("mksquashfs", "squashfs-tools")
CURL: Final = ("curl", "curl")
PIGZ: Final = ("pigz", "pigz")
FLATTEN: Final = ("sqfs2tar", "squashfs-tools-ng")
ENROOT_SQUASH_OPTIONS: Final = ("-comp", "lzo", "-noD", "-exit-on-error")
ZSTD_LEVEL: Final = "3"
BLOCK_BYTES: Final = "131072"


class _Podman(Peer):
    programs = (("podman", "podman"), SQUASH)
    needs_root = True

    def pull(self, job: Job) -> None:
        run(*self._podman(job.storage), "pull", "--quiet", "--tls-verify=false", self._image(job))

    def clean_up(self, storage: Path) -> None:
        run(*self._podman(storage), "image", "unmount", "--all")
        # The driver keeps its own root mounted upon itself.
        shell('if mountpoint -q "$1"; then umount "$1"; fi', storage / "root" / "overlay")

    @staticmethod
    def _podman(storage: Path) -> tuple[str | Path, ...]:
        roots = ("--root", storage / "root", "--runroot", storage / "run")
        return ("podman", *roots, "--storage-driver", "overlay")

    @staticmethod
    def _image(job: Job) -> str:
        return f"docker://{job.source.reference(job.tag)}"


class PodmanHpc(_Podman):
    """podman-hpc 1.x: `migrate` runs mksquashfs inside a container of the image."""

    name = "podman-hpc"
    about = "podman pull, then mksquashfs lz4 of the mounted image (all of it, every time)"

    def convert(self, job: Job) -> None:
        self.pull(job)
        name = job.source.reference(job.tag)
        root = run(*self._podman(job.storage), "image", "mount", name).strip()
        run(
            "mksquashfs",
            root,
            job.image,
            "-comp",
            "lz4",
            "-no-progress",
            "-e",
            "proc",
            "sys",
            "dev",
        )
        run(*self._podman(job.storage), "image", "unmount", name)


class PodmanLayers(_Podman):
    """As if podman-hpc squashed each layer once: kinder than what it does."""

    name = "podman-layers"
    about = "podman pull, then mksquashfs lz4 of each new layer; a node stacks them by overlay"

    def convert(self, job: Job) -> None:
        self.pull(job)
        root = job.storage / "root"
        for layer in json.loads((root / "overlay-layers" / "layers.json").read_text()):
            image = job.out / f"{layer['id']}.squashfs"
            if not image.exists():
                diff = root / "overlay" / layer["id"] / "diff"
                run("mksquashfs", diff, image, "-comp", "lz4", "-no-progress")

    def output(self, job: Job) -> int:
        return sum(squashfs_size(image) for image in job.out.iterdir())


class Enroot(Peer):
    """enroot 3.x and 4.x: `enroot import docker://…` with its default settings."""

    name = "enroot"
    about = "layers to a zstd cache, untarred side by side, overlay, mksquashfs lzo -noD"
    programs = (
        *(SQUASH, CURL, PIGZ),
        *(("zstd", "zstd"), ("tar", "tar"), ("find", "findutils")),
    )
    needs_root = True

    connections: Final = 10
    fetch_script: Final = """
        curl -fsS "$1" | tee >(sha256sum > "$2.sum") | pigz -d -f -c | zstd -T1 -q -f -1 -o "$2.new"
        until [ -s "$2.sum" ]; do sleep 0.001; done
        read -r sum rest < "$2.sum"; [ "$sum" = "$3" ]; mv "$2.new" "$2"; rm "$2.sum"
    """
    unpack_script: Final = """
        mkdir "$1"
        tar -C "$1" --warning=no-timestamp --anchored --exclude='dev/*' --exclude='./dev/*' \
            --use-compress-program=zstd --delay-directory-restore -pxf "$2"
    """
    squash_script: Final = """
        mount -t overlay overlay -o "lowerdir=$1" "$2"; shift
        exec mksquashfs "$@"
    """

    def convert(self, job: Job) -> None:
        cache, work = job.storage / "cache", job.storage / f"work-{job.tag}"
        cache.mkdir(exist_ok=True)
        work.mkdir()
        layers = job.source.registry.layers(job.source.repository, job.tag)
        hexes = [layer.digest.removeprefix("sha256:") for layer in reversed(layers)]
        with ThreadPoolExecutor(self.connections) as pool:
            list(pool.map(lambda name: self._fetch(job.source, cache / name), set(hexes)))
        names = [str(number) for number in range(1, len(hexes) + 1)]
        with ThreadPoolExecutor(CORES) as pool:
            blobs = [cache / name for name in hexes]
            list(
                pool.map(
                    lambda pair: shell(self.unpack_script, *pair, cwd=work),
                    zip(names, blobs, strict=True),
                )
            )
            run("chmod", "-f", "-R", "u+rX", ".", cwd=work)
            list(pool.map(lambda name: _to_overlay(work / name), names))
        (work / "0").mkdir()
        (work / "rootfs").mkdir()
        lower = ":".join(["0", *names])
        options = ("-all-root", "-no-progress", "-processors", str(CORES), *ENROOT_SQUASH_OPTIONS)
        script = ("unshare", "--mount", "bash", "-euc", self.squash_script, "bench")
        run(*script, lower, "rootfs", job.image, *options, cwd=work)

    def _fetch(self, source: Source, cached: Path) -> None:
        if not cached.exists():
            url = blob_url(source, f"sha256:{cached.name}")
            shell(self.fetch_script, url, cached, cached.name)


class Shifter(Peer):
    """Shifter's gateway with its skopeo and umoci back end."""

    name = "shifter"
    about = "skopeo copy, umoci unpack, mksquashfs gzip -all-root -no-xattrs"
    programs = (("skopeo", "skopeo"), ("umoci", "umoci"), SQUASH)

    def convert(self, job: Job) -> None:
        cache, layout = job.storage / "cache", job.storage / job.tag
        bundle = job.storage / f"{job.tag}.image"
        copy = ("skopeo", "copy", "--quiet", "--src-tls-verify=false", "--insecure-policy")
        reference = f"docker://{job.source.reference(job.tag)}"
        run(*copy, "--dest-shared-blob-dir", cache, reference, f"oci:{layout}:image")
        blobs = layout / "blobs" / "sha256"
        if not blobs.exists():
            blobs.parent.mkdir(exist_ok=True)
            blobs.symlink_to(cache / "sha256")
        run("umoci", "unpack", "--rootless", "--image", f"{layout}:image", bundle)
        rootfs = bundle / "rootfs"
        run("mksquashfs", rootfs, job.image, "-all-root", "-no-xattrs", "-no-progress")


class Charliecloud(Peer):
    """Charliecloud: its own puller, build cache and converter."""

    name = "charliecloud"
    about = "ch-image pull (over TLS: it insists), ch-convert to squashfs"
    programs = (
        *(("ch-image", "charliecloud-builders"), ("ch-convert", "charliecloud-builders")),
        *(("openssl", "openssl"), SQUASH),
    )

    def convert(self, job: Job) -> None:
        assert job.source.registry.tls_host is not None
        # Its converter takes the place by this alone.
        env = ("env", f"CH_IMAGE_STORAGE={job.storage / 'images'}")
        reference = f"{job.source.registry.tls_host}/{job.source.repository}:{job.tag}"
        run(*env, "ch-image", "--tls-no-verify", "pull", reference, f"bench-{job.tag}")
        options = ("-i", "ch-image", "-o", "squash")
        run(*env, "ch-convert", *options, f"bench-{job.tag}", job.image)


class _FromTar(Peer):
    """One stream, as if merging layers cost nothing: the limit of squashing whole images."""

    squash_script: str

    def convert(self, job: Job) -> None:
        flat = Source(job.source.registry, job.source.repository + FLAT_SUFFIX)
        (layer,) = flat.registry.layers(flat.repository, job.tag)
        url = blob_url(flat, layer.digest)
        shell(self.squash_script, url, job.image, BLOCK_BYTES, ZSTD_LEVEL, str(CORES))


class MksquashfsTar(_FromTar):
    name = "mksquashfs-tar"
    about = "an image merged for it beforehand: curl | pigz -d | mksquashfs - -tar, zstd level 3"
    programs = (CURL, PIGZ, FLATTEN, SQUASH)
    squash_script = """curl -fsS "$1" | pigz -dc | mksquashfs - "$2" -tar -comp zstd \
        -Xcompression-level "$4" -b "$3" -processors "$5" -no-progress"""


class Tar2sqfs(_FromTar):
    name = "tar2sqfs"
    about = "an image merged for it beforehand: curl | pigz -d | tar2sqfs, zstd level 3"
    programs = (CURL, PIGZ, FLATTEN, ("tar2sqfs", "squashfs-tools-ng"))
    squash_script = """curl -fsS "$1" | pigz -dc | \
        tar2sqfs -q -c zstd -X level="$4" -b "$3" -j "$5" "$2" """


PEERS: Final[tuple[Peer, ...]] = (
    PodmanHpc(),
    PodmanLayers(),
    Enroot(),
    Shifter(),
    Charliecloud(),
    MksquashfsTar(),
    Tar2sqfs(),
)


def _to_overlay(layer: Path) -> None:
    """OCI's whiteouts as overlayfs wants them."""
    for line in run("find", ".", "-name", ".wh.*", "-print0", cwd=layer).split("\0"):
        if not line:
            continue
        mark = layer / line
        mark.unlink()
        if mark.name == ".wh..wh..opq":
            os.setxattr(mark.parent, "trusted.overlay.opaque", b"y")
        elif not mark.name.startswith(".wh..wh."):
            hidden = mark.with_name(mark.name.removeprefix(".wh."))
            if hidden.is_dir() and not hidden.is_symlink():  # a new one in place of the old
                os.setxattr(hidden, "trusted.overlay.opaque", b"y")
            elif not os.path.lexists(hidden):
                os.mknod(hidden, 0o020000, os.makedev(0, 0))
