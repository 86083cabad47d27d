"""REST v1 as models: what the gateway takes and gives under /api/v1.

A client needs only JSON; these are the contract's one definition, from which the gateway
validates requests and makes answers.
"""

from shared.api.agent import (
    AgentStatus,
    CachedView,
    CacheView,
    MountRequest,
    MountView,
    PinRequest,
    PreparedView,
    PrepareRequest,
    ProgramView,
)
from shared.api.exports import ExportView
from shared.api.grids import (
    JobGrid,
    JobGridChange,
    JobLive,
    NodeGrid,
    NodeLetter,
    StagingLetter,
)
from shared.api.history import HistoryView
from shared.api.images import (
    ImageDetail,
    ImagePage,
    ImageView,
    LayerView,
    ReadersRequest,
    ReadersView,
    SystemsView,
)
from shared.api.imports import ImportRequest
from shared.api.inside import InsideRequest, InsideView, SiteView
from shared.api.jobs import (
    JobPage,
    JobRequest,
    JobSummary,
    JobView,
    NodesView,
    NodeView,
    StagingView,
)
from shared.api.lifecycle import (
    ExpiredView,
    ExpireRequest,
    QuotaLimits,
    QuotaStanding,
    QuotaView,
    ReferencesView,
    ReferenceView,
)
from shared.api.logins import (
    INTERNAL,
    TICKETS,
    LoginRequest,
    LoginsView,
    LoginView,
    TicketRequest,
    TicketView,
)
from shared.api.operators import (
    DeadLettersView,
    DeadLetterView,
    ReplayRequest,
    ReplayView,
)
from shared.api.overview import (
    JobsStanding,
    NodesStanding,
    Overview,
    QueueStanding,
    StageStanding,
    Worry,
)
from shared.api.problem import Problem
from shared.api.pulls import PullRequest, PullView, QueueGone, QueueView
from shared.api.storage import (
    ImageDirectoryView,
    ImageRow,
    ImageTable,
    SharingTotals,
    StorageView,
    StoreView,
)
from shared.api.timelines import JobMark, JobMoment, JobTimeline, PullStep, StagingQuantiles
from shared.api.usage import UsageBy, UsagePage, UsageView

API = "/api/v1"

__all__ = [
    "API",
    "INTERNAL",
    "TICKETS",
    "AgentStatus",
    "CacheView",
    "CachedView",
    "DeadLetterView",
    "DeadLettersView",
    "ExpireRequest",
    "ExpiredView",
    "ExportView",
    "HistoryView",
    "ImageDetail",
    "ImageDirectoryView",
    "ImagePage",
    "ImageRow",
    "ImageTable",
    "ImageView",
    "ImportRequest",
    "InsideRequest",
    "InsideView",
    "JobGrid",
    "JobGridChange",
    "JobLive",
    "JobMark",
    "JobMoment",
    "JobPage",
    "JobRequest",
    "JobSummary",
    "JobTimeline",
    "JobView",
    "JobsStanding",
    "LayerView",
    "LoginRequest",
    "LoginView",
    "LoginsView",
    "MountRequest",
    "MountView",
    "NodeGrid",
    "NodeLetter",
    "NodeView",
    "NodesStanding",
    "NodesView",
    "Overview",
    "PinRequest",
    "PrepareRequest",
    "PreparedView",
    "Problem",
    "ProgramView",
    "PullRequest",
    "PullStep",
    "PullView",
    "QueueGone",
    "QueueStanding",
    "QueueView",
    "QuotaLimits",
    "QuotaStanding",
    "QuotaView",
    "ReadersRequest",
    "ReadersView",
    "ReferenceView",
    "ReferencesView",
    "ReplayRequest",
    "ReplayView",
    "SharingTotals",
    "SiteView",
    "StageStanding",
    "StagingLetter",
    "StagingQuantiles",
    "StagingView",
    "StorageView",
    "StoreView",
    "SystemsView",
    "TicketRequest",
    "TicketView",
    "UsageBy",
    "UsagePage",
    "UsageView",
    "Worry",
]
