"""The one room that speaks Redis: connections, commands, keys, scripts and the embedded server."""
