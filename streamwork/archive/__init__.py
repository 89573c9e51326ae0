"""History in files, so that it outlives Redis: JSON lines and Parquet."""
