"""`python -m services.distributor`: this service as a process of its own."""

from services.distributor.app import build
from shared.bus.connect import connect_bus
from shared.service import main

main("distributor", lambda settings: build(settings, connect_bus(settings, "distributor")))
