"""`vtcav watch`: run every new, complete checkpoint of a training once, however many watchers there are.

RUN/                          videos, tracks and clips, made with the first checkpoint and shared by all
RUN/checkpoints/<name>-<id>/  one run per checkpoint
RUN/watch/leases/<id>/        which watcher works on a checkpoint, and how each attempt ended
RUN/watch/records/<id>.json   one per finished checkpoint, done or failed
RUN/watch/registry.parquet    the records as a table
RUN/watch/report.html         concept effects over training
"""
