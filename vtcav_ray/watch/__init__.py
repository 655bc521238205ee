"""`vtcav watch`: every checkpoint of a training that is complete and new is run once, whoever else is watching.

RUN/                          videos, tracks and clips, made with the first checkpoint and shared by all
RUN/checkpoints/<name>-<id>/  a run for each checkpoint
RUN/watch/leases/<id>/        who works on a checkpoint, and how each attempt ended
RUN/watch/records/<id>.json   one for each checkpoint that is finished with, done or failed
RUN/watch/registry.parquet    the records as a table
RUN/watch/report.html         concept effects over training
"""
