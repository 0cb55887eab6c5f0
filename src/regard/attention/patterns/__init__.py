"""Which keys a query may attend to: patterns, their algebra, and which tiles of the score matrix they fill."""
