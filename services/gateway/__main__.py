"""`python -m services.gateway`: this service as a process of its own."""

from services.gateway.app import build
from shared.bus.connect import connect_bus
from shared.service import main

main("gateway", lambda settings: build(settings, connect_bus(settings, "gateway")))
