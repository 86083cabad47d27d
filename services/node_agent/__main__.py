"""`python -m services.node_agent`: this service as a process of its own."""

from services.node_agent.app import build
from shared.bus.connect import connect_bus
from shared.service import main

main("node_agent", lambda settings: build(settings, connect_bus(settings, "node-agent")))
