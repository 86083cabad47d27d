"""How fast the gateway answers, beside a bare handler that returns the same bytes."""
