"""A simulated site on a busy day: for looking at the dashboard, for its pictures and its tests."""
