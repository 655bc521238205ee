"""Stage `videos`: list what there is to look at."""
