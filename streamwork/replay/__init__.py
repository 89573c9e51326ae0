"""Past deliveries again: sent anew, run here, or compared with what current code does."""
