"""Stage `scores`: concept effects, TCAV scores and their significance, cell by cell."""
