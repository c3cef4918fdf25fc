"""Several agents: games, opponents, reciprocity."""
