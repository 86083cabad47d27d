"""From the catalog's records to what REST v1 shows of them."""

from collections.abc import Sequence

from services.gateway.expiring import last_use
from shared.api import (
    ImageDetail,
    ImageView,
    LayerView,
    NodeView,
    PullView,
)
from shared.catalog.records import (
    ImageRecord,
    NodeRecord,
    PlacedImage,
)
from shared.states import State


def image_view(record: ImageRecord) -> ImageView | None:
    current = record.current
    if current is None:
        return None
    return ImageView(
        id=current.image_id,
        system=record.system,
        type=record.itype,
        reference=record.reference,
        manifest_digest=current.manifest_digest,
        config_digest=current.config_digest,
        content_digest=current.content_digest,
        size=current.size,
        inodes=current.inodes,
        layers=current.layers,
        env=current.config.env,
        entrypoint=current.config.entrypoint,
        cmd=current.config.cmd,
        workdir=current.config.workdir,
        labels=current.config.labels,
        ready_at=current.ready_at,
        private=record.private,
        owner=record.owner if record.private else None,
        pinned=record.pinned,
        expires_at=record.expires_at,
        last_used=last_use(record),
    )


def image_detail(view: ImageView, current: PlacedImage, others: Sequence[int]) -> ImageDetail:
    """`others` says for each layer how many other images have its pack."""
    shares = zip(current.shares, others, strict=True)
    return ImageDetail(
        **dict(view),
        options=current.pack,
        layout=current.layout,
        shares=tuple(LayerView(**dict(share), others=count) for share, count in shares),
    )


def pull_view(record: ImageRecord) -> PullView:
    return PullView(
        id=record.pull_id,
        system=record.system,
        type=record.itype,
        reference=record.reference,
        state=record.state,
        attempt=record.attempt,
        tries=record.tries,
        requested_at=record.requested_at,
        requested_by=record.requested_by,
        updated_at=record.updated_at,
        progress=record.progress,
        failure=record.failure,
        image=image_view(record),
        private=record.private,
        warning=_warning(record),
        steps=record.steps,
    )


def _warning(record: ImageRecord) -> str | None:
    named = record.allowed_uids or record.allowed_gids
    if record.private or record.state is not State.READY or not named:
        return None
    return (
        "the registry gives this image to everybody: everybody here may use it, and naming users "
        "and groups for it has no effect"
    )


def node_view(record: NodeRecord) -> NodeView:
    return NodeView(
        node=record.node,
        system=record.system,
        kernel=record.kernel,
        mounter=record.mounter,
        codecs=record.codecs,
        mounts=record.mounts,
        seen_at=record.seen_at,
        lost=record.lost,
        capacity=record.capacity,
    )
