"""The command line: `streamwork …`. The only room that knows click and rich."""
