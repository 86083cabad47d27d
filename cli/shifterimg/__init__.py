"""`shifterimg`: the command that Shifter's users and scripts know, for Dray's gateways.

Standard library only; it prints what the original prints, where a script could read it.
"""
