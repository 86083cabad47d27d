"""The dashboard: static files, no build step, nothing from outside the site's network."""
