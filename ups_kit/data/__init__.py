"""What every dataset shares: reading, splits, normalisation, the stream of batches."""
