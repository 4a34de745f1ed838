"""Orders: intents, the pre-trade context, sending, fills, chases, stops, reconciliation and the kill switch.

The rules that these modules apply are in `aegis`: risk checks, trading state, chase, stops, market halts.
"""
