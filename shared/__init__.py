"""What all services speak: events, models, bus, catalog, image format, settings.

Imports no service.
"""
