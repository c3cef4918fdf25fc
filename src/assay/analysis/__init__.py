"""Looking into trained networks and their samples."""
