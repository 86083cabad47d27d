"""REST v1 as models: what the gateway takes and gives under /api/v1.

A client needs only JSON; these are the contract's one definition, from which the gateway
validates requests and makes answers.
"""

from shared.api.agent import AgentStatus, MountRequest, MountView
from shared.api.images import ImageDetail, ImagePage, ImageView, LayerView
from shared.api.jobs import JobRequest, JobView, NodesView, NodeView, StagingView
from shared.api.operators import DeadLettersView, DeadLetterView
from shared.api.problem import Problem
from shared.api.pulls import PullRequest, PullView, QueueView

API = "/api/v1"

__all__ = [
    "API",
    "AgentStatus",
    "DeadLetterView",
    "DeadLettersView",
    "ImageDetail",
    "ImagePage",
    "ImageView",
    "JobRequest",
    "JobView",
    "LayerView",
    "MountRequest",
    "MountView",
    "NodeView",
    "NodesView",
    "Problem",
    "PullRequest",
    "PullView",
    "QueueView",
    "StagingView",
]
