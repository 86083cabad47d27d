"""Which queues exist and what they are bound to: one place that every service declares from.

Each service declares all of them when it opens the bus, because a mandatory publish must find
its queue even when the consuming service has never started yet.
"""

from collections.abc import Iterable

from shared.bus.interface import AgentQueue, WorkQueue
from shared.events import agent_key

EXCHANGE = "dray.events"
DEAD_EXCHANGE = "dray.dead"
DEAD_QUEUE = "dray.dead"

CONVERTER_PULLS = WorkQueue("converter.pulls", ("pull.requested",))
# Freshness checks and logins are one request each: they never wait behind an hour's conversion.
CONVERTER_CHECKS = WorkQueue("converter.checks", ("refresh.requested", "login.requested"))
GATEWAY_EVENTS = WorkQueue(
    "gateway.events",
    (
        "pull.progressed",
        "pull.failed",
        "image.unchanged",
        "image.changed",
        "image.converted",
        "image.placed",
        "image.removal_proposed",
        "image.expired",
        "image.lost",
        "inventory.requested",
        "inventory.found",
        "login.checked",
    ),
)
# Thousands at once, all alike: taken many at a time, and never before what pulls wait for.
GATEWAY_NODES = WorkQueue("gateway.nodes", ("node.staged", "node.failed", "node.heartbeat"))

# A queue of its own: a gateway of a version before this event would make it a dead letter.
GATEWAY_REPORTS = WorkQueue("gateway.reports", ("storage.reported",))


def distributor_queue(system: str) -> WorkQueue:
    return WorkQueue(
        f"distributor.{system}",
        (
            f"placement.requested.{system}",
            f"image.readers_changed.{system}",
            f"image.expire_requested.{system}",
            f"image.removal_decided.{system}",
            f"inventory.expected.{system}",
            f"inventory.unknown.{system}",
        ),
    )


def agent_queue(node: str) -> AgentQueue:
    return AgentQueue(f"agent.{node}", (agent_key(node),))


def work_queues(systems: Iterable[str]) -> tuple[WorkQueue, ...]:
    return (
        CONVERTER_PULLS,
        CONVERTER_CHECKS,
        GATEWAY_EVENTS,
        GATEWAY_NODES,
        GATEWAY_REPORTS,
        *(distributor_queue(system) for system in systems),
    )
