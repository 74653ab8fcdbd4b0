"""Questions asked of models and their predictions, answered in arrays and tables."""
