"""The queues: sending, waiting for results, looking at what is there. Speaks to Redis through store/ only."""
