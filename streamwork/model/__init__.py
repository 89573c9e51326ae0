"""Facts as data: states, policies, lanes, records. No input or output, no clock of its own."""
