"""Stage `videos`: list the input videos."""
