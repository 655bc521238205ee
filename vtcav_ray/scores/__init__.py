"""Stage `scores`: concept effects, TCAV scores and their significance for every cell."""
