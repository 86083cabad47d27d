"""How the site stands, what keeps users waiting, and what Prometheus hears of it."""
