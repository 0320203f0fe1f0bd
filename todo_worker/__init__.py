"""The worker: reads commands from the log and applies them to PostgreSQL in batches, each exactly once."""
