"""`python -m services.node_agent`: this service as a process of its own."""

from services.node_agent.app import NodeAgent, build
from shared.bus.connect import connect_bus
from shared.config import Settings
from shared.service import main


def agent(settings: Settings) -> NodeAgent:
    spread = settings.agent.reconnect_within
    return build(settings, connect_bus(settings, "node-agent", spread=spread))


main("node_agent", agent)
