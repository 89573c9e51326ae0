"""BullMQ: its tasks and its producer are node programs in `bull/`."""
