"""What studies learn from: real data that packages ship, loaders for the full sets, generators."""
