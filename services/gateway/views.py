"""From the catalog's records to what REST v1 shows of them."""

from collections import Counter
from collections.abc import Sequence

from shared.api import (
    ImageDetail,
    ImageView,
    JobView,
    LayerView,
    NodeView,
    PullView,
    StagingView,
)
from shared.catalog.records import (
    ImageRecord,
    JobRecord,
    NodeRecord,
    PlacedImage,
    StagingRecord,
    StagingState,
)


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
    )


def image_detail(view: ImageView, current: PlacedImage, others: Sequence[int]) -> ImageDetail:
    """`others` says for each layer how many other images have its pack."""
    shares = zip(current.shares, others, strict=True)
    return ImageDetail(
        **dict(view),
        options=current.pack,
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
    )


def job_view(job: JobRecord, stagings: Sequence[StagingRecord]) -> JobView:
    told = {
        staging.node: StagingView(
            node=staging.node,
            state=staging.state,
            failure=staging.failure,
            seconds=staging.seconds,
        )
        for staging in stagings
        if staging.announced_at == job.announced_at
    }
    nodes = tuple(told.get(node) or _not_told(node) for node in job.nodes)
    counts = Counter(node.state for node in nodes)
    return JobView(
        job_id=job.job_id,
        system=job.system,
        images=tuple(image.image_id for image in job.images),
        announced_by=job.announced_by,
        announced_at=job.announced_at,
        released_at=job.released_at,
        counts={state: counts[state] for state in StagingState},
        nodes=nodes,
    )


def _not_told(node: str) -> StagingView:
    return StagingView(node=node, state=StagingState.PENDING, failure=None, seconds=None)


def node_view(record: NodeRecord) -> NodeView:
    return NodeView(
        node=record.node,
        system=record.system,
        kernel=record.kernel,
        mounter=record.mounter,
        codecs=record.codecs,
        mounts=record.mounts,
        seen_at=record.seen_at,
    )
