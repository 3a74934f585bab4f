"""From records to batches: builders, packing, corruption, loading."""
