"""``mobilesam embed``: image embeddings into the feature store."""
