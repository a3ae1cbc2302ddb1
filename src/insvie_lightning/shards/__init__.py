"""The shard format: WebDataset tars with a Parquet manifest beside each; write, read, query, verify, select, convert.

Nothing here imports torch or unpickles anything, so the data commands start in a fraction of a second.
"""
