"""How arguments, results and task messages become bytes, and come back typed."""
