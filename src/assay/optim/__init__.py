"""Optimisers, inner loops and opponent-aware updates."""
