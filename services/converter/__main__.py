"""`python -m services.converter`: this service as a process of its own."""

from services.converter.app import build
from shared.bus.connect import connect_bus
from shared.service import main

main("converter", lambda settings: build(settings, connect_bus(settings, "converter")))
