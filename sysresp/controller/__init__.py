"""Keep what was applied alive, and the truth about it: a pure policy, a ledger, and a loop around them."""
